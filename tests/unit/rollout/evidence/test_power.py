"""How many events evidence needs, and how long they take."""

import math

import numpy as np
import pytest

from serving.rollout.evidence.power import (
    detection_events,
    divergence,
    event_rate,
    missing_for_breach,
    missing_for_proof,
    proof_events,
    seconds_to,
    shared,
    smallest_detectable,
)
from serving.rollout.evidence.relative_risk import log_breach_array, log_proof


def test_the_example_of_the_reference() -> None:
    """5 % weight, twice the rate, tolerance 1: 0.0172 nats each, 287 events, 9.1 min at 31.5."""
    events = detection_events(2.0, 1.0, 0.05, 0.05)

    assert divergence(2.0, 1.0, 0.05) == pytest.approx(0.0172, abs=5e-5)
    assert events == pytest.approx(287, abs=0.5)
    assert seconds_to(events, 31.5 / 60) / 60 == pytest.approx(9.1, abs=0.05)


def test_the_forecast_is_near_what_simulated_rollouts_need() -> None:
    """Of rollouts with a doubled rate more than half, and not nearly all, are done by then."""
    chance = np.random.default_rng(5)
    canary = (chance.random((400, 900)) < 2 * 0.05 / (2 * 0.05 + 0.95)).cumsum(1)
    found = log_breach_array({0.05: (canary, np.arange(1, 901) - canary)}, 1.0) >= math.log(20)
    events = round(detection_events(2.0, 1.0, 0.05, 0.05))

    assert 0.5 < found[:, :events].any(1).mean() < 0.85


def test_what_can_never_be_found_takes_for_ever() -> None:
    """A ratio within the tolerance is no breach, one at `prove` has no proof."""
    assert detection_events(1.5, 1.5, 0.05, 0.05) == math.inf
    assert proof_events(2.0, 0.05, 0.05, ratio=2.0) == math.inf
    assert seconds_to(100, 0) == math.inf
    assert seconds_to(0, 0) == 0


def test_a_shared_alpha_and_an_average_cost_events() -> None:
    """Four rules, or one of four averaged values, need ln 4 nats more each."""
    alone, each = (detection_events(2.0, 1.0, 0.05, alpha) for alpha in (0.05, shared(0.05, 4)))

    assert (each - alone) * divergence(2.0, 1.0, 0.05) == pytest.approx(math.log(4))
    assert detection_events(2.0, 1.0, 0.05, 0.05, averaged=4) == pytest.approx(each)
    assert shared(0.05, 0) == 0.05


def test_the_rate_of_events_grows_with_the_canary() -> None:
    """At 25 % and three times the rate there are half as many again."""
    assert event_rate(10.0, 0.25, 3.0) == pytest.approx(15)
    assert event_rate(10.0, 0.25) == pytest.approx(10)


def test_the_smallest_ratio_is_found_just_in_time() -> None:
    """At it the events come in exactly the time given; without events there is none."""
    ratio = smallest_detectable(3600, 0.5, 1.2, 0.05, 0.05)
    needed = detection_events(ratio, 1.2, 0.05, 0.05)

    assert seconds_to(needed, event_rate(0.5, 0.05, ratio)) == pytest.approx(3600, rel=0.02)
    assert smallest_detectable(3600, 0.0, 1.2, 0.05, 0.05) == math.inf
    assert smallest_detectable(60, 0.5, 1.2, 0.05, 0.05) > ratio


def test_what_is_missing_is_what_brings_the_proof() -> None:
    """With so many more events, divided as if alike, it is there; with one less it is not."""
    seen = {0.05: (4.0, 60.0)}
    missing = missing_for_proof(seen, 2.0, 0.05, 0.05)

    assert missing is not None
    for more, there in ((missing, True), (missing - 1, False)):
        counts = {0.05: (4 + 0.05 * more, 60 + 0.95 * more)}
        assert (log_proof(counts, 2.0) >= math.log(20)) == there


def test_nothing_is_missing_once_it_is_proven() -> None:
    """0 events, also for a breach."""
    assert missing_for_proof({0.5: (100, 400)}, 2.0, 0.5, 0.05) == 0
    assert missing_for_breach({0.5: (400, 100)}, 2.0, 1.0, 0.5, 0.05) == 0


def test_a_breach_that_will_not_come_has_no_number() -> None:
    """A canary like production never breaks a tolerance of 2."""
    assert missing_for_breach({}, 1.0, 2.0, 0.05, 0.05) is None
