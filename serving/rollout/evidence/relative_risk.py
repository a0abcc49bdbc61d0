"""By which factor events are more frequent with the canary: an e-process over who had them.

A unit goes to the canary with a known probability ρ. If its event is r times as likely there as
with production, whatever that likelihood is just then, an event that has happened is the canary's
with probability θ(r, ρ) = ρr / (ρr + 1 − ρ) (M. Lindon and A. Malek, "Anytime-valid inference for
multinomial count data", NeurIPS 2022). Rates that move with the hour, with an incident or with the
weight drop out. Against "r ≤ r₀" we bet on r₀ · g for several factors g, and average:

    ln E_g = Σ_ρ  s_ρ · ln(θ(r₀g, ρ) / θ(r₀, ρ)) + f_ρ · ln((1 − θ(r₀g, ρ)) / (1 − θ(r₀, ρ)))
           = s · ln g + Σ_ρ (s_ρ + f_ρ) · ln((ρr₀ + 1 − ρ) / (ρr₀g + 1 − ρ))

with s_ρ events of the canary and f_ρ of production while the canary's probability was ρ. It is a
function of these counts alone, so sums over processes and restarts are all that has to be kept.
For "r ≥ r₀" the factors are below 1. Each factor of E has a mean of at most 1 under the whole
null, since the likelihood ratio is monotone in r.

Each unit counts once. If all requests of a user meet the same version, the user is the unit: of
200 users with errors 5 % may well be 8 %, however many errors each has. r is then the ratio of the
rates at which users meet the event for the first time; `first_events` says what that means for a
proof.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FACTORS",
    "Counts",
    "CountsArray",
    "Interval",
    "average",
    "estimate",
    "log_breach",
    "log_breach_array",
    "log_proof",
    "log_proof_array",
    "ratio_bounds",
    "ratio_interval",
    "theta",
    "total",
]

Counts = Mapping[float, tuple[float, float]]
"""By the probability of the canary, above 0 and below 1: its events, production's events."""

_Counted = NDArray[np.integer] | NDArray[np.float64]

CountsArray = Mapping[float, tuple[_Counted, _Counted]]
"""The same of many books at once; all arrays have one shape, or broadcast to it."""

FACTORS: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""What is bet on, as multiples of the null. Small ones find small regressions with many events;
with 30 a version that only fails is found after a few."""

_LOG_FACTORS: Final = tuple(math.log(factor) for factor in FACTORS)
_WIDEST: Final = 23.0
"""Ratios are looked for from e⁻²³ to e²³, ten thousand million."""

_ROUNDS: Final = 5
_POINTS: Final = 64

_Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of a confidence sequence; 0 and infinity where nothing bounds it."""

    low: float
    high: float


def theta(ratio: float, rho: float) -> float:
    """Probability that an event is the canary's, if it is `ratio` times as likely there.

    Args:
        ratio: rate of the canary to that of production, 0 or above.
        rho: probability of the canary.
    """
    return rho * ratio / (rho * ratio + 1 - rho)


def log_breach(counts: Counts, null: float, factors: Sequence[float] = FACTORS) -> float:
    """Natural logarithm of the e-value against "the ratio is at most `null`".

    Args:
        counts: events; fractions of one do no harm.
        null: the ratio that is still fine.
        factors: what is bet on, above 1.

    Raises:
        ValueError: a probability that is not above 0 and below 1, or a null that is not above 0.
    """
    return _log_mixture(_levels(counts), null, tuple(math.log(factor) for factor in factors))


def log_proof(counts: Counts, null: float, factors: Sequence[float] = FACTORS) -> float:
    """Natural logarithm of the e-value against "the ratio is at least `null`".

    Args and errors are as in `log_breach`; the bets are on `null` divided by the factors.
    """
    return _log_mixture(_levels(counts), null, tuple(-math.log(factor) for factor in factors))


def log_breach_array(counts: CountsArray, null: float) -> _Floats:
    """`log_breach` of each element: a float array of the counts' shape."""
    return _log_mixture_array(counts, null, np.array(_LOG_FACTORS))


def log_proof_array(counts: CountsArray, null: "float | _Floats") -> _Floats:
    """`log_proof` of each element: a float array of the counts' shape, as is a null of each."""
    return _log_mixture_array(counts, null, -np.array(_LOG_FACTORS))


def average(logs: Iterable[float]) -> float:
    """Logarithm of the mean of e-values, from their logarithms; 0.0 (E = 1) if there are none."""
    values = list(logs)
    if not values:
        return 0.0
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))


def total(counts: Mapping[float, tuple[int, int]]) -> tuple[int, int]:
    """Events of the canary and of production, over all probabilities."""
    return sum(pair[0] for pair in counts.values()), sum(pair[1] for pair in counts.values())


