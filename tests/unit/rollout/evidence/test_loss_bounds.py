"""Bounds for the difference of mean losses."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from serving.rollout.evidence.losses import (
    LEAST_UNITS,
    MeanBounds,
    asymptotic,
    betting,
    compared,
    coverage_gap,
    effects,
)

_Floats = NDArray[np.float64]


def bounds(values: _Floats, kind: object = asymptotic, **more: float) -> MeanBounds:
    """Of a limit of 0 and a proof of 0.1, at 5 % each unless said otherwise."""
    assert callable(kind)
    given = {"limit": 0.0, "prove": 0.1, "low_error": 0.05, "high_error": 0.05} | more
    found = kind(values, **given)
    assert isinstance(found, MeanBounds)
    return found


def drawn(
    units: int, rho: float, seed: int, worse: float = 0.0
) -> tuple[_Floats, NDArray[np.bool_], _Floats]:
    """Losses 0 or 1 with mean 0.2, and 0.2 + `worse` for the canary."""
    chance = np.random.default_rng(seed)
    canary = chance.random(units) < rho
    losses = (chance.random(units) < 0.2 + worse * canary).astype(float)
    return losses, canary, np.full(units, rho)


def test_effects_average_to_the_difference_of_means() -> None:
    """With weights that change on the way, and a canary that loses 0.1 more."""
    one, other = drawn(60_000, 0.1, 1, worse=0.1), drawn(60_000, 0.5, 2, worse=0.1)
    losses, canary, rho = (np.concatenate(pair) for pair in zip(one, other, strict=True))

    assert effects(losses, canary, rho).mean() == pytest.approx(0.1, abs=0.015)


def test_effects_are_the_definition() -> None:
    """Unit by unit, measured from the mean of those before it; the first only sets that mean."""
    losses, canary = np.array([0.5, 1.0, 0.0]), np.array([True, True, False])
    found = effects(losses, canary, np.full(3, 0.25))

    assert found == pytest.approx([(1.0 - 0.5) / 0.25, -(0.0 - 0.75) / 0.75])
    assert len(effects(losses[:1], canary[:1], np.array([0.25]))) == 0


@pytest.mark.parametrize("kind", [asymptotic, betting])
@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.1])
def test_evidence_reaches_its_bound_where_the_interval_leaves_the_limit(
    kind: object, mean: float
) -> None:
    """Both say the same of the same values, for the breach and for the proof."""
    chance = np.random.default_rng(7)
    values = chance.choice([-1.0, 0.0, 1.0], 3000, p=[0.2 - mean / 2, 0.6, 0.2 + mean / 2])
    for units in range(100, 3000, 150):
        found = bounds(values[:units], kind)
        assert found.low is not None
        assert found.high is not None
        assert found.mean is not None
        assert found.low <= found.mean <= found.high
        assert (found.low > 0) == (found.log_e > math.log(20))
        assert (found.high < 0.1) == (found.log_proof > math.log(20))


def test_the_asymptotic_radius_is_the_formula() -> None:
    """One-sided: s √(2(tr²+1)/(t²r²) ln(1 + √(tr²+1)/(2α))), with r for 1,000 units."""
    values = np.random.default_rng(3).normal(0, 2, 500)
    scale = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 1000
    grown = 500 * scale + 1
    inside = 2 * grown / (500**2 * scale) * math.log(1 + math.sqrt(grown) / 0.1)
    found = bounds(values)

    assert found.high == pytest.approx(values.mean() + values.std() * math.sqrt(inside))


def test_the_betting_capital_is_the_product() -> None:
    """Π (1 + λ (X − m)) with the stakes of the paper, one after another."""
    values = np.random.default_rng(9).uniform(-1, 1, 40)
    log_capital, total, squares = 0.0, 0.5, 0.25
    for number, x in enumerate((values + 1) / 2, 1):
        stake = math.sqrt(2 * math.log(20) / (squares / number * number * math.log1p(number)))
        log_capital += math.log1p(min(stake, 0.5 / 0.5) * (x - 0.5))
        total += x
        squares += (x - total / (number + 1)) ** 2

    assert bounds(values, betting).log_e == pytest.approx(log_capital)


def test_betting_needs_bounded_values() -> None:
    """A value outside would make the capital negative."""
    with pytest.raises(ValueError, match="from -1 to 1"):
        bounds(np.array([0.0, 1.5]), betting)


def test_of_few_units_the_asymptotic_sequence_says_nothing() -> None:
    """A mean without bounds, and no evidence."""
    found = bounds(np.ones(LEAST_UNITS - 1))

    assert found == MeanBounds(units=99, mean=1.0)
    assert bounds(np.zeros(0)) == MeanBounds()
    assert bounds(np.zeros(0), betting) == MeanBounds()


def test_values_that_are_all_the_same_are_certain() -> None:
    """Without a spread there is nothing to doubt, and no number is infinite."""
    found = bounds(np.full(200, 0.05))

    assert found.low == found.high == pytest.approx(0.05)
    assert math.log(20) < found.log_e < math.inf
    assert found.log_proof > math.log(20)


def test_alike_versions_are_hardly_ever_called_worse() -> None:
    """200 rollouts of 3,000 labels at 10 %, looked at 29 times: at most 5 % are refuted ever."""
    wrong = 0
    for seed in range(200):
        losses, canary, rho = drawn(3000, 0.1, seed)
        phi = effects(losses, canary, rho)
        wrong += any(bounds(phi[:t]).log_e >= math.log(20) for t in range(200, 3000, 100))

    assert wrong <= stats.binom.ppf(0.99, 200, 0.05)


def test_a_worse_canary_is_found_by_units_and_sooner_by_pairs() -> None:
    """0.1 more: 4,000 units at a quarter are enough, and as few as 400 pairs."""
    nothing = np.zeros(0), np.zeros(0, np.bool_), np.zeros(0)
    chance = np.random.default_rng(3)
    pairs = chance.choice([-1.0, 0.0, 1.0], 400, p=[0.02, 0.86, 0.12])
    given = {"bounded": True, "limit": 0.01, "prove": 0.1, "low_error": 0.05, "high_error": 0.05}

    by_units = compared(*drawn(4000, 0.25, 5, worse=0.1), np.zeros(0), **given)  # type: ignore[arg-type]
    by_pairs = compared(*nothing, pairs, **given)  # type: ignore[arg-type]

    assert by_units.log_e > math.log(20)
    assert by_pairs.log_e > math.log(20)


def test_units_and_pairs_speak_with_half_of_the_error_each() -> None:
    """The evidence is the mean of both, the interval that of the narrower one."""
    losses, canary, rho = drawn(2000, 0.25, 5)
    pairs = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], 2000, p=[0.1, 0.8, 0.1])
    found = compared(
        losses, canary, rho, pairs,
        bounded=True, limit=0.0, prove=0.1, low_error=0.05, high_error=0.05,
    )  # fmt: skip
    half = {"low_error": 0.025, "high_error": 0.025}
    by_units, by_pairs = (
        bounds(effects(losses, canary, rho), **half),
        bounds(pairs, betting, **half),
    )

    assert math.exp(found.log_e) == pytest.approx(
        (math.exp(by_units.log_e) + math.exp(by_pairs.log_e)) / 2
    )
    assert (found.low, found.high) == (by_pairs.low, by_pairs.high)


def test_too_few_units_of_the_canary_leave_the_pairs_alone() -> None:
    """Their mean with an e-value of 1 is still one; without pairs nothing is known."""
    losses, canary, rho = drawn(900, 0.05, 5)
    pairs = np.full(200, 0.5)
    given = {"bounded": True, "limit": 0.0, "prove": 0.1, "low_error": 0.05, "high_error": 0.05}

    both = compared(losses, canary, rho, pairs, **given)  # type: ignore[arg-type]
    alone = compared(losses, canary, rho, np.zeros(0), **given)  # type: ignore[arg-type]

    assert both.low is not None
    assert both.low > 0
    assert alone == MeanBounds()


def test_labels_that_come_for_one_version_only_are_a_gap() -> None:
    """Every second against four of five is told; both alike is not."""
    chance = np.random.default_rng(6)
    canary, rho = chance.random(4000) < 0.25, np.full(4000, 0.25)
    alike = (chance.random(4000) < 0.6).astype(float)
    unlike = (chance.random(4000) < np.where(canary, 0.5, 0.8)).astype(float)

    assert coverage_gap(unlike, canary, rho)
    assert not coverage_gap(alike, canary, rho)
    assert not coverage_gap(unlike[:50], canary[:50], rho[:50])
