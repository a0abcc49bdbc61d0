"""What a rollout would meet, from counters."""

import pytest
from msgspec.structs import replace

from serving.config.schema import (
    Guardrails,
    ModelConfig,
    MonitoringConfig,
    PredictionConfig,
    RolloutConfig,
    Rule,
    Step,
    TrafficConfig,
    VersionSource,
)
from serving.config.units import Seconds
from serving.control.fleet.rates import Rate, Rates
from serving.control.rollouts.traffic_seen import Assumed, rate_of, traffic_of
from serving.metric_families import FAMILIES
from serving.metrics import Samples

ERRORS = Rule(name="errors", metric="error_rate", tolerance=1.5)
DURATIONS = "sluice_request_duration_seconds"


def model(*rules: Rule, labels: tuple[str, ...] = ()) -> ModelConfig:
    """One with a rollout under these rules."""
    plan = RolloutConfig(
        canary="v2", steps=[Step(weight=100.0)], guardrails=Guardrails(rules=list(rules))
    )
    versions = {v: VersionSource(path=v, sha256="0" * 64, labels=list(labels)) for v in "ab"}
    return ModelConfig(
        model="demo", versions=versions, traffic=TrafficConfig(production="a"), rollout=plan
    )


def requests(**codes: float) -> Samples:
    """Counted of production."""
    return {
        ("sluice_requests_total", ("demo", "a", "production", "http", code)): [number]
        for code, number in codes.items()
    }


def slower(bound: float, **times: float) -> float | None:
    """Share of answers slower than a bound, of numbers by bucket's upper end in milliseconds."""
    edges = FAMILIES[DURATIONS].buckets
    slots = [0.0] * (len(edges) + 2)
    for name, number in times.items():
        slots[edges.index(float(name[2:]) / 1e3)] = number
    rule = Rule(name="slow", metric="latency", exceeds=Seconds(bound), tolerance=1.5)
    found = traffic_of(
        model(rule), 1.0, {(DURATIONS, ("demo", "a", "production")): slots}, Assumed()
    )
    return found.shares.get("slow")


def test_errors_are_a_versions_own() -> None:
    """What the caller did wrong is none of production's failures."""
    counted = requests(OK=90.0, INTERNAL=1.0, DEADLINE_EXCEEDED=1.0, INVALID_ARGUMENT=8.0)

    assert traffic_of(model(ERRORS), 7.0, counted, Assumed()).shares == {"errors": 0.02}
    assert traffic_of(model(ERRORS), 7.0, counted, Assumed()).rate == 7.0


def test_without_a_request_nothing_is_known() -> None:
    """An error rate of nothing would be a guess."""
    assert traffic_of(model(ERRORS), 0.0, {}, Assumed()).shares == {}


def test_slow_answers_are_read_from_the_buckets() -> None:
    """Exactly at their ends, in proportion between them."""
    assert slower(0.05, ms50=90.0, ms100=10.0) == pytest.approx(0.1)
    assert slower(0.075, ms50=90.0, ms100=10.0) == pytest.approx(0.05)
    assert slower(20.0, ms50=90.0) == 0.0


def test_what_is_assumed_comes_first() -> None:
    """For traffic that is to come."""
    assumed = Assumed(rps=100.0, error_rate=0.005, keys=9, shares={"slow": 0.1})
    slow = Rule(name="slow", metric="latency", exceeds=Seconds(0.05), tolerance=1.5)
    found = traffic_of(model(ERRORS, slow), 1.0, requests(OK=1.0), assumed)

    assert (found.rate, found.keys) == (100.0, 9)
    assert found.shares == {"errors": 0.005, "slow": 0.1}


def test_predictions_fall_into_classes_or_tenths() -> None:
    """Tenths of the score if they are frozen, else the classes, else either side of a threshold."""
    known = model(labels=("no", "perhaps", "yes"))
    scored = PredictionConfig(score="p", decision="label")

    def bins(prediction: PredictionConfig, reference: str = "") -> int:
        monitoring = MonitoringConfig(prediction=prediction, reference=reference)
        return traffic_of(replace(known, monitoring=monitoring), 1.0, {}, Assumed()).classes

    assert bins(scored, "reference.json") == 10
    assert bins(scored) == 3
    assert bins(PredictionConfig(score="p")) == 2
    assert traffic_of(known, 1.0, {}, Assumed()).classes == 10


def test_copies_and_other_models_are_no_traffic() -> None:
    """Only what production and canary answer is drawn."""
    rates = [
        Rate(model=name, version="a", role=role, requests_per_second=1.0, failed_per_second=0.0)
        for name, role in (
            ("demo", "production"), ("demo", "canary"), ("demo", "shadow"), ("other", "production"),
        )
    ]  # fmt: skip

    assert rate_of("demo", rates) == 2.0


def test_the_busiest_time_is_remembered_for_a_day() -> None:
    """A quiet night does not make a plan of the day impossible."""
    rates = Rates(window=10.0)
    total, now = 0.0, 0.0
    for rate in (10.0, 50.0, 1.0):
        for _ in range(3):
            rates.observe(requests(OK=total), now)
            now += 10.0
            total += 10.0 * rate
    at_once = rates.busiest("demo")
    for hour in range(1, 26):
        rates.observe(requests(OK=total), now + hour * 3600.0)

    assert at_once == 50.0
    assert rates.busiest("demo") < 1.0
    assert rates.busiest("other") == 0.0
