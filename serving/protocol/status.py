"""What each error costs on the wire: one table, HTTP status and gRPC code.

The pairs follow the protocol's clients rather than habit: an overload is RESOURCE_EXHAUSTED
because the KServe gRPC client repeats every UNAVAILABLE by itself and multiplies the load, and
"not ready" is 503 because every client reads that as false.
"""

from typing import Final

from serving import errors

__all__ = ["INTERNAL_ERROR", "STATUS", "grpc_code", "http_status", "public_message"]

INTERNAL_ERROR: Final = "internal error"
"""All a caller learns about an error that was not raised on purpose."""

STATUS: Final[dict[type[errors.SluiceError], tuple[int, str]]] = {
    errors.SluiceError: (500, "INTERNAL"),
    errors.ServingError: (500, "INTERNAL"),
    errors.InvalidRequest: (400, "INVALID_ARGUMENT"),
    errors.BodyTooLarge: (413, "RESOURCE_EXHAUSTED"),
    errors.HeadersTooLarge: (431, "RESOURCE_EXHAUSTED"),
    errors.UnsupportedEncoding: (415, "UNIMPLEMENTED"),
    errors.RequestTimeout: (408, "DEADLINE_EXCEEDED"),
    errors.Unauthenticated: (401, "UNAUTHENTICATED"),
    errors.PermissionDenied: (403, "PERMISSION_DENIED"),
    errors.NotFound: (404, "NOT_FOUND"),
    errors.ModelNotFound: (404, "NOT_FOUND"),
    errors.MethodNotAllowed: (405, "UNIMPLEMENTED"),
    errors.Conflict: (409, "ABORTED"),
    errors.Unimplemented: (501, "UNIMPLEMENTED"),
    errors.Overloaded: (503, "RESOURCE_EXHAUSTED"),
    errors.ModelNotReady: (503, "UNAVAILABLE"),
    errors.FeaturesUnavailable: (503, "UNAVAILABLE"),
    errors.DeadlineExceeded: (504, "DEADLINE_EXCEEDED"),
    # 499 only reaches logs and metrics: nobody is left to read it.
    errors.ClientDisconnected: (499, "CANCELLED"),
    errors.InferenceFailed: (500, "INTERNAL"),
    # The next four are raised on the control side and seen on the admin port.
    errors.InvalidConfig: (400, "INVALID_ARGUMENT"),
    errors.InvalidArtifact: (400, "INVALID_ARGUMENT"),
    errors.StoreUnavailable: (503, "UNAVAILABLE"),
    errors.EngineError: (500, "INTERNAL"),
}
"""Error class -> (HTTP status, gRPC code name). A class not listed takes its parent's pair."""


def _status(error: BaseException) -> tuple[int, str]:
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return STATUS[errors.SluiceError]


def http_status(error: BaseException) -> int:
    """The HTTP status of an error; 500 for one that is not ours."""
    return _status(error)[0]


def grpc_code(error: BaseException) -> str:
    """The name of the gRPC status code of an error; INTERNAL for one that is not ours."""
    return _status(error)[1]


def public_message(error: BaseException) -> str:
    """The text a caller may see: our own messages as they are, nothing of anybody else's."""
    return error.message if isinstance(error, errors.SluiceError) else INTERNAL_ERROR
