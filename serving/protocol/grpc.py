"""The Open Inference Protocol V2 over gRPC: protobuf messages to our types and back; no I/O."""

from serving.protocol.grpc_answer import encode_infer, encode_stream, encode_stream_error
from serving.protocol.grpc_infer import decode_infer
from serving.protocol.grpc_management import (
    encode_live,
    encode_log_settings,
    encode_model_config,
    encode_model_metadata,
    encode_model_ready,
    encode_model_statistics,
    encode_ready,
    encode_repository_index,
    encode_server_metadata,
    encode_trace_settings,
)
from serving.protocol.grpc_plain import PlainRequests

__all__ = [
    "PlainRequests",
    "decode_infer",
    "encode_infer",
    "encode_live",
    "encode_log_settings",
    "encode_model_config",
    "encode_model_metadata",
    "encode_model_ready",
    "encode_model_statistics",
    "encode_ready",
    "encode_repository_index",
    "encode_server_metadata",
    "encode_stream",
    "encode_stream_error",
    "encode_trace_settings",
]
