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

from serving.drift.distributions import chi_square_tail
from serving.rollout.evidence.relative_risk import (
    Counts,
    average,
    estimate,
    log_breach,
    log_proof,
)

__all__ = ["Bin", "critical_psi", "log_shift", "moved", "psi"]

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
    return average(log_e for counts in bins for log_e in _sides(counts, tolerance))


def moved(bins: Sequence[Counts], tolerance: float, most: int = 3) -> list[Bin]:
    """Bins with evidence of their own (E above 1), the strongest first.

    Args:
        bins: of each, predictions by the canary's probability.
        tolerance: ratio that is still fine, either way.
        most: so many at most.
    """
    found = [
        Bin(place, estimate(counts), max(_sides(counts, tolerance)))
        for place, counts in enumerate(bins)
    ]
    found.sort(key=lambda one: one.log_e, reverse=True)
    return [one for one in found[:most] if one.log_e > 0]


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


def _sides(counts: Counts, tolerance: float) -> tuple[float, float]:
    return log_breach(counts, tolerance), log_proof(counts, 1 / tolerance)
