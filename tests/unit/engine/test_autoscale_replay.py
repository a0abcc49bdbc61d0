"""The model behind `sluice simulate autoscale`: it loses no request, and says what is late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine import autoscale, autoscale_replay
from serving.engine.autoscale import Scaling
from serving.engine.autoscale_replay import Workload, replay
from serving.load_trace import LoadTrace, Point, shape

WORK = Workload(work=1e-3, deadline=0.5, start=5)


def constant(rate: float, seconds: float) -> LoadTrace:
    """A load that does not change."""
    return LoadTrace((Point(0, rate),), seconds)


def test_it_is_the_engines_own_function() -> None:
    """Not a copy: what is tried is what is shipped."""
    assert autoscale_replay.decide is autoscale.decide


def test_a_steady_load_is_as_busy_as_arithmetic_says() -> None:
    """500 requests of 1 ms in one worker: half busy, M/D/1 waits of a quarter of a request."""
    result = replay(constant(500, 60), Scaling(min=1, max=1), WORK)

    assert result.moments[30].busy == pytest.approx(0.5)
    assert result.moments[30].mean == pytest.approx(1.5e-3)
    assert result.moments[30].p99 == pytest.approx(1e-3 * (1 + 3.912), rel=1e-3)
    assert (result.refused, result.ups, result.downs) == (0, 0, 0)
    assert result.cpu_hours == pytest.approx(60 / 3600)


def test_more_than_one_worker_can_do_is_refused_until_others_serve() -> None:
    """2,000 requests a second of 1 ms: two workers' work, more to be at 60 %."""
    busy_alone = Scaling(min=1, max=8, target_in_flight=1e9)
    result = replay(constant(2000, 60), busy_alone, WORK)

    # One worker that is always busy shows one core's work, and the average that is decided on
    # still holds seconds of fewer workers, so it takes three steps.
    assert sorted({moment.wanted for moment in result.moments}) == [1, 2, 3, 4]
    two = next(moment.at for moment in result.moments if moment.wanted == 2)
    assert two == 3  # the wish held for two seconds
    serving = next(moment.at for moment in result.moments if moment.serving == 2)
    assert serving == two + WORK.start - 1  # asked for at the end of the second before
    # Until then one worker could do half of it, less the half second of work that may wait.
    assert result.refused == pytest.approx(1000 * serving - 500, rel=0.01)
    assert result.moments[-1].refused == 0
    assert result.moments[-1].busy == pytest.approx(0.5)
    assert result.moments[2].mean == pytest.approx(0.5 + 1e-3, rel=0.05)  # as long as is allowed


def test_what_waits_asks_for_more_at_once() -> None:
    """A worker cannot be more than busy, but its requests in flight add up."""
    result = replay(constant(2000, 60), Scaling(min=1, max=8), WORK)

    assert sorted({moment.wanted for moment in result.moments}) == [1, 8]


@given(
    low=st.floats(0, 500),
    peak=st.floats(500, 20_000),
    name=st.sampled_from(["steps", "spike", "waves", "noise"]),
    most=st.integers(1, 10),
)
def test_every_request_is_answered_refused_or_waits(
    low: float, peak: float, name: str, most: int
) -> None:
    """What arrived is what was answered and refused, but for what waits at the end."""
    load = shape(name, low=low, peak=peak, seconds=120)
    result = replay(load, Scaling(min=1, max=most), WORK)

    answered = sum(moment.busy * moment.serving / WORK.work for moment in result.moments)
    waiting = result.requests - answered - result.refused
    assert -1e-6 * result.requests <= waiting <= most / WORK.work * WORK.deadline + 1e-6
    assert all(0 <= moment.busy <= 1 + 1e-9 for moment in result.moments)
    assert all(moment.mean <= moment.p99 + 1e-12 for moment in result.moments)
    assert result.requests == pytest.approx(load.requests)


def test_a_noisy_load_is_calm() -> None:
    """With the default window of a minute: few changes, no hunting."""
    load = shape("noise", low=2000, peak=4000, seconds=1800)
    result = replay(load, Scaling(min=1, max=16), WORK)

    assert result.turns <= 4


def test_it_is_compared_with_a_number_that_always_runs() -> None:
    """As many as keep the target at the peak."""
    load = shape("spike", low=100, peak=3000, seconds=1000)
    result = replay(load, Scaling(min=1, max=8), WORK)

    assert result.fixed == 5
    assert result.fixed_cpu_hours == pytest.approx(5 * 1000 / 3600)
    assert result.cpu_hours < result.fixed_cpu_hours
