import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.clock import Clock, ManualClock
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


def gate(
    folder: Path, identity: Any = None, clock: Clock | None = None, **limits: Any
) -> Admission:
    """Build the gate with its own counters."""
    return Admission(
        identity or OpenTable(),
        msgspec.convert(limits, Limits),
        MetricsFile(folder / "m.metrics"),
        clock,
    )


def enter(admission: Admission, now: float = 10.0, **call: Any) -> Call:
    """Let one request in that has 100 ms, arrived now unless told otherwise."""
    made = Call(protocol="internal", **{"arrived": now, **call})
    admission.enter(InferRequest("m", "", []), made, 0.1, now)
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


class Loop:
    """An event loop of which each turn takes what it is told to, and forty requests in flight."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(monotonic=10.0)
        self.admission = gate(folder, clock=self.clock)
        for _ in range(40):
            self.enter()

    def enter(self) -> None:
        """One more request."""
        enter(self.admission, self.clock.monotonic())

    async def turns(self, count: int, seconds: float) -> None:
        """Come round so often; in each turn a request asks to be let in."""
        for _ in range(count):
            with contextlib.suppress(Overloaded):
                self.enter()
            self.clock.advance(seconds)
            await asyncio.sleep(0)


async def test_a_loop_that_comes_round_too_seldom_takes_no_more(tmp_path: Path) -> None:
    """Of 100 ms a request may wait 60; four turns of 20 ms are more than that."""
    loop = Loop(tmp_path)
    await loop.turns(30, 0.02)

    with pytest.raises(Overloaded, match="about 80 ms") as refused:
        loop.enter()

    assert refused.value.reason == "loop"


async def test_a_loop_that_comes_round_in_time_turns_nobody_away(tmp_path: Path) -> None:
    """Four turns of 10 ms are well within 60 ms."""
    loop = Loop(tmp_path)
    await loop.turns(30, 0.01)

    loop.enter()

    assert loop.admission.in_flight == 71


async def test_a_loop_that_is_quick_again_is_believed_within_a_few_turns(tmp_path: Path) -> None:
    """One long turn, such as a large body makes, does not turn people away for long."""
    loop = Loop(tmp_path)
    await loop.turns(1, 0.4)
    with pytest.raises(Overloaded):
        loop.enter()

    await loop.turns(10, 0.0)

    loop.enter()


async def test_a_few_requests_are_taken_however_long_the_loop_takes(tmp_path: Path) -> None:
    """What was measured when there were many says nothing about a loop that has little to do."""
    admission = gate(tmp_path)
    admission.turn = 10.0

    for _ in range(32):
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
