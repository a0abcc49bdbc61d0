"""A plane in memory for listener and client tests: echoes, adds, waits and fails on demand.

Models (all version "1"):
    identity_<datatype>  OUTPUT0 = INPUT0, any shape of two dimensions, batches of up to 8
    simple               OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1 (INT32, [-1, 16])
    waiting              like identity_fp32, once `release` is set or the deadline has passed
    loading              known, not ready
    fail_<error class>   raises that class of `serving.errors`; fail_unexpected a ValueError,
                         fail_cancelled a CancelledError nobody asked for
"""

import asyncio
import re
from collections import Counter

import numpy as np

from serving import errors
from serving.clock import SystemClock
from serving.types import (
    DATATYPES,
    Call,
    Duration,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelStatistics,
    Principal,
    RepositoryEntry,
    Role,
    ServerMetadata,
    Tensor,
    TensorMetadata,
    VersionConfig,
)
from serving.worker.reply import InTasks

SECRET = "/srv/models/private.onnx"
"""Text of the unexpected error; it must never reach a client."""

IDENTITY = {datatype: f"identity_{datatype.lower()}" for datatype in DATATYPES}
DEADLINE_SECONDS = 20.0

Tensors = tuple[list[TensorMetadata], list[TensorMetadata]]


def _one(datatype: str) -> Tensors:
    return (
        [TensorMetadata("INPUT0", datatype, (-1, -1))],
        [TensorMetadata("OUTPUT0", datatype, (-1, -1))],
    )


def _pair() -> Tensors:
    names = ("0", "1")
    return (
        [TensorMetadata(f"INPUT{n}", "INT32", (-1, 16)) for n in names],
        [TensorMetadata(f"OUTPUT{n}", "INT32", (-1, 16)) for n in names],
    )