def estimate(counts: Counts) -> float | None:
    """The most likely ratio: 0 or infinity where one side has no event, None where both have none.

    It solves Σ n_ρ · θ(r, ρ) = s.
    """
    levels = _levels(counts)
    canary, production = (sum(level[arm] for level in levels) for arm in (1, 2))
    if not canary and not production:
        return None
    if not canary or not production:
        return math.inf if canary else 0.0
    rho, s, f = (column[:, None] for column in np.array(levels).T)
    return _crossing(
        lambda ratios: ((s + f) * rho * ratios / (rho * ratios + 1 - rho)).sum(0) >= canary
    )


def ratio_interval(counts: Counts, alpha: float) -> Interval:
    """Confidence sequence for the ratio: with probability 1 − α it holds it at all looks together.

    The ratios that neither side's e-process refutes at α/2. Each is monotone in the null, so it is
    an interval and bisection finds its ends. The average of both grids reaches 1/α where one of
    them reaches 2/α and the other, there close to 0, adds next to nothing.

    Args:
        counts: events; one arm may have none.
        alpha: error of both ends together.
    """
    return ratio_bounds(counts, alpha / 2, alpha / 2)


def ratio_bounds(counts: Counts, low_error: float, high_error: float) -> Interval:
    """The same with an error for each end: `low` is above a null just if its breach is proven."""
    levels = _levels(counts)
    up = np.array(_LOG_FACTORS)
    too_low, too_high = -math.log(low_error), -math.log(high_error)
    return Interval(
        _crossing(lambda ratios: _log_mixtures(levels, ratios, up) < too_low),
        _crossing(lambda ratios: _log_mixtures(levels, ratios, -up) >= too_high),
    )


_Level = tuple[float, float, float]


def _levels(counts: Counts) -> list[_Level]:
    for rho in counts:
        _check(rho)
    return [(rho, canary, production) for rho, (canary, production) in counts.items()]


def _check(rho: float) -> None:
    if not 0 < rho < 1:
        raise ValueError(f"a probability of the canary is above 0 and below 1, not {rho}")


def _log_mixture(levels: list[_Level], null: float, log_factors: tuple[float, ...]) -> float:
    if not null > 0:
        raise ValueError(f"the ratio of a null hypothesis is above 0, not {null}")
    canary = sum(level[1] for level in levels)
    drawn = [(rho * null, 1 - rho, s + f, math.log(rho * null + 1 - rho)) for rho, s, f in levels]
    return average(
        canary * log_factor
        + sum(
            n * (under_null - math.log(odds * math.exp(log_factor) + rest))
            for odds, rest, n, under_null in drawn
        )
        for log_factor in log_factors
    )


def _log_mixture_array(
    counts: CountsArray, null: "float | _Floats", log_factors: _Floats
) -> _Floats:
    null = np.asarray(null, np.float64)[..., None]
    if not (null > 0).all():
        raise ValueError(f"the ratio of a null hypothesis is above 0, not {null}")
    logs: _Floats = np.zeros(log_factors.shape)
    for rho, (canary, production) in counts.items():
        _check(rho)
        rest = 1 - rho
        both = np.log(rho * null + rest) - np.log(rho * null * np.exp(log_factors) + rest)
        logs = (
            logs
            + np.asarray(canary, np.float64)[..., None] * (log_factors + both)
            + np.asarray(production, np.float64)[..., None] * both
        )
    return _log_mean(logs)


def _log_mixtures(levels: list[_Level], nulls: _Floats, log_factors: _Floats) -> _Floats:
    """`_log_mixture` for many nulls of the same counts; shape [nulls]."""
    if not levels:
        return np.zeros(nulls.shape)
    rho, canary, production = np.array(levels).T
    odds, rest = nulls[:, None] * rho, 1 - rho
    both = np.log(odds + rest)[..., None] - np.log(
        odds[..., None] * np.exp(log_factors) + rest[:, None]
    )
    logs = canary.sum() * log_factors + np.einsum("l,klj->kj", canary + production, both)
    return _log_mean(logs)


def _log_mean(logs: _Floats) -> _Floats:
    """`average` over the last axis."""
    top = logs.max(-1, keepdims=True)
    found: _Floats = np.log(np.exp(logs - top).mean(-1)) + top[..., 0]
    return found


def _crossing(reached: Callable[[_Floats], NDArray[np.bool_]]) -> float:
    """The ratio from which `reached` is true, to 7 digits; 0 if it always is, else infinity.

    Control looks several times a second: 64 ratios at a time cost little more than one.
    """
    low, high = -_WIDEST, _WIDEST
    for _ in range(_ROUNDS):
        points = np.linspace(low, high, _POINTS)
        found = reached(np.exp(points))
        first = int(found.argmax())
        if not found[first]:
            return math.inf
        if first == 0:
            return 0.0
        low, high = float(points[first - 1]), float(points[first])
    return math.exp((low + high) / 2)
