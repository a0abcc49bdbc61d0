"""JSON bodies of the calls around inference: health, metadata, config, statistics, repository.

Shapes: Open Inference Protocol V2 and Triton's model configuration, statistics, repository,
trace and logging extensions. Health answers carry the bodies that KServe's client parses.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from serving.errors import InvalidRequest
from serving.types import (
    Duration,
    ModelMetadata,
    ModelStatistics,
    RepositoryEntry,
    ServerMetadata,
    TensorMetadata,
    VersionConfig,
)

__all__ = [
    "decode_repository_index",
    "encode_error",
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
]

_NONE: Final = Duration()


def encode_error(message: str) -> bytes:
    """`{"error": message}`, the body of every failure."""
    # A message may quote a lone surrogate of a client's text, which no UTF-8 body can hold.
    return orjson.dumps({"error": message.encode("utf-8", "replace").decode()})


def encode_live(live: bool) -> bytes:
    """GET /v2/health/live."""
    return orjson.dumps({"live": live})


def encode_ready(ready: bool) -> bytes:
    """GET /v2/health/ready."""
    return orjson.dumps({"ready": ready})


def encode_model_ready(name: str, ready: bool) -> bytes:
    """GET /v2/models/{name}/ready."""
    return orjson.dumps({"name": name, "ready": ready})


def encode_model_names(names: Sequence[str]) -> bytes:
    """GET /v2/models."""
    return orjson.dumps({"models": list(names)})


def encode_server_metadata(metadata: ServerMetadata) -> bytes:
    """GET /v2."""
    return orjson.dumps(
        {
            "name": metadata.name,
            "version": metadata.version,
            "extensions": metadata.extensions,
        }
    )


def encode_model_metadata(metadata: ModelMetadata) -> bytes:
    """GET /v2/models/{name}; shapes include the batch dimension, −1 is a variable one."""
    return orjson.dumps(
        {
            "name": metadata.name,
            "versions": metadata.versions,
            "platform": metadata.platform,
            "inputs": [_declared(tensor) for tensor in metadata.inputs],
            "outputs": [_declared(tensor) for tensor in metadata.outputs],
        }
    )


def _declared(tensor: TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def encode_model_config(config: VersionConfig) -> bytes:
    """GET /v2/models/{name}/config: Triton's ModelConfig, without the batch dimension in dims."""
    start = 1 if config.max_batch_size > 0 else 0
    inputs = []
    for tensor in config.inputs:
        entry: dict[str, Any] = _configured(tensor, start)
        if tensor.optional:
            entry["optional"] = True
        inputs.append(entry)
    body: dict[str, Any] = {
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "max_batch_size": config.max_batch_size,
        "input": inputs,
        "output": [_configured(tensor, start) for tensor in config.outputs],
        "model_transaction_policy": {"decoupled": False},
    }
    if config.max_batch_size > 0:
        body["dynamic_batching"] = {}
    return orjson.dumps(body)


def _configured(tensor: TensorMetadata, start: int) -> dict[str, Any]:
    kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return {"name": tensor.name, "data_type": f"TYPE_{kind}", "dims": tensor.shape[start:]}


def encode_model_statistics(statistics: Sequence[ModelStatistics]) -> bytes:
    """GET /v2/models/stats and /v2/models/{name}/stats; one entry per version."""
    return orjson.dumps({"model_stats": [_statistics(entry) for entry in statistics]})


def _statistics(entry: ModelStatistics) -> dict[str, Any]:
    return {
        "name": entry.name,
        "version": entry.version,
        "last_inference": entry.last_inference,
        "inference_count": entry.inference_count,
        "execution_count": entry.execution_count,
        "inference_stats": {
            "success": _duration(entry.success),
            "fail": _duration(entry.fail),
            "queue": _duration(entry.queue),
            "compute_input": _duration(entry.compute_input),
            "compute_infer": _duration(entry.compute_infer),
            "compute_output": _duration(entry.compute_output),
            "cache_hit": _duration(_NONE),
            "cache_miss": _duration(_NONE),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(Duration(count=runs.count)),
                "compute_infer": _duration(runs),
                "compute_output": _duration(Duration(count=runs.count)),
            }
            for size, runs in sorted(entry.batches.items())
        ],
        "memory_usage": [],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}


def decode_repository_index(body: bytes) -> bool:
    """Whether POST /v2/repository/index asks for ready models only; an empty body does not.

    Raises:
        InvalidRequest: not a JSON object, or `ready` is not a boolean.
    """
    if not body.strip():
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("the body of a repository index must be a JSON object") from None
    ready = document.get("ready", False) if type(document) is dict else None
    if type(ready) is not bool:
        raise InvalidRequest('the body of a repository index must be {"ready": true or false}')
    return ready


def encode_repository_index(entries: Sequence[RepositoryEntry]) -> bytes:
    """POST /v2/repository/index: a bare array."""
    return orjson.dumps(
        [
            {"name": e.name, "version": e.version, "state": e.state, "reason": e.reason}
            for e in entries
        ]
    )


def encode_model_load(name: str) -> bytes:
    """POST /v2/repository/models/{name}/load."""
    return orjson.dumps({"name": name, "load": True})


def encode_model_unload(name: str) -> bytes:
    """POST /v2/repository/models/{name}/unload."""
    return orjson.dumps({"name": name, "unload": True})


def encode_trace_settings(settings: Mapping[str, str | list[str]]) -> bytes:
    """GET /v2/trace/setting; values are strings, `trace_level` an array of them."""
    return orjson.dumps(dict(settings))


def encode_log_settings(settings: Mapping[str, str | bool | int]) -> bytes:
    """GET /v2/logging; values keep their types."""
    return orjson.dumps(dict(settings))
