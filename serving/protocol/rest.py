"""The Open Inference Protocol V2 over HTTP: bodies in, bodies out; no I/O."""

from serving.protocol.compression import choose_encoding, deflate, inflate
from serving.protocol.rest_management import (
    decode_repository_index,
    encode_error,
    encode_live,
    encode_log_settings,
    encode_model_config,
    encode_model_load,
    encode_model_metadata,
    encode_model_names,
    encode_model_ready,
    encode_model_statistics,
    encode_model_unload,
    encode_ready,
    encode_repository_index,
    encode_server_metadata,
    encode_trace_settings,
)
from serving.protocol.rest_request import decode_infer, parse_header_length
from serving.protocol.rest_response import encode_infer

__all__ = [
    "choose_encoding",
    "decode_infer",
    "decode_repository_index",
    "deflate",
    "encode_error",
    "encode_infer",
    "encode_live",
    "encode_log_settings",
    "encode_model_config",
    "encode_model_load",
    "encode_model_metadata",
    "encode_model_names",
    "encode_model_ready",
    "encode_model_statistics",
    "encode_model_unload",
    "encode_ready",
    "encode_repository_index",
    "encode_server_metadata",
    "encode_trace_settings",
    "inflate",
    "parse_header_length",
]
