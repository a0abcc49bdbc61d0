"""Protobuf messages around inference: the same facts as in JSON."""

import orjson
import pytest
from google.protobuf import json_format

from serving.protocol import grpc, rest
from serving.protocol._generated import inference_pb2 as pb
from serving.types import (
    NUMPY_OF,
    Duration,
    ModelMetadata,
    ModelStatistics,
    RepositoryEntry,
    ServerMetadata,
    TensorMetadata,
    VersionConfig,
)

TENSORS = [TensorMetadata(name.lower(), name, (-1, 3)) for name in NUMPY_OF]


def as_json(message: object) -> object:
    """A message as JSON values with the field names of the .proto file, integers as numbers."""
    text = json_format.MessageToJson(
        message,  # type: ignore[arg-type]
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    return numbers(orjson.loads(text))


def numbers(value: object) -> object:
    """Undo the strings that protobuf's JSON makes of 64-bit integers."""
    if isinstance(value, dict):
        return {key: numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [numbers(inner) for inner in value]
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    return value


def test_health_messages() -> None:
    """One boolean each."""
    assert grpc.encode_live(True).live
    assert not grpc.encode_ready(False).ready
    assert grpc.encode_model_ready(True).ready


def test_server_metadata() -> None:
    """The same as over HTTP."""
    metadata = ServerMetadata("sluice", "0.1", ["statistics", "logging"])

    assert as_json(grpc.encode_server_metadata(metadata)) == orjson.loads(
        rest.encode_server_metadata(metadata)
    )


def test_model_metadata() -> None:
    """The same as over HTTP, every datatype among the tensors."""
    metadata = ModelMetadata("m", ["v1", "v2"], "onnx_onnxv1", TENSORS, TENSORS[:1])

    assert as_json(grpc.encode_model_metadata(metadata)) == orjson.loads(
        rest.encode_model_metadata(metadata)
    )


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_model_config(max_batch_size: int) -> None:
    """The same as over HTTP, every datatype among the tensors."""
    inputs = [TensorMetadata(t.name, t.datatype, t.shape, optional=True) for t in TENSORS]
    config = VersionConfig("m", "onnx_onnxv1", "onnxruntime", max_batch_size, inputs, TENSORS)

    message = grpc.encode_model_config(config).config

    body = orjson.loads(rest.encode_model_config(config))
    batching = {"preferred_batch_size": [], "max_queue_delay_microseconds": 0}
    if "dynamic_batching" in body:
        body["dynamic_batching"] = batching
    assert as_json(message) == body


def test_statistics() -> None:
    """The same as over HTTP."""
    spent = [Duration(n, 100 * n) for n in range(6)]
    entry = ModelStatistics(
        "m", "v1", 1_700_000_000_000, 10, 4, *spent, batches={4: Duration(1, 9), 1: Duration(3, 8)}
    )

    body = as_json(grpc.encode_model_statistics([entry]))

    assert body == orjson.loads(rest.encode_model_statistics([entry]))


def test_the_repository_index() -> None:
    """The same as over HTTP."""
    entries = [RepositoryEntry("m", "v1", "READY"), RepositoryEntry("m", "v2", "LOADING", "soon")]

    message = grpc.encode_repository_index(entries)

    assert [(m.name, m.version, m.state, m.reason) for m in message.models] == [
        ("m", "v1", "READY", ""),
        ("m", "v2", "LOADING", "soon"),
    ]


def test_trace_settings_are_lists_of_strings() -> None:
    """Single values become lists of one."""
    message = grpc.encode_trace_settings({"trace_level": ["OFF"], "trace_rate": "1000"})

    assert {key: list(value.value) for key, value in message.settings.items()} == {
        "trace_level": ["OFF"],
        "trace_rate": ["1000"],
    }


def test_log_settings_keep_their_types() -> None:
    """Booleans, unsigned numbers, strings."""
    message = grpc.encode_log_settings(
        {"log_info": False, "log_verbose_level": 2, "log_format": "default"}
    )

    kinds = {k: v.WhichOneof("parameter_choice") for k, v in message.settings.items()}
    assert kinds == {
        "log_info": "bool_param",
        "log_verbose_level": "uint32_param",
        "log_format": "string_param",
    }
    assert message.settings["log_verbose_level"].uint32_param == 2


def test_every_call_of_the_protocol_is_declared() -> None:
    """Also the ones that are only there to answer UNIMPLEMENTED."""
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]

    assert service.full_name == "inference.GRPCInferenceService"
    assert {method.name for method in service.methods} == {
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
        "ModelConfig",
        "ModelStatistics",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "TraceSetting",
        "LogSettings",
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
    }
