"""How often a good canary is stopped, and a bad one found: small simulations with fixed seeds.

The whole benchmark is `loadtests/rollout_sim`; this is what every change has to pass.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.performance.intervals import wilson
from serving.rollout.evidence.relative_risk import log_breach_array, log_proof_array

ALPHA = 0.05
RAMP = (0.01, 0.05, 0.25, 0.5)
LOOKS = 60

_Counts = dict[float, tuple[NDArray[np.int64], NDArray[np.int64]]]


def requests(runs: int, rho: float, rate: NDArray[np.float64], ratio: float) -> _Counts:
    """Requests drawn one by one: events a look are Poisson, at the rate of that look."""
    chance = np.random.default_rng(11)
    size = (runs, LOOKS)
    canary = chance.poisson(rate * rho * ratio, size).cumsum(1)
    return {rho: (canary, chance.poisson(rate * (1 - rho), size).cumsum(1))}


def sticky(runs: int, keys: int, *, once: bool) -> _Counts:
    """Users with heavy-tailed error rates over a ramp; counted once, or at each error."""
    chance = np.random.default_rng(12)
    steps = np.repeat(RAMP, LOOKS // len(RAMP))
    counts = {rho: np.zeros((2, runs, LOOKS), np.int64) for rho in RAMP}
    for run in range(runs):
        place = chance.random(keys)
        errors = chance.poisson(chance.pareto(1.2, keys)[:, None] * 0.004, (keys, LOOKS))
        if once:
            errors = ((errors.cumsum(1) > 0) & (errors.cumsum(1) - errors == 0)).astype(np.int64)
        in_canary = place[:, None] < steps
        for rho in RAMP:
            here = errors * (steps == rho)
            counts[rho][0, run] = (here * in_canary).sum(0).cumsum()
            counts[rho][1, run] = (here * ~in_canary).sum(0).cumsum()
    return {rho: (pair[0], pair[1]) for rho, pair in counts.items()}


def ever(logs: NDArray[np.float64], alpha: float = ALPHA) -> float:
    """Share of runs in which the evidence is ever enough."""
    return float((logs.max(1) >= -math.log(alpha)).mean())


FLAT = np.full(LOOKS, 30.0)
INCIDENT = np.where((np.arange(LOOKS) >= 20) & (np.arange(LOOKS) < 25), 600.0, 30.0)
RISING = np.linspace(5.0, 60.0, LOOKS)


@pytest.mark.parametrize("rate", [FLAT, INCIDENT, RISING], ids=["flat", "incident", "rising"])
@pytest.mark.parametrize("rho", [0.01, 0.05, 0.25])
def test_a_canary_like_production_is_rarely_stopped(rho: float, rate: NDArray[np.float64]) -> None:
    """Looked at 60 times, tolerance 1: the upper end of Wilson's interval is at most α."""
    stopped = ever(log_breach_array(requests(2000, rho, rate, 1.0), 1.0))

    assert wilson(stopped, 2000).high <= ALPHA


@pytest.mark.parametrize("rate", [FLAT, RISING], ids=["flat", "rising"])
def test_a_canary_at_the_bound_is_rarely_proven_good(rate: NDArray[np.float64]) -> None:
    """Twice as bad, with `prove: 2`: at most α of all rollouts go on."""
    proven = ever(log_proof_array(requests(2000, 0.05, rate, 2.0), 2.0))

    assert wilson(proven, 2000).high <= ALPHA


def test_users_who_count_once_do_not_stop_a_good_canary() -> None:
    """1,000 users with a heavy tail, over a ramp from 1 to 50 %."""
    stopped = ever(log_breach_array(sticky(400, 1000, once=True), 1.0))

    assert wilson(stopped, 400).high <= ALPHA


def test_users_who_count_at_each_error_would() -> None:
    """The reason for counting once: the same users, error by error, are far beyond α."""
    stopped = ever(log_breach_array(sticky(400, 1000, once=False), 1.0))

    assert wilson(stopped, 400).low > 2 * ALPHA


def test_a_doubled_rate_is_found() -> None:
    """At 5 % weight and 30 events a look, in nine of ten within the hour; half within 15 looks."""
    found = log_breach_array(requests(500, 0.05, FLAT, 2.0), 1.0) >= -math.log(ALPHA)
    first = np.where(found.any(1), found.argmax(1), LOOKS)

    assert found.any(1).mean() > 0.9
    assert np.median(first) <= 15


def test_a_canary_like_production_is_proven() -> None:
    """`prove: 2` is met by four of five within 30 looks."""
    proven = log_proof_array(requests(500, 0.05, FLAT, 1.0), 2.0) >= -math.log(ALPHA)

    assert proven[:, :30].any(1).mean() > 0.8
