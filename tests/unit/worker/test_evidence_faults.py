"""Whose doing a failure is."""

import asyncio

import pytest

from serving import errors
from serving.worker.evidence.faults import fault_of

ERRORS: list[tuple[BaseException, str]] = [
    (errors.InferenceFailed("x"), ""),
    (errors.ModelNotReady("x"), ""),
    (errors.DeadlineExceeded("x"), ""),
    (errors.Overloaded("x", reason="queue_full"), ""),
    (errors.Overloaded("x", reason="deadline"), ""),
    (errors.ServingError("x"), ""),
    (ZeroDivisionError(), ""),
    (errors.FeaturesUnavailable("x"), "features_unavailable"),
    (errors.InvalidRequest("x"), "bad_request"),
    (errors.BodyTooLarge("x"), "bad_request"),
    (errors.ModelNotFound("x"), "bad_request"),
    (errors.Unauthenticated("x"), "unauthenticated"),
    (errors.PermissionDenied("x"), "permission_denied"),
    (errors.ClientDisconnected("x"), "client_gone"),
    (asyncio.CancelledError(), "client_gone"),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS, ids=lambda one: type(one).__name__)
def test_every_failure_is_an_error_or_left_out_for_a_reason(
    error: BaseException, reason: str
) -> None:
    """What the version or the platform did counts; what the caller did does not."""
    fault = fault_of(error, hurried=False)

    assert fault.reason == reason
    assert fault.counts == (not reason)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.DeadlineExceeded("x"), "client_deadline"),
        (errors.Overloaded("x", reason="deadline"), "client_deadline"),
        (errors.Overloaded("x", reason="queue_full"), ""),
        (errors.InferenceFailed("x"), ""),
    ],
)
def test_a_caller_in_a_hurry_excuses_only_lateness(error: BaseException, reason: str) -> None:
    """A short deadline of the caller's is no fault of the version; a failure remains one."""
    assert fault_of(error, hurried=True).reason == reason
