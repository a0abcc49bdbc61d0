"""The one surface both listeners call; they know nothing else of the gateway."""

from collections.abc import Awaitable
from typing import Protocol

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
    VersionConfig,
)
from serving.worker.reply import Pending, Reply

__all__ = ["Plane"]


class Plane(Protocol):
    """What a worker can be asked, independent of HTTP and gRPC.

    Every method raises the errors of `serving.errors`; `version` empty means the version the
    traffic plan calls production (metadata) or picks (infer).
    """

    def live(self) -> bool:
        """Whether the process is worth keeping."""
        ...

    def ready(self) -> bool:
        """Whether requests should be sent here now (false while loading and draining)."""
        ...

    def authorize(self, authorization: str | None, role: Role) -> Principal:
        """Check an Authorization header value. Raises Unauthenticated, PermissionDenied."""
        ...

    def server_metadata(self) -> ServerMetadata:
        """Name, version, extensions."""
        ...

    def model_names(self) -> list[str]:
        """Every model in the configuration."""
        ...

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether it answers now. Raises ModelNotFound."""
        ...

    def model_metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Tensors a client may send and gets. Raises ModelNotFound, ModelNotReady."""
        ...

    def model_config(self, model: str, version: str = "") -> VersionConfig:
        """Batching and optional inputs. Raises ModelNotFound, ModelNotReady."""
        ...

    def model_statistics(self, model: str = "", version: str = "") -> list[ModelStatistics]:
        """Cumulative figures, one entry per version, summed over workers. Empty: all models."""
        ...

    def repository_index(self, *, ready_only: bool = False) -> list[RepositoryEntry]:
        """Every version in the configuration and its state."""
        ...

    def trace_settings(self, model: str = "") -> dict[str, str | list[str]]:
        """Triton's trace settings, read-only."""
        ...

    def log_settings(self) -> dict[str, str | bool | int]:
        """Triton's log settings, read-only."""
        ...

    def infer(self, request: InferRequest, call: Call) -> Awaitable[InferResponse]:
        """Answer one request through the seven stations. Cancel the awaiting task to give up."""
        ...

    def begin(self, request: InferRequest, call: Call, reply: Reply) -> Pending:
        """`infer` for a caller without a task, who is told.

        What can be refused at once is raised, and nobody is told of it.
        """
        ...
