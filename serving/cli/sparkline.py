"""A row of numbers as a row of bars, for people who look rather than read."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

__all__ = ["columns", "sparkline"]

_BARS: Final = "▁▂▃▄▅▆▇█"


def columns(values: Sequence[float], width: int) -> list[float]:
    """`values` in at most `width` columns, each the highest of what it stands for."""
    if len(values) <= width:
        return list(values)
    edges = [len(values) * column // width for column in range(width + 1)]
    return [max(values[start:end]) for start, end in pairwise(edges)]


def sparkline(
    values: Sequence[float], *, low: float | None = None, high: float | None = None
) -> str:
    """One bar a value, from `low` (the least of them if not given) up to the greatest.

    If that is less than `high`, up to `high`: small changes then look small.
    """
    if not values:
        return ""
    least = min(values) if low is None else low
    span = max(*values, least if high is None else high) - least
    if span <= 0:
        return _BARS[0] * len(values)
    top = len(_BARS) - 1
    return "".join(_BARS[max(0, round((value - least) / span * top))] for value in values)
