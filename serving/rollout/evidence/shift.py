"""Whether the canary predicts some class, or some tenth of production's scores, too often.

One relative-risk process per bin and side: "at most `tolerance` times as often as production" and
"at least 1/`tolerance` times". The rule's e-value is the mean of all 2B. A new model is meant to
predict differently, so there is a tolerance.

For showing there is the population stability index too, with the value that it exceeds by chance:
fixed limits such as 0.1 are wrong for a hundred requests and for a million. PSI / (1/n + 1/m) is
close to χ² with B − 1 degrees of freedom if both versions predict alike (B. Yurdakul 2018).
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.drift.distributions import chi_square_tail
from serving.rollout.evidence.relative_risk import (
    Counts,
    CountsArray,
    average,
    estimate,
    log_breach_array,
    log_proof_array,
)

__all__ = ["Bin", "critical_psi", "log_shift", "log_within", "moved", "psi"]

_Floats = NDArray[np.float64]
_HALF: Final = 0.5

_SMOOTH: Final = 0.5
"""Added to each bin of an index, so that an empty one does not make it infinite."""


class Bin(msgspec.Struct, frozen=True):
    """One bin that has moved."""

    place: int
    ratio: float | None
    """How many times as often as production the canary predicts it."""

    log_e: float


def log_shift(bins: Sequence[Counts], tolerance: float) -> float:
    """Natural logarithm of the e-value against "no bin differs by more than `tolerance`"."""
    return average(np.concatenate(_sides(bins, tolerance)).tolist())


def moved(bins: Sequence[Counts], tolerance: float, most: int = 3) -> list[Bin]:
    """Bins with evidence of their own (E above 1), the strongest first.

    Args:
        bins: of each, predictions by the canary's probability.
        tolerance: ratio that is still fine, either way.
        most: so many at most.
    """
    logs = np.maximum(*_sides(bins, tolerance))
    strongest = sorted(range(len(bins)), key=lambda place: -logs[place])[:most]
    return [
        Bin(place, estimate(bins[place]), float(logs[place]))
        for place in strongest
        if logs[place] > 0
    ]


def log_within(bins: Sequence[Counts], prove: float) -> float:
    """Natural logarithm of the e-value against "some bin differs by `prove` or more"."""
    if not bins:
        return 0.0
    counts = _stacked(bins)
    return float(
        np.minimum(log_proof_array(counts, prove), log_breach_array(counts, 1 / prove)).min()
    )


def psi(canary: Sequence[int], production: Sequence[int]) -> float:
    """Population stability index of two rows of bin counts: Σ (q − p) · ln(q / p)."""
    bins = len(canary)
    n, m = sum(canary) + bins * _SMOOTH, sum(production) + bins * _SMOOTH
    index = 0.0
    for one, other in zip(canary, production, strict=True):
        q, p = (one + _SMOOTH) / n, (other + _SMOOTH) / m
        index += (q - p) * math.log(q / p)
    return index


def critical_psi(canary: int, production: int, bins: int, alpha: float) -> float:
    """The index that is exceeded with probability `alpha` at one look if nothing has changed.

    Args:
        canary: predictions of the canary, all bins.
        production: likewise.
        bins: how many bins.
        alpha: as said.
    """
    if bins < 2 or not canary or not production:
        return math.inf
    low, high = 0.0, float(bins)
    while chi_square_tail(high, bins - 1) > alpha:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chi_square_tail(middle, bins - 1) > alpha else (low, middle)
    return high * (1 / canary + 1 / production)


def _sides(bins: Sequence[Counts], tolerance: float) -> tuple[_Floats, _Floats]:
    """Logarithms of evidence for too often and for too rarely, each of shape [bins]."""
    if not bins:
        return np.zeros(0), np.zeros(0)
    counts = _stacked(bins)
    return log_breach_array(counts, tolerance), log_proof_array(counts, 1 / tolerance)


def _stacked(bins: Sequence[Counts]) -> CountsArray:
    """All bins at once."""
    rhos = dict.fromkeys(rho for counts in bins for rho in counts)
    stacked = {}
    for rho in rhos:
        pairs = np.array([counts.get(rho, (0, 0)) for counts in bins])
        stacked[rho] = pairs[:, 0], pairs[:, 1]
    # A level without events keeps the shape where no bin has any.
    return stacked or {_HALF: (np.zeros(len(bins), int), np.zeros(len(bins), int))}
