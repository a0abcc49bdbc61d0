"""An in-memory `Plane` whose models misbehave on purpose, for listeners to be tested against.

`echo` answers its inputs as outputs. `slow` starts, says so, and waits to be released.
The others raise: `failing` an InferenceFailed, `broken` an unexpected error with secrets in it,
`overloaded`, `late`, `unready`, and `undone` (a CancelledError nobody asked for).
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
)
from serving.types import (
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
    TensorMetadata,
    VersionConfig,
)
from serving.worker.reply import InTasks

__all__ = ["MODELS", "SECRET", "EchoPlane"]

SECRET: Final = "/srv/models/secret.onnx at 0x7f00"
MODELS: Final = (
    "broken",
    "echo",
    "failing",
    "late",
    "overloaded",
    "slow",
    "undone",
    "unready",
)
_INPUT: Final = TensorMetadata("X", "FP32", (-1, 3))


class EchoPlane(InTasks):
    """Implements `serving.worker.plane.Plane` without a gateway.

    `tokens` maps an Authorization header value to roles; None is an open data plane.
    Thread-safe to look at: `started` and `cancelled` are set by the slow model.
    """

    def __init__(self, tokens: dict[str, frozenset[str]] | None = None) -> None:
        self.tokens = tokens
        self.is_live = True
        self.is_ready = True
        self.calls: list[Call] = []
        self.requests: list[InferRequest] = []
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.running = 0
        self._waiting: list[asyncio.Future[None]] = []
        self.failures: dict[str, Callable[[], BaseException]] = {
            "failing": lambda: InferenceFailed("the model failed on this input"),
            "broken": lambda: RuntimeError(SECRET),
            "overloaded": lambda: Overloaded("queue is full", retry_after_seconds=2.4),
            "late": lambda: DeadlineExceeded("the deadline has passed"),
            "undone": asyncio.CancelledError,
            "unready": lambda: ModelNotReady("model 'unready' is loading"),
        }

    def release(self) -> None:
        """Let every waiting `slow` call go on. Call it on the listener's loop."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def live(self) -> bool:
        """As `is_live` says."""
        return self.is_live

    def ready(self) -> bool:
        """As `is_ready` says."""
        return self.is_ready

    def authorize(self, authorization: str | None, role: Role) -> Principal:
        """Look the header up in `tokens`."""
        if self.tokens is None:
            return Principal("anonymous", frozenset({"infer"}))
        if authorization not in self.tokens:
            raise Unauthenticated("send 'Authorization: Bearer <token>'")
        roles = self.tokens[authorization]
        if role not in roles:
            raise PermissionDenied(f"this needs the role {role}")
        return Principal("somebody", roles)

    def server_metadata(self) -> ServerMetadata:
        """Fixed."""
        return ServerMetadata("echo", "0", ["binary_tensor_data"])

    def model_names(self) -> list[str]:
        """All of them."""
        return list(MODELS)

    def model_ready(self, model: str, version: str = "") -> bool:
        """All but `unready`."""
        self._check(model, version)
        return model != "unready"

    def model_metadata(self, model: str, version: str = "") -> ModelMetadata:
        """One FP32 input of three columns."""
        self._check(model, version)
        if model == "broken":
            raise RuntimeError(SECRET)
        if model == "unready":
            raise ModelNotReady("model 'unready' is loading")
        return ModelMetadata(model, ["1"], "onnxruntime_onnx", [_INPUT], [_INPUT])

    def model_config(self, model: str, version: str = "") -> VersionConfig:
        """Batches of up to eight."""
        self._check(model, version)
        return VersionConfig(model, "onnxruntime_onnx", "onnxruntime", 8, [_INPUT], [_INPUT])

    def model_statistics(self, model: str = "", version: str = "") -> list[ModelStatistics]:
        """Nothing has happened."""
        if model:
            self._check(model, version)
        none = Duration()
        return [
            ModelStatistics(name, "1", 0, 0, 0, none, none, none, none, none, none)
            for name in ([model] if model else MODELS)
        ]

    def repository_index(self, *, ready_only: bool = False) -> list[RepositoryEntry]:
        """All of them; `unready` is loading."""
        entries = [
            RepositoryEntry(name, "1", "LOADING" if name == "unready" else "READY")
            for name in MODELS
        ]
        return [entry for entry in entries if entry.state == "READY" or not ready_only]

    def trace_settings(self, model: str = "") -> dict[str, str | list[str]]:
        """Off."""
        if model:
            self._check(model, "")
        return {"trace_level": ["OFF"], "trace_rate": "1000"}

    def log_settings(self) -> dict[str, str | bool | int]:
        """Fixed."""
        return {"log_info": True, "log_verbose_level": 0}

    async def infer(self, request: InferRequest, call: Call) -> InferResponse:
        """Answer as the model named does."""
        self._check(request.model, request.version)
        self.calls.append(call)
        self.requests.append(request)
        failure = self.failures.get(request.model)
        if failure is not None:
            raise failure()
        if request.model == "slow":
            await self._wait()
        return InferResponse(request.model, "1", request.inputs, request.id)

    async def _wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.running += 1
        self.started.set()
        try:
            await future
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1

    def _check(self, model: str, version: str) -> None:
        if model not in MODELS:
            raise ModelNotFound(f"Request for unknown model: '{model}' is not found")
        if version not in ("", "1"):
            raise ModelNotFound(f"Request for unknown model: '{model}' version {version}")
