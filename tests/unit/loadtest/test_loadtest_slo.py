"""The verdict: what is met, missed, not measured, and when a run says nothing."""

from typing import Any

import numpy as np
import pytest

from serving.config.decode import decode
from serving.loadtest.checks import Check
from serving.loadtest.histogram import Histogram
from serving.loadtest.results import Counts, GeneratorCheck, PhaseResult, Result
from serving.loadtest.scenario import Slo
from serving.loadtest.slo import judge


def values(*seconds: float) -> Histogram:
    """A histogram of these."""
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram


def run(*, deadline: float | None = 0.05, generator: Any = None, **counts: Any) -> Result:
    """A run of 100 requests in 10 s, all fine unless said otherwise; its one phase is `a`."""
    usual: dict[str, Any] = {
        "scheduled": 100,
        "sent": 100,
        "answered": 100,
        "ok": 100,
        "good": 90,
        "statuses": {"200": 100},
        "versions": {"m:v1": 80, "m:v2": 20},
        "roles": {"production": 80, "canary": 20},
        "feature_status": {"OK": 45, "DEFAULTED": 5},
        "with_features": 50,
        "latency": values(*[0.010] * 99, 0.100),
    }
    found = Counts(**{**usual, **counts})
    return Result(
        scenario="s",
        target="http://x:1",
        protocol="http json",
        started=0.0,
        seconds=10.0,
        seed=1,
        connections=4,
        deadline=deadline,
        phases=[PhaseResult(name="a", seconds=10.0, counts=found)],
        whole=found,
        whole_seconds=10.0,
        generator=generator or GeneratorCheck(lag=values(*[0.0001] * 100)),
    )


def check(text: str, result: Result) -> Check:
    """What comes of one SLO that has one thing in it."""
    decoded = decode(text, "slo.yaml", Slo)
    assert not decoded.problems
    _, found = judge(result, [decoded.value]).checks  # the first is the schedule's
    return found


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("{p50: 11ms}", True),
        ("{p50: 9ms}", False),
        ("{p99: 11ms}", True),
        ("{p99.9: 90ms}", False),
        ("{max: 100ms}", True),
        ("{max: 99ms}", False),
        ("{error_rate: 0}", True),
        ("{goodput: 0.9}", True),
        ("{goodput: 0.91}", False),
        ("{goodput_rps: 9}", True),
        ("{goodput_rps: 9.1}", False),
        ("{throughput: 10}", True),
        ("{throughput: 10.5}", False),
        ("{versions: {v2: {at_least: 0.1, at_most: 0.2}}}", True),
        ('{versions: {"m:v2": {at_most: 0.19}}}', False),
        ("{versions: {v3: {at_least: 0, at_most: 0.1}}}", True),
        ("{versions: {v3: {at_least: 0.1}}}", False),
        ("{roles: {canary: {at_most: 0.25}}}", True),
        ("{roles: {canary: {at_least: 0.25}}}", False),
        ("{feature_status: {OK: {at_least: 0.9}}}", True),
        ("{feature_status: {DEFAULTED: {at_most: 0.05}}}", False),
        ("{phase: a, p50: 11ms}", True),
    ],
)
def test_what_is_met_and_what_is_missed(text: str, ok: bool) -> None:
    """Each against the same run; a missed one makes the verdict."""
    result = run()
    found = check(text, result)

    assert found.ok is ok, found.words
    assert found.measured != "not measured"
    decoded = decode(text, "slo.yaml", Slo)
    assert judge(result, [decoded.value]).outcome == ("met" if ok else "missed")


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{goodput: 0.1}", run(deadline=None)),
        ("{goodput_rps: 1}", run(deadline=None)),
        ("{versions: {v1: {at_most: 1}}}", run(versions={})),
        ("{versions: {v3: {at_most: 1}}}", run()),  # a name with a mistake in it
        ("{roles: {canary: {at_most: 1}}}", run(roles={})),
        ("{feature_status: {OK: {at_least: 0}}}", run(feature_status={}, with_features=0)),
        ("{rejected_p99: 5ms}", run()),
        ("{p99: 5s}", run(latency=Histogram())),
        ("{phase: gone, p99: 5s}", run()),
        ("{phase: gone, error_rate: 1}", run()),
        ("{phase: gone, throughput: 0}", run()),
    ],
)
def test_what_was_not_measured_is_not_met(text: str, result: Result) -> None:
    """However easy the limit is: a target that says nothing about roles proves nothing."""
    found = check(text, result)

    assert not found.ok
    assert found.measured == "not measured"


def test_a_quantile_of_few_requests_says_that_it_is_the_slowest() -> None:
    """A hundred requests have no 99.9th percentile but the largest."""
    few = run(latency=Histogram.of(np.full(100, 0.01)))
    many = run(latency=Histogram.of(np.full(1000, 0.01)))

    assert check("{p99.9: 1s}", few).words.endswith(": the slowest of 100")
    assert check("{p99.9: 1s}", many).words.endswith("as ≤ 1 s")


def test_errors_are_told_by_status() -> None:
    """The words say how many of which kind."""
    failing = run(
        ok=90,
        statuses={"200": 90, "503": 8, "timeout": 2},
        problems={"503": "full", "timeout": "late"},
    )
    found = check("{error_rate: 0.05}", failing)

    assert not found.ok
    assert "10 of 100 requests failed (503: 8, timeout: 2)" in found.words


def test_a_run_of_errors_only_is_invalid_and_says_which() -> None:
    """Even if every SLO of it holds."""
    failing = run(ok=0, statuses={"503": 100}, problems={"503": "too busy"}, latency=Histogram())
    verdict = judge(failing, [])

    assert verdict.outcome == "invalid"
    assert verdict.invalid == ["no request succeeded (503: 100): too busy"]


def test_a_run_that_sent_nothing_is_invalid() -> None:
    """There is nothing to conclude from silence."""
    verdict = judge(run(scheduled=0, sent=0, ok=0), [])

    assert verdict.outcome == "invalid"


def test_a_late_generator_makes_the_run_invalid() -> None:
    """It says by how much, and what to change."""
    late = GeneratorCheck(lag=values(*[0.0001] * 90, *[0.5] * 10), processes=2)
    verdict = judge(run(generator=late), [])

    assert verdict.outcome == "invalid"
    assert "left 500 ms late" in verdict.invalid[0]
    assert "raise `processes` (2)" in verdict.invalid[0]


def test_a_late_generator_is_forgiven_as_far_as_the_scenario_says() -> None:
    """`max_lag` is the scenario's own."""
    late = GeneratorCheck(lag=values(*[0.5] * 100), max_lag=1.0)

    assert judge(run(generator=late), []).outcome == "met"


def test_a_busy_generator_makes_the_run_invalid() -> None:
    """A process with no time left measures itself."""
    busy = GeneratorCheck(lag=values(0.0001), cpu_share=0.97)

    assert "97% of a core" in judge(run(generator=busy), []).invalid[0]


def test_an_interrupted_run_is_invalid() -> None:
    """Half a run is no proof."""
    result = run()
    result.interrupted = True

    assert judge(result, []).outcome == "invalid"


def test_a_target_slower_than_the_schedule_misses_it() -> None:
    """Requests that wait for a free connection are told, without any SLO in the scenario."""
    slow = GeneratorCheck(lag=values(*[0.0001] * 100), waits=values(*[0.2] * 50))
    verdict = judge(run(generator=slow), [])

    assert verdict.outcome == "missed"
    assert "the target is slower than the schedule" in verdict.checks[0].words
    assert "raise `connections` (4)" in verdict.checks[0].words
