"""The values that flow through the stations; no wire format, no I/O.

A tensor's `datatype` is the Open Inference Protocol's word (FP32, INT64, BYTES …).
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DATATYPES",
    "NUMPY_OF",
    "Call",
    "Duration",
    "InferRequest",
    "InferResponse",
    "ModelMetadata",
    "ModelStatistics",
    "ParameterValue",
    "Principal",
    "RepositoryEntry",
    "RequestedOutput",
    "Role",
    "ServerMetadata",
    "Signature",
    "Tensor",
    "TensorMetadata",
    "VersionConfig",
]

ParameterValue = bool | int | float | str
Role = Literal["infer", "operator", "admin"]

NUMPY_OF: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    # numpy has no bfloat16: the 16 bits travel as they are, the high half of an FP32.
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}
"""How each datatype is held in `Tensor.data`; BYTES as an object array of `bytes`."""

DATATYPES: Final = tuple(NUMPY_OF)


class Tensor(msgspec.Struct, gc=False):
    """A named array. `data.shape` is the tensor's shape, row-major, dtype `NUMPY_OF[datatype]`."""

    name: str
    datatype: str
    data: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions, outermost first."""
        return self.data.shape


class RequestedOutput(msgspec.Struct, frozen=True, gc=False):
    """An output the caller asked for by name.

    `binary` is the caller's wish for this output over HTTP (None: the request's default);
    `classification` asks for the top n as BYTES `value:index[:label]`, 0 for plain values.
    """

    name: str
    binary: bool | None = None
    classification: int = 0


class InferRequest(msgspec.Struct):
    """One inference call, as any listener hands it to the pipeline.

    `version` empty: the traffic plan picks. `outputs` empty: all of them.
    `binary_output` is the HTTP default for outputs that do not say.
    """

    model: str
    version: str
    inputs: list[Tensor]
    id: str = ""
    parameters: dict[str, ParameterValue] = {}
    outputs: list[RequestedOutput] = []
    binary_output: bool = False


class InferResponse(msgspec.Struct):
    """The answer, outputs in the order the caller asked (or the model declares).

    `labels` name the classes for the `classification` extension, which codecs apply.
    """

    model: str
    version: str
    outputs: list[Tensor]
    id: str = ""
    parameters: dict[str, ParameterValue] = {}
    labels: Sequence[str] = ()


class Principal(msgspec.Struct, frozen=True):
    """Who is calling, once a credential has been checked."""

    name: str
    roles: frozenset[str]
    tenant: str | None = None
    """On whose behalf it calls, if its token says so."""


class Call(msgspec.Struct):
    """What a listener knows about a call besides its tensors.

    Times are monotonic seconds. `timeout` is the shortest wish stated in transport headers
    (`x-request-timeout`, `grpc-timeout`), in seconds, or None; the OIP `timeout` parameter
    stays in the request. `deadline` is what the pipeline made of all of them.
    """

    protocol: Literal["http", "grpc", "internal"]
    arrived: float
    decoded: float = 0.0
    timeout: float | None = None
    deadline: float = float("inf")
    authorization: str | None = None
    headers: dict[str, str] = {}
    """Only headers that the configuration names (overrides, assignment), names in lower case."""
    request_id: str = ""
    traceparent: str | None = None
    tracestate: str | None = None
    principal: Principal | None = None
    """Who is calling, if the listener has already had the credential checked."""
    traceresponse: str | None = None
    """Set by the pipeline for a sampled request: our span, in traceparent's format."""


# --- what the protocol's management calls answer ------------------------------------------


class ServerMetadata(msgspec.Struct, frozen=True):
    """GET /v2."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct, frozen=True):
    """A declared tensor; −1 is a variable dimension, the batch dimension is included.

    `optional` inputs may be left out (`ModelConfig` carries the flag; plain metadata cannot).
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


class ModelMetadata(msgspec.Struct, frozen=True):
    """GET /v2/models/{model}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class VersionConfig(msgspec.Struct, frozen=True):
    """GET /v2/models/{model}/config; codecs render it as Triton's `ModelConfig`.

    `max_batch_size` 0: the first dimension is not a batch. `inputs` and `outputs` hold full
    shapes; a codec drops the batch dimension where the format wants that.
    """

    name: str
    platform: str
    backend: str
    max_batch_size: int
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Duration(msgspec.Struct, frozen=True):
    """A number of events and the nanoseconds they took together."""

    count: int = 0
    ns: int = 0


class ModelStatistics(msgspec.Struct, frozen=True):
    """Cumulative figures of one version, summed over all workers.

    `last_inference` is milliseconds since 1970. `inference_count` counts rows,
    `execution_count` session runs. `batches` maps batch size to (runs, ns).
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    batches: dict[int, Duration] = {}


class RepositoryEntry(msgspec.Struct, frozen=True):
    """One version in POST /v2/repository/index."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]
    reason: str = ""


class Signature(msgspec.Struct, frozen=True):
    """What a model file takes and gives, read while it was checked in a throw-away process.

    `batchable`: every input and output has a free first dimension and two different rows
    answered together the same as alone. `metadata` is the file's own key-value metadata.
    `loops`: a Loop operator, so how long a run takes may depend on the request's values.
    """

    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    batchable: bool
    metadata: dict[str, str] = {}
    loops: bool = False
