"""How many predictions have a label, how long labels take, and whether versions differ in it.

A figure over labelled rows speaks for all rows only if being labelled has nothing to do with
being right. Where one version's rows are labelled more often than another's, comparing their
figures compares, in part, who was labelled.
"""

from collections.abc import Mapping, Sequence

import msgspec

from serving.performance.counts import Moments
from serving.performance.figures import share
from serving.performance.intervals import (
    CONFIDENCE,
    Interval,
    benjamini_hochberg,
    beyond,
    difference,
)

__all__ = ["Coverage", "DelayPoint", "coverage", "delay_curve", "differing"]


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows of those whose time for a label is over."""

    name: str
    value: float
    low: float
    high: float
    rows: int


class DelayPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The share of rows that had a label `seconds` after their prediction, of those that old."""

    seconds: float
    value: float
    low: float
    high: float
    rows: int


def coverage(name: str, labelled: Moments) -> Coverage | None:
    """The share that `labelled` says, a value of 1 a labelled row; None of no rows."""
    if labelled.mean is None:
        return None
    around = share(labelled)
    return Coverage(
        name=name, value=labelled.mean, low=around.low, high=around.high, rows=labelled.rows
    )


def differing(labelled: Mapping[str, Moments], confidence: float = CONFIDENCE) -> list[str]:
    """Names whose share of labelled rows is another than that of all others together, surely.

    Corrected for how many there are.
    """
    names = [name for name, of in labelled.items() if of.mean is not None]
    p_values, found = [], []
    for name in names:
        rest = sum((labelled[other] for other in names if other != name), Moments())
        if rest.mean is None:
            return []
        one, other = labelled[name].mean or 0.0, rest.mean
        around = difference(one, share(labelled[name], confidence), other, share(rest, confidence))
        p_values.append(_differs(one - other, around, confidence))
    for name, q in zip(names, benjamini_hochberg(p_values), strict=True):
        if q <= 1 - confidence:
            found.append(name)
    return found


def _differs(value: float, around: Interval, confidence: float) -> float:
    return beyond(value, around.low if value > 0 else around.high, 0.0, confidence)


def delay_curve(points: Sequence[tuple[float, Moments]]) -> list[DelayPoint]:
    """One point a delay; delays that no row is old enough for are left out.

    Args:
        points: seconds, and the rows at least that old with 1 for those labelled by then. Younger
            rows do not count: they would make every curve look flat.
    """
    curve = []
    for seconds, of in points:
        if of.mean is None:
            continue
        around = share(of)
        curve.append(
            DelayPoint(
                seconds=seconds, value=of.mean, low=around.low, high=around.high, rows=of.rows
            )
        )
    return curve
