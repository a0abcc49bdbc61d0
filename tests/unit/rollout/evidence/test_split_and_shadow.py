"""The sample-ratio check, shadow agreement, and failures in pairs."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from serving.rollout.evidence.agreement import (
    log_failing_more,
    log_share,
    log_share_below,
    share_interval,
)
from serving.rollout.evidence.relative_risk import log_breach
from serving.rollout.evidence.sample_ratio import ALPHA, log_mismatch, words_of


def test_shares_as_drawn_are_no_mismatch() -> None:
    """Also over a ramp, where the whole share is none of the weights."""
    exposures = {0.01: (100, 9_900), 0.05: (500, 9_500), 0.25: (2_500, 7_500)}

    assert log_mismatch(exposures) < 0
    assert words_of(exposures) == ""
    assert words_of({}) == ""


@pytest.mark.parametrize(("canary", "side"), [(4_500, "fewer"), (5_500, "more")])
def test_a_tenth_of_the_canarys_keys_too_few_or_many_is_told(canary: int, side: str) -> None:
    """100,000 keys at 5 %: the words have both numbers and say which way."""
    words = words_of({0.05: (canary, 100_000 - canary)})

    assert words.startswith(f"{canary} of 100000 keys met the canary, {side} than the 5000")


def test_a_right_split_is_hardly_ever_called_wrong() -> None:
    """500 splits looked at 200 times each: the share is below α's upper bound for that many."""
    chance = np.random.default_rng(8)
    wrong = 0
    for _ in range(500):
        canary = chance.binomial(50, 0.05, 200).cumsum()[9::10]
        looks = np.arange(500, 10_001, 500)
        found = [
            log_mismatch({0.05: (int(s), int(n - s))}) for s, n in zip(canary, looks, strict=True)
        ]
        wrong += max(found) >= -math.log(ALPHA)

    assert wrong <= stats.binom.ppf(0.99, 500, ALPHA)


def test_the_share_is_the_mixture_over_all_shares() -> None:
    """Numerical integration of the likelihood over Beta(½, ½) gives the same e-value."""
    likelihood = integrate.quad(lambda p: stats.beta(0.5, 0.5).pdf(p) * p**47 * (1 - p) ** 3, 0, 1)[
        0
    ]

    assert log_share(47, 50, 0.8) == pytest.approx(
        math.log(likelihood / (0.8**47 * 0.2**3)), abs=1e-6
    )


def test_more_agreement_than_asked_for_is_no_evidence() -> None:
    """E of the whole null is its smallest, which is below 1 where the share itself is in it."""
    assert log_share_below(99, 100, 0.97) < 0
    assert log_share_below(90, 100, 0.97) == pytest.approx(log_share(90, 100, 0.97))
    assert log_share_below(0, 0, 0.97) == 0
    assert log_share_below(99, 100, 1.0) == math.inf


def test_the_interval_of_a_share_ends_where_it_is_refuted() -> None:
    """Both ends have E = 1/α."""
    low, high = share_interval(180, 200, 0.05)

    assert low < 0.9 < high
    assert log_share(180, 200, low) == pytest.approx(math.log(20))
    assert log_share(180, 200, high) == pytest.approx(math.log(20))


def test_the_interval_of_all_or_none() -> None:
    """It ends at 1 or 0, and of nothing it is everything."""
    assert share_interval(200, 200, 0.05)[1] == 1
    assert share_interval(0, 200, 0.05)[0] == 0
    assert share_interval(0, 0, 0.05) == (0, 1)


def test_the_interval_holds_the_share_at_all_looks() -> None:
    """In 300 runs of 400 copies, looked at 40 times, it misses 97 % in at most 5 %."""
    chance = np.random.default_rng(2)
    missed = 0
    for _ in range(300):
        agreeing = (chance.random(400) < 0.97).cumsum()[9::10]
        looks = range(10, 401, 10)
        missed += any(
            log_share(int(s), t, 0.97) >= math.log(20) for s, t in zip(agreeing, looks, strict=True)
        )

    assert missed <= stats.binom.ppf(0.99, 300, 0.05)


def test_failures_in_pairs_are_a_coin() -> None:
    """Each failure of one alone is the shadow's with probability ½ under the null."""
    assert log_failing_more(12, 3) == pytest.approx(log_breach({0.5: (12, 3)}, 1.0))
    assert log_failing_more(12, 12) < 0
    assert log_failing_more(20, 0) > math.log(100)
