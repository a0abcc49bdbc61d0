"""Protobuf messages of the calls around inference, the same facts as `rest_management`."""

from collections.abc import Mapping, Sequence
from typing import Final

from serving.protocol._generated import inference_pb2 as pb
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
    "encode_live",
    "encode_log_settings",
    "encode_model_config",
    "encode_model_metadata",
    "encode_model_ready",
    "encode_model_statistics",
    "encode_ready",
    "encode_repository_index",
    "encode_server_metadata",
    "encode_trace_settings",
]


def encode_live(live: bool) -> pb.ServerLiveResponse:
    """ServerLive."""
    return pb.ServerLiveResponse(live=live)


def encode_ready(ready: bool) -> pb.ServerReadyResponse:
    """ServerReady."""
    return pb.ServerReadyResponse(ready=ready)


def encode_model_ready(ready: bool) -> pb.ModelReadyResponse:
    """ModelReady."""
    return pb.ModelReadyResponse(ready=ready)


def encode_server_metadata(metadata: ServerMetadata) -> pb.ServerMetadataResponse:
    """ServerMetadata."""
    return pb.ServerMetadataResponse(
        name=metadata.name, version=metadata.version, extensions=metadata.extensions
    )


def encode_model_metadata(metadata: ModelMetadata) -> pb.ModelMetadataResponse:
    """ModelMetadata; shapes include the batch dimension, −1 is a variable one."""
    return pb.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=[_declared(tensor) for tensor in metadata.inputs],
        outputs=[_declared(tensor) for tensor in metadata.outputs],
    )


def _declared(tensor: TensorMetadata) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )


def encode_model_config(config: VersionConfig) -> pb.ModelConfigResponse:
    """ModelConfig, without the batch dimension in dims."""
    start = 1 if config.max_batch_size > 0 else 0
    message = pb.ModelConfig(
        name=config.name,
        platform=config.platform,
        backend=config.backend,
        max_batch_size=config.max_batch_size,
        input=[
            pb.ModelInput(
                name=tensor.name,
                data_type=_data_type(tensor),
                dims=tensor.shape[start:],
                optional=tensor.optional,
            )
            for tensor in config.inputs
        ],
        output=[
            pb.ModelOutput(
                name=tensor.name, data_type=_data_type(tensor), dims=tensor.shape[start:]
            )
            for tensor in config.outputs
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    if config.max_batch_size > 0:
        message.dynamic_batching.SetInParent()
    return pb.ModelConfigResponse(config=message)


def _data_type(tensor: TensorMetadata) -> pb.DataType.ValueType:
    kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return pb.DataType.Value(f"TYPE_{kind}")


_NONE: Final = Duration()


def encode_model_statistics(statistics: Sequence[ModelStatistics]) -> pb.ModelStatisticsResponse:
    """ModelStatistics; one entry per version."""
    return pb.ModelStatisticsResponse(model_stats=[_statistics(entry) for entry in statistics])


def _statistics(entry: ModelStatistics) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=entry.name,
        version=entry.version,
        last_inference=entry.last_inference,
        inference_count=entry.inference_count,
        execution_count=entry.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(entry.success),
            fail=_duration(entry.fail),
            queue=_duration(entry.queue),
            compute_input=_duration(entry.compute_input),
            compute_infer=_duration(entry.compute_infer),
            compute_output=_duration(entry.compute_output),
            cache_hit=_duration(_NONE),
            cache_miss=_duration(_NONE),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(Duration(count=runs.count)),
                compute_infer=_duration(runs),
                compute_output=_duration(Duration(count=runs.count)),
            )
            for size, runs in sorted(entry.batches.items())
        ],
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def encode_repository_index(entries: Sequence[RepositoryEntry]) -> pb.RepositoryIndexResponse:
    """RepositoryIndex."""
    message = pb.RepositoryIndexResponse()
    for entry in entries:
        message.models.add(
            name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
        )
    return message


def encode_trace_settings(settings: Mapping[str, str | list[str]]) -> pb.TraceSettingResponse:
    """TraceSetting; every value is a list of strings."""
    message = pb.TraceSettingResponse()
    for key, value in settings.items():
        message.settings[key].value.extend([value] if isinstance(value, str) else value)
    return message


def encode_log_settings(settings: Mapping[str, str | bool | int]) -> pb.LogSettingsResponse:
    """LogSettings; booleans, unsigned numbers and strings keep their types."""
    message = pb.LogSettingsResponse()
    for key, value in settings.items():
        if isinstance(value, bool):
            message.settings[key].bool_param = value
        elif isinstance(value, int):
            message.settings[key].uint32_param = value
        else:
            message.settings[key].string_param = value
    return message
