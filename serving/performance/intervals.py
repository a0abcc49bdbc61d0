"""Intervals for shares, means and what is between two of them; and many looks at once.

Sources: Wilson 1927 (a share); Newcombe 1998, method 10 (a difference); Donner and Zou 2012 (a
ratio, from the limits of its parts); Hill 1970 (Student's t from the normal quantile); Benjamini
and Hochberg 1995 (many tests). What they cover in simulation is in `docs/decisions.md`.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import msgspec

__all__ = [
    "CONFIDENCE",
    "Interval",
    "benjamini_hochberg",
    "beyond",
    "difference",
    "quantile",
    "ratio",
    "student",
    "wilson",
]

CONFIDENCE: Final = 0.95
_NORMAL: Final = NormalDist()


class Interval(msgspec.Struct, frozen=True):
    """From `low` to `high`, both included."""

    low: float
    high: float


def quantile(confidence: float = CONFIDENCE) -> float:
    """Standard errors to each side of a two-sided interval: 1.96 for 95 %."""
    return _NORMAL.inv_cdf((1 + confidence) / 2)


def student(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The same for a mean whose variance is estimated with `freedom` degrees of freedom.

    Good to 1 % from 4 degrees on; fewer count as 4.
    """
    z, f = quantile(confidence), max(freedom, 4.0)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / f + second / f**2 + third / f**3


def wilson(share: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """A share of `n` observations, which may be an effective number of them.

    Nothing is known of none: 0 to 1.
    """
    if n <= 0:
        return Interval(0.0, 1.0)
    z = quantile(confidence)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The limits of 0 and 1 are exact; rounding must not move them inside.
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    return Interval(low, 1.0 if share >= 1 else min(1.0, middle + half))


def difference(one: float, of_one: Interval, other: float, of_other: Interval) -> Interval:
    """`one - other`, two independent estimates with their intervals."""
    value = one - other
    return Interval(
        value - math.hypot(one - of_one.low, of_other.high - other),
        value + math.hypot(of_one.high - one, other - of_other.low),
    )


def ratio(one: float, of_one: Interval, other: float, of_other: Interval) -> Interval:
    """`one / other`, two independent shares with their intervals; unbounded if `other` may be 0."""
    low = _ratio_limit(one, of_one.low, other, of_other.high, -1.0)
    if of_other.low <= 0:
        return Interval(low, math.inf)
    return Interval(low, _ratio_limit(one, of_one.high, other, of_other.low, 1.0))


def _ratio_limit(one: float, limit: float, other: float, divisor: float, side: float) -> float:
    scale = divisor * (2 * other - divisor)
    inside = (one * other) ** 2 - limit * divisor * (2 * one - limit) * (2 * other - divisor)
    if scale <= 0 or inside < 0:  # too few to say better than the extremes of both
        return limit / divisor if divisor > 0 else 0.0
    return max(0.0, (one * other + side * math.sqrt(inside)) / scale)


def beyond(value: float, nearer: float, limit: float, confidence: float = CONFIDENCE) -> float:
    """How surely something is beyond a limit: the p-value of "it is not", two-sided.

    Args:
        value: the estimate.
        nearer: the end of its interval that is on the limit's side.
        limit: what it may be. The p-value is below 1 - confidence just where the interval ends
            before the limit.
        confidence: of the interval.
    """
    error = abs(value - nearer) / quantile(confidence)
    if error == 0 or (value - limit) * (value - nearer) <= 0:
        return 1.0
    return min(1.0, 2 * (1 - _NORMAL.cdf(abs(value - limit) / error)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The share of false finds if this one and all that are as small are taken, for each."""
    count = len(p_values)
    smallest = 1.0
    adjusted = [1.0] * count
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__, reverse=True)):
        smallest = min(smallest, p_values[index] * count / (count - rank))
        adjusted[index] = smallest
    return adjusted
