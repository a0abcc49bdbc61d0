"""A value that stays beyond its limit for so long: no statistics, no error bound.

Relative rules cannot see damage that both versions share. This one looks at the canary alone, at
what it did last: the shortest stretch of looks with requests enough.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["Mark", "Sustained", "latest", "marked", "quantile", "sustained"]

_MARKS: Final = 256
"""Looks that are remembered; then every second one of the older half is forgotten."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """What was counted up to a look."""

    at: float
    events: int
    units: int


class Sustained(msgspec.Struct, frozen=True):
    """How long a value has been beyond its limit."""

    since: float | None = None
    """Seconds since 1970; None: it is not."""

    breached: bool = False


def marked(marks: Sequence[Mark], mark: Mark, least: int) -> list[Mark]:
    """Remember a look, and forget what no stretch needs any more.

    Args:
        marks: of earlier looks, oldest first.
        mark: the newest; one with the same counts as the last is not kept.
        least: units of a stretch.
    """
    kept = list(marks)
    if kept and (mark.units < kept[-1].units or mark.events < kept[-1].events):
        kept = []  # another book
    if not kept or mark.units != kept[-1].units or mark.events != kept[-1].events:
        kept.append(mark)
    while len(kept) > 2 and kept[-1].units - kept[1].units >= least:
        del kept[0]
    if len(kept) > _MARKS:
        del kept[1 : _MARKS // 2 : 2]
    return kept


def latest(marks: Sequence[Mark], least: int) -> float | None:
    """Share of events in the shortest last stretch with `least` units; None: there are too few."""
    if not marks:
        return None
    newest = marks[-1]
    for mark in reversed(marks[:-1]):
        units = newest.units - mark.units
        if units >= least:
            return (newest.events - mark.events) / units
    return None


def sustained(before: Sustained, *, beyond: bool | None, now: float, seconds: float) -> Sustained:
    """What a look adds.

    Args:
        before: what was known.
        beyond: whether the value is beyond its limit; None: there is none, and nothing changes.
        now: seconds since 1970.
        seconds: how long it may.
    """
    if beyond is None:
        return before
    if not beyond:
        return Sustained()
    since = now if before.since is None else before.since
    return Sustained(since, now - since >= seconds)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of them do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
