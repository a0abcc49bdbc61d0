"""Users who count once: what a proof may rest on."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.performance.intervals import wilson
from serving.rollout.evidence.first_events import ratio_of_users
from serving.rollout.evidence.relative_risk import log_proof

LOOKS = 40
USERS = 4000
RHO = 0.25


def proven(runs: int, ratio: float, events: float, *, corrected: bool) -> float:
    """Share of rollouts in which "below 2" is ever proven.

    Args:
        runs: how many rollouts.
        ratio: of the canary's rates to production's.
        events: of a user of production on average, all of which are theirs at a rate of their own
            (Gamma with a variance of 2).
        corrected: whether the ratio to refute is that of users.
    """
    chance = np.random.default_rng(3)
    found = 0
    for _ in range(runs):
        canary = chance.random(USERS) < RHO
        rates = events * chance.gamma(0.5, 2.0, USERS) * np.where(canary, ratio, 1.0)
        first = chance.exponential(1.0, USERS) / np.maximum(rates, 1e-12)
        looks = np.arange(1, LOOKS + 1) / LOOKS
        mine, others = (_by(first[arm], looks) for arm in (canary, ~canary))
        shares = others / (~canary).sum()
        found += any(
            log_proof({RHO: (int(s), int(f))}, ratio_of_users(2.0, share) if corrected else 2.0)
            >= math.log(20)
            for s, f, share in zip(mine, others, shares, strict=True)
        )
    return found / runs


def _by(first: NDArray[np.float64], looks: NDArray[np.float64]) -> NDArray[np.int64]:
    return (first[:, None] <= looks).sum(0)


@pytest.mark.parametrize("events", [0.1, 0.5, 3.0])
def test_a_canary_twice_as_bad_is_rarely_proven_to_be_better(events: float) -> None:
    """However many events a user has: the upper end of the interval is at most 5 %."""
    assert wilson(proven(150, 2.0, events, corrected=True), 150).high <= 0.05


def test_it_always_would_be_by_the_plain_ratio() -> None:
    """The reason for the correction."""
    assert proven(20, 2.0, 3.0, corrected=False) == 1.0


@pytest.mark.parametrize("events", [0.1, 0.5, 3.0])
def test_a_canary_like_production_is_proven_all_the_same(events: float) -> None:
    """While few have had it the correction costs little, and that is when the proof comes."""
    assert proven(20, 1.0, events, corrected=True) >= 0.95


def test_the_ratio_shrinks_to_one() -> None:
    """Nobody has had it: the ratio itself; everybody: 1; and it never grows on the way."""
    ratios = [ratio_of_users(2.0, share) for share in np.linspace(0, 1, 21)]

    assert ratios[0] == 2.0
    assert ratios[-1] == 1.0
    assert ratios == sorted(ratios, reverse=True)
    assert ratio_of_users(1.0, 0.3) == 1.0


def test_it_is_the_first_order_of_users_with_a_variance_of_three() -> None:
    """For small shares it is r · (1 − (r − 1)(1 + v)p/2)."""
    assert ratio_of_users(3.0, 0.001) == pytest.approx(3 * (1 - 2 * 4 * 0.001 / 2), rel=1e-4)
