"""A model host as its listener sees it: one version, answered without routing, features or record.

Its callers are the gateway's workers, which have done all that.
"""

from serving.clock import Clock
from serving.config.hosts import HostSpec
from serving.errors import InvalidRequest, ModelNotFound
from serving.types import (
    Call,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelStatistics,
    Principal,
    RepositoryEntry,
    Role,
    ServerMetadata,
    Tensor,
    VersionConfig,
)
from serving.upstream import Upstream
from serving.worker.reply import InTasks

__all__ = ["HostPlane"]

_ANYBODY = Principal("gateway", frozenset({"infer"}))


class HostPlane(InTasks):
    """Implements `serving.worker.plane.Plane` for one version. Who can open its socket may ask."""

    def __init__(self, spec: HostSpec, upstream: Upstream, clock: Clock) -> None:
        self._spec = spec
        self._upstream = upstream
        self._now = clock.monotonic
        self.draining = False
        self.in_flight = 0
        signature = upstream.signature
        self._datatypes = {one.name: one.datatype for one in signature.outputs}
        self._names = tuple(self._datatypes)
        self._inputs = {one.name for one in signature.inputs}

    def header_names(self) -> frozenset[str]:
        """None is of interest."""
        return frozenset()

    def live(self) -> bool:
        """A process that can answer is alive."""
        return True

    def ready(self) -> bool:
        """Until it drains."""
        return not self.draining and self._upstream.ready()

    def authorize(self, authorization: str | None, role: Role) -> Principal:
        """Let anybody in: the socket's permissions have decided."""
        del authorization, role
        return _ANYBODY

    def server_metadata(self) -> ServerMetadata:
        """Name and what is offered."""
        return ServerMetadata("sluice-host", "", ["binary_tensor_data"])

    def model_names(self) -> list[str]:
        """The one."""
        return [self._spec.model]

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether it answers now. Raises ModelNotFound."""
        self._insist(model, version)
        return self.ready()

    def model_metadata(self, model: str, version: str = "") -> ModelMetadata:
        """What it takes and gives. Raises ModelNotFound."""
        self._insist(model, version)
        signature = self._upstream.signature
        return ModelMetadata(
            model, [self._spec.version], "onnxruntime_onnx", signature.inputs, signature.outputs
        )

    def model_config(self, model: str, version: str = "") -> VersionConfig:
        """How it batches. Raises ModelNotFound."""
        self._insist(model, version)
        signature = self._upstream.signature
        return VersionConfig(
            name=model,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            max_batch_size=self._spec.serve.max_batch_size if signature.batchable else 0,
            inputs=signature.inputs,
            outputs=signature.outputs,
        )

    def model_statistics(self, model: str = "", version: str = "") -> list[ModelStatistics]:
        """Nothing: the workers count."""
        del model, version
        return []

    def repository_index(self, *, ready_only: bool = False) -> list[RepositoryEntry]:
        """The one."""
        if not self.ready():
            return (
                []
                if ready_only
                else [RepositoryEntry(self._spec.model, self._spec.version, "UNLOADING")]
            )
        return [RepositoryEntry(self._spec.model, self._spec.version, "READY")]

    def trace_settings(self, model: str = "") -> dict[str, str | list[str]]:
        """No traces of its own."""
        del model
        return {"trace_level": ["OFF"]}

    def log_settings(self) -> dict[str, str | bool | int]:
        """As configured."""
        return {}

    async def infer(self, request: InferRequest, call: Call) -> InferResponse:
        """Run the model. Raises what `Upstream.infer` raises, and ModelNotFound."""
        self._insist(request.model, request.version)
        feed = {tensor.name: tensor.data for tensor in request.inputs}
        if feed.keys() != self._inputs:
            raise InvalidRequest(f"the inputs must be {', '.join(sorted(self._inputs))}")
        outputs = tuple(output.name for output in request.outputs) or self._names
        first = request.inputs[0].data
        timeout = call.timeout if call.timeout is not None else float("inf")
        self.in_flight += 1
        try:
            inference = await self._upstream.infer(
                feed,
                rows=first.shape[0] if first.ndim else 1,
                outputs=outputs,
                deadline=call.arrived + timeout,
                shadow=request.parameters.get("shadow") is True,
            )
        finally:
            self.in_flight -= 1
        return InferResponse(
            request.model,
            self._spec.version,
            [
                Tensor(name, self._datatypes[name], array)
                for name, array in zip(outputs, inference.outputs, strict=True)
            ],
            request.id,
            {
                "queue_seconds": inference.queue_seconds,
                "compute_seconds": inference.compute_seconds,
                "batch_rows": inference.batch_rows,
            },
        )

    def _insist(self, model: str, version: str) -> None:
        if model not in {"", self._spec.model} or version not in {"", self._spec.version}:
            raise ModelNotFound(
                f"Request for unknown model: this process serves {self._spec.name} only"
            )
