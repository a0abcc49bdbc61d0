"""Averages over bins and over bounds, and the index that is shown."""

import math

import numpy as np
import pytest
from scipy import stats

from serving.rollout.evidence.latency import log_not_slower, log_slower, worst
from serving.rollout.evidence.relative_risk import log_breach, log_proof
from serving.rollout.evidence.shift import critical_psi, log_shift, moved, psi

ALIKE = {0.05: (50, 950)}
MORE = {0.05: (120, 950)}
FEWER = {0.05: (10, 950)}


def test_the_shift_is_the_mean_of_both_sides_of_all_bins() -> None:
    """2B e-values, of which one that is large is enough."""
    bins = [ALIKE, MORE, FEWER]
    values = [math.exp(log_breach(one, 1.5)) for one in bins]
    values += [math.exp(log_proof(one, 1 / 1.5)) for one in bins]

    assert log_shift(bins, 1.5) == pytest.approx(math.log(sum(values) / 6))
    assert log_shift(bins, 1.5) > math.log(100)
    assert log_shift([ALIKE] * 10, 1.5) < 0
    assert log_shift([], 1.5) == 0


def test_the_bins_that_moved_are_named_the_strongest_first() -> None:
    """Each with its ratio; those that did not move are not."""
    found = moved([ALIKE, MORE, FEWER, ALIKE], 1.5)

    assert {one.place for one in found} == {1, 2}
    assert found[0].log_e >= found[1].log_e
    assert next(one for one in found if one.place == 1).ratio == pytest.approx(2.4)


def test_the_index_is_the_formula() -> None:
    """Σ (q − p) · ln(q / p), half a row added to each bin."""
    canary, production = np.array([30, 50, 20]), np.array([300, 300, 400])
    q, p = (canary + 0.5) / 101.5, (production + 0.5) / 1001.5

    found = psi(canary.tolist(), production.tolist())

    assert found == pytest.approx(float((q - p) @ np.log(q / p)))
    assert psi([0, 0], [0, 0]) == 0


def test_the_critical_index_is_that_of_chi_square() -> None:
    """Of ten bins, 100 against 10,000: 0.171 at 5 %; none can be told of one bin."""
    exact = stats.chi2.isf(0.05, 9) * (1 / 100 + 1 / 10_000)

    assert critical_psi(100, 10_000, 10, 0.05) == pytest.approx(exact)
    assert critical_psi(100, 10_000, 1, 0.05) == math.inf
    assert critical_psi(0, 10_000, 10, 0.05) == math.inf


def test_an_index_of_chance_exceeds_it_as_often_as_said() -> None:
    """2,000 pairs of samples of 1,000 and 10,000: about 5 % are beyond."""
    chance = np.random.default_rng(4)
    shares = np.full(10, 0.1)
    critical = critical_psi(1000, 10_000, 10, 0.05)
    beyond = sum(
        psi(one.tolist(), other.tolist()) > critical
        for one, other in zip(
            chance.multinomial(1000, shares, 2000),
            chance.multinomial(10_000, shares, 2000),
            strict=True,
        )
    )

    assert 0.03 < beyond / 2000 < 0.07


def test_a_slow_tail_is_seen_among_bounds_that_are_not_passed_more_often() -> None:
    """The mean of three e-values is a third of the large one at least."""
    bounds = [ALIKE, ALIKE, MORE]

    assert log_slower(bounds, 1.3) > log_breach(MORE, 1.3) - math.log(3)
    assert worst(bounds, 1.3) == 2
    assert worst([], 1.3) == 0


def test_one_bound_is_an_event_like_any_other() -> None:
    """Nothing is lost by asking for the mean of one."""
    assert log_slower([MORE], 1.3) == pytest.approx(log_breach(MORE, 1.3))
    assert log_not_slower([ALIKE], [2.0]) == pytest.approx(log_proof(ALIKE, 2.0))


def test_a_proof_needs_every_bound() -> None:
    """The weakest decides; of no bound nothing is proven."""
    assert log_not_slower([ALIKE, MORE], [2.0, 2.0]) == pytest.approx(log_proof(MORE, 2.0))
    assert log_not_slower([], []) == 0
