from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.config.identity import OpenTable, TokenTable, hash_token
from serving.config.schema import Limits, TokenEntry
from serving.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
)
from serving.metrics import MetricsFile, read
from serving.types import Call, InferRequest
from serving.worker.admission import Admission, deadline_of


@pytest.mark.parametrize(
    ("configured", "asked", "parameter", "seconds"),
    [
        (0.1, None, None, 0.1),
        (0.1, 0.02, None, 0.02),
        (0.1, 5.0, None, 0.1),
        (0.1, None, 30_000, 0.03),
        (0.1, 0.01, 30_000, 0.01),
        (0.1, None, 0, 0.1),
        (600.0, 500.0, None, 60.0),
    ],
)
def test_callers_shorten_the_deadline_and_never_lengthen_it(
    configured: float, asked: float | None, parameter: int | None, seconds: float
) -> None:
    """The shortest of configuration, header and parameter counts, below the longest allowed."""
    assert deadline_of(7.0, configured, asked, parameter, 60.0) == pytest.approx(7.0 + seconds)


@pytest.mark.parametrize("parameter", [-1, "100", 1.5, True])
def test_a_timeout_parameter_that_is_no_duration_is_named(parameter: Any) -> None:
    """The OIP parameter is a positive integer of microseconds."""
    with pytest.raises(InvalidRequest, match="'timeout'"):
        deadline_of(0.0, 1.0, None, parameter, 60.0)


def gate(folder: Path, identity: Any = None, **limits: Any) -> Admission:
    """Build the gate with its own counters."""
    return Admission(
        identity or OpenTable(),
        msgspec.convert(limits, Limits),
        MetricsFile(folder / "m.metrics"),
    )


def enter(admission: Admission, **call: Any) -> Call:
    """Let one request in at time 10, arrived at 10 unless told otherwise."""
    made = Call(protocol="internal", **{"arrived": 10.0, **call})
    admission.enter(InferRequest("m", "", []), made, 0.1, 10.0)
    return made


def test_a_request_in_flight_takes_a_slot_until_it_leaves(tmp_path: Path) -> None:
    """The bound is on requests in flight, and the gauge says how many there are."""
    admission = gate(tmp_path, max_in_flight=1)
    enter(admission)

    with pytest.raises(Overloaded) as refused:
        enter(admission)
    assert refused.value.reason == "in_flight"
    admission.publish()
    assert read(tmp_path / "m.metrics")["sluice_in_flight_requests", ()] == [1.0]

    admission.leave()
    enter(admission)


def test_a_deadline_that_has_passed_is_refused_before_any_work(tmp_path: Path) -> None:
    """A slow upload can use up the whole budget; nothing is computed then, no slot taken."""
    admission = gate(tmp_path)

    with pytest.raises(DeadlineExceeded):
        enter(admission, arrived=9.8)
    assert admission.in_flight == 0


def test_the_deadline_counts_from_the_first_byte(tmp_path: Path) -> None:
    """Reading and decoding are part of the caller's time."""
    assert enter(gate(tmp_path), arrived=9.95).deadline == pytest.approx(10.05)


def test_credentials_and_roles_are_checked(tmp_path: Path) -> None:
    """No token, a wrong token and a token without the role are three answers."""
    entry = TokenEntry(name="app", sha256=hash_token("secret"), roles=["infer"])
    admission = gate(tmp_path, TokenTable.from_entries([entry]))

    with pytest.raises(Unauthenticated):
        enter(admission)
    with pytest.raises(Unauthenticated):
        enter(admission, authorization="Bearer wrong")
    with pytest.raises(PermissionDenied):
        admission.authorize("Bearer secret", "admin")
    enter(admission, authorization="Bearer secret")
