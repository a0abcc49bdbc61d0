"""What can go wrong, named by what happened.

This module imports nothing of the package. How much an error costs on the wire
(HTTP status, gRPC code) is not its business: `serving.protocol.status` holds that table.

    SluiceError
    ├── ServingError                 a request could not be answered
    │   ├── InvalidRequest           the caller's tensors, parameters or framing are wrong
    │   │   ├── BodyTooLarge         more bytes than `limits.max_body`, before or after inflating
    │   │   ├── HeadersTooLarge      more header bytes than `limits.max_header`
    │   │   ├── UnsupportedEncoding  a Content-Encoding other than gzip, deflate, identity
    │   │   └── RequestTimeout       headers or body arrived too slowly
    │   ├── Unauthenticated          no credential, or one nobody knows
    │   ├── PermissionDenied         a known credential without the role
    │   ├── NotFound                 no such path
    │   │   └── ModelNotFound        no such model or version
    │   ├── MethodNotAllowed         the path exists, the verb does not
    │   ├── Conflict                 `expected_revision` is not the current one
    │   ├── Unimplemented            an extension this server does not offer
    │   ├── Overloaded               refused so that others can be answered in time
    │   ├── ModelNotReady            known, but not loaded (yet, or any more)
    │   ├── FeaturesUnavailable      a required feature could not be had
    │   ├── DeadlineExceeded         the time the caller gave has passed or cannot be met
    │   ├── ClientDisconnected       the caller left; nobody reads the answer
    │   └── InferenceFailed          the model itself failed on this input
    ├── InvalidConfig                a configuration that must not be served
    ├── InvalidArtifact              a model file that must not be served
    ├── StoreUnavailable             Redis or Valkey does not answer
    └── EngineError                  a process could not be started or kept
"""

__all__ = [
    "BodyTooLarge",
    "ClientDisconnected",
    "Conflict",
    "DeadlineExceeded",
    "EngineError",
    "FeaturesUnavailable",
    "HeadersTooLarge",
    "InferenceFailed",
    "InvalidArtifact",
    "InvalidConfig",
    "InvalidRequest",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelNotReady",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "RequestTimeout",
    "ServingError",
    "SluiceError",
    "StoreUnavailable",
    "Unauthenticated",
    "Unimplemented",
    "UnsupportedEncoding",
]


class SluiceError(Exception):
    """Root of every error this project raises on purpose.

    The message is written for the person who reads it: it names the offending
    field and says what to do, and never holds a path, an address or a secret.
    """

    @property
    def message(self) -> str:
        """The text shown to the caller."""
        return str(self.args[0]) if self.args else type(self).__name__


class ServingError(SluiceError):
    """A request could not be answered; something inside went wrong."""


class InvalidRequest(ServingError):
    """The caller's tensors, parameters or framing are wrong."""


class BodyTooLarge(InvalidRequest):
    """More bytes than `limits.max_body`, before or after inflating."""


class HeadersTooLarge(InvalidRequest):
    """More header bytes than `limits.max_header`."""


class UnsupportedEncoding(InvalidRequest):
    """A Content-Encoding other than gzip, deflate or identity."""


class RequestTimeout(InvalidRequest):
    """Headers or body arrived too slowly."""


class Unauthenticated(ServingError):
    """No credential, or one nobody knows."""


class PermissionDenied(ServingError):
    """A known credential without the role the verb needs."""


class NotFound(ServingError):
    """No such path."""


class ModelNotFound(NotFound):
    """No such model or version. Its message starts with 'Request for unknown model'."""


class MethodNotAllowed(ServingError):
    """The path exists, the verb does not. `allowed` feeds the Allow header."""

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class Conflict(ServingError):
    """`expected_revision` is not the current one; `revision` is, and `newer` what it stands for."""

    def __init__(self, message: str, revision: int, newer: object = None) -> None:
        super().__init__(message)
        self.revision = revision
        self.newer = newer


class Unimplemented(ServingError):
    """An extension this server does not offer."""


class Overloaded(ServingError):
    """Refused so that others can be answered in time.

    `retry_after_seconds` is the server's own estimate; `reason` is a metric label.
    """

    def __init__(
        self, message: str, retry_after_seconds: float = 1.0, reason: str = "overload"
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.reason = reason


class ModelNotReady(ServingError):
    """The model is known, but not loaded (yet, or any more)."""


class FeaturesUnavailable(ServingError):
    """A required feature could not be had."""


class DeadlineExceeded(ServingError):
    """The time the caller gave has passed, or cannot be met."""


class ClientDisconnected(ServingError):
    """The caller left before the answer; only counted and logged."""


class InferenceFailed(ServingError):
    """The model itself failed on this input."""


class InvalidConfig(SluiceError):
    """A configuration that must not be served; `problems` lists every mistake found."""

    def __init__(self, message: str, problems: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class InvalidArtifact(SluiceError):
    """A model file that must not be served."""


class StoreUnavailable(SluiceError):
    """Redis or Valkey does not answer."""


class EngineError(SluiceError):
    """A process could not be started or kept."""
