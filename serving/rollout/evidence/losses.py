"""By how much the canary's mean loss is above production's, once labels have come.

In a shadow step both versions have predicted the same row, so their losses are compared in pairs.
A difference that lies in [-1, 1] is bet on (I. Waudby-Smith and A. Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 86, 2024): scaled to X in [0, 1], against "the mean is
at most m" stands the capital Π (1 + λᵢ (Xᵢ − m)), with a stake λᵢ that knows only what came before
and is never more than half of what could be lost.

In a weight step each unit (a key, or a request without one) has met one version. Its loss Y, the
arm A and the probability ρ that it was drawn with give φ = (Y − m)(A/ρ − (1 − A)/(1 − ρ)), whose
mean is the difference of means for any m that knows only earlier units; we take their mean. For
means of φ, and of pairs without a bound, there is an asymptotic confidence sequence (I.
Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy and A. Ramdas, "Time-uniform central limit theory
and asymptotic confidence sequences", Annals of Statistics 52, 2024): after t units with standard
deviation s, to each side

    s · √(2 (t r² + 1) / (t² r²) · ln(1 + √(t r² + 1) / (2α)))

Units stand in the order in which their first label came: a label that is late is a unit that comes
later. Each unit counts once, as sticky keys do everywhere.
"""

import math
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.rollout.evidence.relative_risk import average

__all__ = [
    "LEAST_UNITS",
    "MeanBounds",
    "asymptotic",
    "betting",
    "compared",
    "coverage_gap",
    "effects",
]

LEAST_UNITS: Final = 100
"""With fewer the asymptotic sequence says nothing: it holds for many."""

_TIGHTEST: Final = 1000.0
"""Units at which the asymptotic sequence is tightest, for its scale r."""

_CERTAIN: Final = 1e6
"""Logarithm of the evidence from values that are all the same."""

_SMALL_GAP: Final = 0.02
"""A difference of coverage that does not matter."""

_GAP_ERROR: Final = 0.001
"""As strict as the check of the split: it says that the comparison is none."""

_HALVINGS: Final = 40
_STAKE: Final = 0.5

_Floats = NDArray[np.float64]


class MeanBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a mean; None where nothing is. All numbers are finite."""

    units: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    log_e: float = 0.0
    """Natural logarithm of the e-value against "the mean is at most `limit`"."""

    log_proof: float = 0.0
    """Likewise against "it is at least `prove`"."""


def compared(
    losses: _Floats,
    canary: NDArray[np.bool_],
    rho: _Floats,
    paired: _Floats,
    *,
    bounded: bool,
    limit: float,
    prove: float,
    low_error: float,
    high_error: float,
) -> MeanBounds:
    """What units drawn for one version, and pairs, say of the difference of mean losses together.

    Either speaks with half of each error where both are there; the evidence is their mean, and the
    interval that of the narrower.

    Args:
        losses: see `effects`.
        canary: likewise.
        rho: likewise.
        paired: differences, canary less production, of units that both have predicted.
        bounded: whether those lie in [-1, 1].
        limit: growth that is still fine.
        prove: growth that must not be reached.
        low_error: what a breach may spend.
        high_error: what a proof may.
    """
    both = bool(len(losses)) and bool(len(paired))
    part = 0.5 if both else 1.0
    errors = {"low_error": low_error * part, "high_error": high_error * part}
    of_pairs = (betting if bounded else asymptotic)(paired, limit=limit, prove=prove, **errors)
    of_units = MeanBounds()
    if min(int(canary.sum()), int((~canary).sum())) >= LEAST_UNITS:
        of_units = asymptotic(effects(losses, canary, rho), limit=limit, prove=prove, **errors)
    if not both:
        return of_pairs if len(paired) else of_units
    if of_units.low is None or of_pairs.low is None:
        known = of_pairs if of_units.low is None else of_units
        return msgspec.structs.replace(
            known,
            log_e=average([known.log_e, 0.0]),
            log_proof=average([known.log_proof, 0.0]),
        )
    narrow = min(of_pairs, of_units, key=_width)
    return msgspec.structs.replace(
        narrow,
        units=of_pairs.units + of_units.units,
        log_e=average([of_pairs.log_e, of_units.log_e]),
        log_proof=average([of_pairs.log_proof, of_units.log_proof]),
    )


def coverage_gap(labelled: _Floats, canary: NDArray[np.bool_], rho: _Floats) -> bool:
    """Whether labels come for one version clearly more often than for the other.

    Args:
        labelled: share of each unit's rows that have one, in the order of predictions.
        canary: as in `effects`.
        rho: likewise.
    """
    found = asymptotic(
        effects(labelled, canary, rho),
        limit=_SMALL_GAP,
        prove=-_SMALL_GAP,
        low_error=_GAP_ERROR / 2,
        high_error=_GAP_ERROR / 2,
    )
    if found.low is None or found.high is None:
        return False
    return found.low > _SMALL_GAP or found.high < -_SMALL_GAP


def effects(losses: _Floats, canary: NDArray[np.bool_], rho: _Floats) -> _Floats:
    """φ of each unit but the first, which only sets the mean that the others are measured from.

    Args:
        losses: of each unit, in the order in which labels came; shape [units].
        canary: whether the canary predicted it.
        rho: probability that it would, above 0 and below 1.

    Returns:
        Shape [units - 1]; empty for none.
    """
    if len(losses) < 2:
        return np.zeros(0)
    before = np.cumsum(losses)[:-1] / np.arange(1, len(losses))
    drawn = np.where(canary, 1 / rho, -1 / (1 - rho))[1:]
    found: _Floats = (losses[1:] - before) * drawn
    return found


def asymptotic(
    values: _Floats, *, limit: float, prove: float, low_error: float, high_error: float
) -> MeanBounds:
    """Bounds for a mean of independent values that have a variance; none of too few.

    Args:
        values: shape [units].
        limit: the mean that is still fine.
        prove: the mean that must not be reached.
        low_error: how often `low` may ever be above the mean.
        high_error: how often `high` may ever be below it.
    """
    units = len(values)
    if not units:
        return MeanBounds()
    mean = float(values.mean())
    if units < LEAST_UNITS:
        return MeanBounds(units=units, mean=mean)
    deviation = float(values.std())
    return MeanBounds(
        units=units,
        mean=mean,
        low=mean - _radius(units, deviation, low_error),
        high=mean + _radius(units, deviation, high_error),
        log_e=_log_asymptotic(units, deviation, mean - limit, low_error),
        log_proof=_log_asymptotic(units, deviation, prove - mean, high_error),
    )


def betting(
    values: _Floats, *, limit: float, prove: float, low_error: float, high_error: float
) -> MeanBounds:
    """The same for values in [-1, 1], from the first on and for any distribution.

    Raises:
        ValueError: a value is outside.
    """
    units = len(values)
    if not units:
        return MeanBounds()
    if not bool(np.all(np.abs(values) <= 1)):
        raise ValueError("betting needs values from -1 to 1")
    up = _capital((values + 1) / 2, low_error)
    down = _capital((1 - values) / 2, high_error)
    # What holds for X and "at most m" holds, turned round, for 1 - X and "at least 1 - m".
    return MeanBounds(
        units=units,
        mean=float(values.mean()),
        low=2 * _lowest(up, low_error) - 1,
        high=1 - 2 * _lowest(down, high_error),
        log_e=up(_clipped((limit + 1) / 2)),
        log_proof=down(_clipped((1 - prove) / 2)),
    )


def _width(bounds: MeanBounds) -> float:
    return (bounds.high or 0.0) - (bounds.low or 0.0)


def _scale(error: float) -> float:
    """The square of r that makes the sequence tightest at `_TIGHTEST` units."""
    spent = -2 * math.log(min(error, 0.5))
    return (spent + math.log(spent + 1)) / _TIGHTEST


def _radius(units: int, deviation: float, error: float) -> float:
    grown = units * _scale(error) + 1
    inside = 2 * grown / (units**2 * _scale(error)) * math.log1p(math.sqrt(grown) / (2 * error))
    return deviation * math.sqrt(inside)


def _log_asymptotic(units: int, deviation: float, beyond: float, error: float) -> float:
    """The logarithm of 1/α for the α whose radius is `beyond`; r stays that of `error`."""
    grown = units * _scale(error) + 1
    least = -0.5 * math.log(grown)
    if beyond <= 0:
        return least
    if deviation <= 0:
        return _CERTAIN
    z = (beyond * units / deviation) ** 2 * _scale(error) / (2 * grown)
    # ln(2 (eᶻ − 1)) for z of any size
    return max(least, math.log(2) + z + math.log(-math.expm1(-z)) + least)


def _capital(x: _Floats, error: float) -> Callable[[float], float]:
    """Logarithm of the capital against "the mean of `x` is at most m", as a function of m.

    It falls with m. Stakes are those of the paper's predictable plug-in (its section 3.3).
    """
    number = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (number + 1)
    spread = (0.25 + np.cumsum((x - means) ** 2)) / (number + 1)
    before = np.concatenate(([0.25], spread[:-1]))
    stakes = np.sqrt(2 * math.log(1 / error) / (before * number * np.log1p(number)))

    def log_capital(mean: float) -> float:
        return float(np.log1p(np.minimum(stakes, _STAKE / mean) * (x - mean)).sum())

    return log_capital


def _lowest(log_capital: Callable[[float], float], error: float) -> float:
    """The smallest mean that is not refuted."""
    limit = -math.log(error)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if log_capital(middle) >= limit else (low, middle)
    return low


def _clipped(share: float) -> float:
    return min(1.0, max(1e-9, share))
