from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.lifecycle import (
    HEALTHY_AGAIN_SECONDS,
    NEXT,
    Event,
    IllegalTransition,
    Silence,
    State,
    after,
    back_off_seconds,
    failures_after_exit,
)

MISSING = [pair for pair in product(State, Event) if pair not in NEXT]


@pytest.mark.parametrize(("state", "event"), MISSING)
def test_a_pair_outside_the_table_is_refused(state: State, event: Event) -> None:
    """Anything the table does not name raises, so a supervisor's mistake cannot pass silently."""
    with pytest.raises(IllegalTransition, match=f"{event} .* {state}"):
        after(state, event)


def test_a_process_that_keeps_its_promises_walks_the_straight_line() -> None:
    """Start, answer, stop, exit leads from STOPPED back to STOPPED."""
    state = State.STOPPED
    seen = []
    for event in (Event.START, Event.ANSWERED, Event.STOP_ASKED, Event.EXITED):
        state = after(state, event)
        seen.append(state)

    assert seen == [State.STARTING, State.READY, State.DRAINING, State.STOPPED]


def test_a_process_that_falls_silent_comes_back_to_starting() -> None:
    """Silence, death, back-off and a new start form a circle."""
    state = State.READY
    for event in (Event.FELL_SILENT, Event.EXITED, Event.BACK_OFF_OVER):
        state = after(state, event)

    assert state is State.STARTING


@pytest.mark.parametrize("state", [s for s in State if s not in {State.STOPPED, State.DRAINING}])
def test_every_state_can_be_asked_to_stop(state: State) -> None:
    """No state exists in which a stop would have to wait for something else first."""
    wanted = State.STOPPED if state is State.BACKING_OFF else State.DRAINING

    assert after(state, Event.STOP_ASKED) is wanted


@pytest.mark.parametrize(
    ("failures", "longest"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (7, 6.4), (8, 10.0), (9, 10.0), (100_000, 10.0)],
)
def test_back_off_doubles_from_a_tenth_to_ten_seconds(failures: int, longest: float) -> None:
    """The wait is drawn from the upper half of 0.1 s, 0.2 s, 0.4 s … 10 s."""
    assert back_off_seconds(failures, 0.0) == pytest.approx(longest / 2)
    assert back_off_seconds(failures, 1.0) == pytest.approx(longest)


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_the_next_wait_is_never_shorter_for_the_same_luck(failures: int, fraction: float) -> None:
    """Jitter spreads the waits but cannot undo the doubling."""
    assert back_off_seconds(failures + 1, fraction) >= back_off_seconds(failures, fraction)


@pytest.mark.parametrize(
    ("failures", "ready_seconds", "then"),
    [(0, 0.0, 1), (4, 0.0, 5), (4, HEALTHY_AGAIN_SECONDS - 0.1, 5), (4, HEALTHY_AGAIN_SECONDS, 1)],
)
def test_half_a_minute_of_health_forgives_the_past(
    failures: int, ready_seconds: float, then: int
) -> None:
    """Failures count up, unless the process had been ready for 30 s."""
    assert failures_after_exit(failures, ready_seconds) == then


def test_silence_ends_a_process_once_its_bound_is_reached() -> None:
    """Unanswered ticks add up to the bound, not before it."""
    silence = Silence(2.0, longest_tick=1.0, now=100.0)

    over = [silence.tick(100.0 + 0.5 * n, answered=False) for n in range(1, 5)]

    assert over == [False, False, False, True]


def test_one_answer_starts_the_count_again() -> None:
    """Silence is counted from the latest answer."""
    silence = Silence(2.0, longest_tick=1.0, now=0.0)
    silence.tick(1.0, answered=False)
    silence.tick(1.9, answered=False)
    silence.tick(2.0, answered=True)

    assert not silence.tick(3.0, answered=False)
    assert silence.seconds == pytest.approx(1.0)


def test_a_supervisor_that_slept_does_not_blame_the_process() -> None:
    """An hour between two ticks counts as one long tick: nobody was there to listen."""
    silence = Silence(2.0, longest_tick=1.0, now=0.0)

    assert not silence.tick(3600.0, answered=False)
    assert silence.seconds == pytest.approx(1.0)