class TwinPlane(InTasks):
    """What a worker can be asked, without a worker. `tokens`: Authorization value -> roles."""

    def __init__(self, tokens: dict[str, frozenset[str]] | None = None) -> None:
        self.tokens = tokens
        self.is_ready = True
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.left = asyncio.Event()
        self.calls: list[Call] = []
        self.waiting = 0
        self.most_waiting = 0
        self.cancelled = 0
        self.answered: Counter[str] = Counter()
        self.models = {model: _one(datatype) for datatype, model in IDENTITY.items()}
        self.models |= {"simple": _pair(), "waiting": _one("FP32")}

    def live(self) -> bool:
        """Yes."""
        return True

    def ready(self) -> bool:
        """As the test set it."""
        return self.is_ready

    def authorize(self, authorization: str | None, role: Role) -> Principal:
        """Look the credential up in `tokens`; None lets everybody in."""
        if self.tokens is None:
            return Principal("anybody", frozenset({"infer", "operator", "admin"}))
        if authorization not in self.tokens:
            raise errors.Unauthenticated("no such token")
        roles = self.tokens[authorization]
        if role not in roles:
            raise errors.PermissionDenied(f"the role '{role}' is needed")
        return Principal("somebody", roles)

    def server_metadata(self) -> ServerMetadata:
        """Fixed facts."""
        return ServerMetadata("twin", "1.2.3", ["binary_tensor_data", "classification"])

    def model_names(self) -> list[str]:
        """All models that are configured."""
        return [*self.models, "loading"]

    def _tensors(self, model: str, version: str) -> Tensors:
        if model == "loading":
            raise errors.ModelNotReady("model 'loading' is not ready")
        if model not in self.models or version not in ("", "1"):
            raise errors.ModelNotFound(f"Request for unknown model: '{model}' version '{version}'")
        return self.models[model]

    def model_ready(self, model: str, version: str = "") -> bool:
        """All are, but 'loading'."""
        try:
            self._tensors(model, version)
        except errors.ModelNotReady:
            return False
        return True

    def model_metadata(self, model: str, version: str = "") -> ModelMetadata:
        """As declared."""
        inputs, outputs = self._tensors(model, version)
        return ModelMetadata(model, ["1"], "onnxruntime_onnx", inputs, outputs)

    def model_config(self, model: str, version: str = "") -> VersionConfig:
        """Batches of up to 8."""
        inputs, outputs = self._tensors(model, version)
        return VersionConfig(model, "onnxruntime_onnx", "onnxruntime", 8, inputs, outputs)

    def model_statistics(self, model: str = "", version: str = "") -> list[ModelStatistics]:
        """Counts what `infer` answered."""
        if model:
            self._tensors(model, version)
        return [
            ModelStatistics(
                name=name,
                version="1",
                last_inference=1_700_000_000_000,
                inference_count=self.answered[name],
                execution_count=self.answered[name],
                success=Duration(self.answered[name], 1000),
                fail=Duration(0, 0),
                queue=Duration(self.answered[name], 10),
                compute_input=Duration(self.answered[name], 1),
                compute_infer=Duration(self.answered[name], 980),
                compute_output=Duration(self.answered[name], 9),
                batches={1: Duration(self.answered[name], 980)},
            )
            for name in self.models
            if model in ("", name)
        ]

    def repository_index(self, *, ready_only: bool = False) -> list[RepositoryEntry]:
        """One version of each model."""
        ready = [RepositoryEntry(name, "1", "READY") for name in self.models]
        if ready_only:
            return ready
        return [*ready, RepositoryEntry("loading", "1", "LOADING", "not loaded yet")]

    def trace_settings(self, _model: str = "") -> dict[str, str | list[str]]:
        """Fixed settings."""
        return {"trace_level": ["OFF"], "trace_rate": "1000", "trace_mode": "opentelemetry"}

    def log_settings(self) -> dict[str, str | bool | int]:
        """Fixed settings."""
        return {"log_file": "", "log_info": True, "log_verbose_level": 0, "log_format": "default"}

    async def infer(self, request: InferRequest, call: Call) -> InferResponse:
        """Compute the model's outputs, wait, or fail."""
        self.calls.append(call)
        self.authorize(call.authorization, "infer")
        if request.model.startswith("fail_"):
            raise self._failure(request.model.removeprefix("fail_"))
        inputs, outputs = self._tensors(request.model, request.version)
        _check(request, inputs)
        timeout = self._timeout(request, call)
        if request.model == "waiting":
            await self._wait(timeout)
        names = tuple(output.name for output in request.outputs) or tuple(o.name for o in outputs)
        arrays = self._compute(request)
        for name in names:
            if name not in arrays:
                raise errors.InvalidRequest(f"output '{name}' is not one of {list(arrays)}")
        self.answered[request.model] += 1
        declared = {output.name: output.datatype for output in outputs}
        return InferResponse(
            request.model,
            "1",
            [Tensor(name, declared[name], arrays[name]) for name in names],
            id=request.id,
            parameters={"model_role": "production", "prediction_id": "p1"},
        )

    def _failure(self, name: str) -> BaseException:
        if name == "cancelled":
            return asyncio.CancelledError()
        kind = getattr(errors, name, None)
        if kind is None:
            return ValueError(f"cannot open {SECRET}")
        if kind is errors.Overloaded:
            return errors.Overloaded("too busy", retry_after_seconds=0.25)
        error: Exception = kind(f"on purpose: {name}")
        return error

    def _timeout(self, request: InferRequest, call: Call) -> float:
        parameter = request.parameters.get("timeout")
        seconds = [DEADLINE_SECONDS, call.timeout or DEADLINE_SECONDS]
        seconds += [parameter * 1e-6] if isinstance(parameter, int) and parameter else []
        if call.arrived + min(seconds) <= SystemClock().monotonic():
            raise errors.DeadlineExceeded("the deadline had passed before the request was read")
        return min(seconds)

    async def _wait(self, seconds: float) -> None:
        self.waiting += 1
        self.most_waiting = max(self.waiting, self.most_waiting)
        self.entered.set()
        try:
            await asyncio.wait_for(self.release.wait(), seconds)
        except TimeoutError:
            raise errors.DeadlineExceeded("the deadline passed while waiting") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
            self.left.set()

    def _compute(self, request: InferRequest) -> dict[str, np.ndarray]:
        given = {tensor.name: tensor.data for tensor in request.inputs}
        if request.model == "simple":
            one, two = given["INPUT0"], given["INPUT1"]
            return {"OUTPUT0": one + two, "OUTPUT1": one - two}
        return {"OUTPUT0": given["INPUT0"]}


def _check(request: InferRequest, declared: list[TensorMetadata]) -> None:
    given: dict[str, Tensor] = {tensor.name: tensor for tensor in request.inputs}
    for metadata in declared:
        tensor = given.pop(metadata.name, None)
        if tensor is None:
            raise errors.InvalidRequest(f"input '{metadata.name}' is missing")
        if tensor.datatype != metadata.datatype:
            raise errors.InvalidRequest(
                f"input '{tensor.name}' is {tensor.datatype}; the model takes {metadata.datatype}"
            )
        if len(tensor.shape) != len(metadata.shape):
            raise errors.InvalidRequest(f"input '{tensor.name}' must have 2 dimensions")
    if given:
        raise errors.InvalidRequest(f"input '{next(iter(given))}' is not one of the model's")


def forbidden_in_errors(text: str) -> bool:
    """Whether an error text gives away what a client must not learn."""
    return bool(re.search(r"/srv|Traceback|File \"|0x[0-9a-f]{6}", text))
