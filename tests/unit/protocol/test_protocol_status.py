"""The one table from errors to the wire."""

import inspect

import pytest

from serving import errors
from serving.protocol import status

# The status codes of gRPC; a typo in the table would only show when that error is raised.
GRPC_CODES = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
}


def every_error() -> list[type[errors.SluiceError]]:
    """All error classes of the package."""
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.SluiceError)
    ]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_class_is_in_the_table(kind: type[errors.SluiceError]) -> None:
    """No error reaches the wire by inheritance alone: someone decided what it costs."""
    http, code = status.STATUS[kind]

    assert 400 <= http <= 599
    assert code in GRPC_CODES


@pytest.mark.parametrize(
    ("error", "http", "code"),
    [
        (errors.InvalidRequest("x"), 400, "INVALID_ARGUMENT"),
        (errors.BodyTooLarge("x"), 413, "RESOURCE_EXHAUSTED"),
        (errors.HeadersTooLarge("x"), 431, "RESOURCE_EXHAUSTED"),
        (errors.UnsupportedEncoding("x"), 415, "UNIMPLEMENTED"),
        (errors.RequestTimeout("x"), 408, "DEADLINE_EXCEEDED"),
        (errors.Unauthenticated("x"), 401, "UNAUTHENTICATED"),
        (errors.PermissionDenied("x"), 403, "PERMISSION_DENIED"),
        (errors.NotFound("x"), 404, "NOT_FOUND"),
        (errors.ModelNotFound("x"), 404, "NOT_FOUND"),
        (errors.MethodNotAllowed("x", ("GET",)), 405, "UNIMPLEMENTED"),
        (errors.Conflict("x", 3), 409, "ABORTED"),
        (errors.Unimplemented("x"), 501, "UNIMPLEMENTED"),
        (errors.Overloaded("x"), 503, "RESOURCE_EXHAUSTED"),
        (errors.ModelNotReady("x"), 503, "UNAVAILABLE"),
        (errors.FeaturesUnavailable("x"), 503, "UNAVAILABLE"),
        (errors.DeadlineExceeded("x"), 504, "DEADLINE_EXCEEDED"),
        (errors.ClientDisconnected("x"), 499, "CANCELLED"),
        (errors.InferenceFailed("x"), 500, "INTERNAL"),
        (errors.InvalidConfig("x"), 400, "INVALID_ARGUMENT"),
        (errors.InvalidArtifact("x"), 400, "INVALID_ARGUMENT"),
        (errors.StoreUnavailable("x"), 503, "UNAVAILABLE"),
        (errors.EngineError("x"), 500, "INTERNAL"),
        (ZeroDivisionError("x"), 500, "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_has_its_status(error: Exception, http: int, code: str) -> None:
    """The pairs are those of the protocol's reference."""
    assert (status.http_status(error), status.grpc_code(error)) == (http, code)


def test_a_new_error_class_takes_its_parents_status() -> None:
    """A subclass that is not listed is found along its ancestors."""

    class Narrower(errors.BodyTooLarge):
        pass

    assert status.http_status(Narrower("x")) == 413


def test_a_foreign_error_tells_the_caller_nothing() -> None:
    """Only messages written for callers leave the process."""
    assert status.public_message(KeyError("/srv/secret")) == "internal error"
    assert status.public_message(errors.InvalidRequest("id must be a string")) == (
        "id must be a string"
    )
