"""Whether a candidate does worse than production for some group of people. Pure.

Compared is how right both were, slice by slice, over the time in which the candidate was a shadow:
shadow copies are of the requests that production answered. Intervals are taken as of independent
rows, which makes them too wide rather than too narrow.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from serving.performance.figures import Figure
from serving.performance.intervals import Interval, benjamini_hochberg, beyond, difference
from serving.performance.report import Group

__all__ = ["SliceGate", "compare_with_production"]

_BETTER_IF_LARGE: Final[Mapping[str, bool]] = {"accuracy": True, "absolute_error": False}
_FALSE_FINDS: Final = 0.05


class SliceGate(msgspec.Struct, frozen=True, kw_only=True):
    """How many slices could be compared, and in which the candidate is worse, in words."""

    compared: int
    worse: list[str]


class _Found(msgspec.Struct, frozen=True):
    words: str
    chance: float
    beyond: bool


def compare_with_production(
    groups: Sequence[Group], *, production: str, candidate: str, allowed: float
) -> SliceGate:
    """Compare slice by slice.

    Args:
        groups: of a report by slice.
        production: the version that answers; its rows in that role count.
        candidate: its rows as a shadow count.
        allowed: by how much it may be worse: of the share that is right, or of the mean error.

    Returns:
        Those slices in which it is worse by more than that beyond chance, at most 5 % of them by
        mistake (Benjamini and Hochberg).
    """
    ours = _by_slice(groups, production, "production")
    theirs = _by_slice(groups, candidate, "shadow")
    found = [
        one
        for place, group in theirs.items()
        if place in ours and (one := _compared(place, ours[place], group, allowed)) is not None
    ]
    sure = benjamini_hochberg([one.chance for one in found])
    return SliceGate(
        compared=len(found),
        worse=[
            one.words
            for one, share in zip(found, sure, strict=True)
            if one.beyond and share <= _FALSE_FINDS
        ],
    )


def _by_slice(groups: Sequence[Group], version: str, role: str) -> dict[tuple[str, str], Group]:
    return {
        (one.column, one.value): one for one in groups if (one.version, one.role) == (version, role)
    }


def _compared(place: tuple[str, str], ours: Group, theirs: Group, allowed: float) -> _Found | None:
    for name, large_is_good in _BETTER_IF_LARGE.items():
        first, second = _figure(ours, name), _figure(theirs, name)
        if first is None or second is None:
            continue
        worse, better = (first, second) if large_is_good else (second, first)
        interval = difference(worse.value, _interval(worse), better.value, _interval(better))
        value = worse.value - better.value
        words = (
            f"{place[0]}={place[1]}: {name.replace('_', ' ')} {second.value:.4g} of {second.rows} "
            f"rows, production's is {first.value:.4g}; worse by {value:.4g}, at least "
            f"{interval.low:.4g}, and {allowed:.4g} is allowed"
        )
        is_beyond = interval.low > allowed
        return _Found(words, beyond(value, interval.low, allowed) if is_beyond else 1.0, is_beyond)
    return None


def _figure(group: Group, name: str) -> Figure | None:
    """A figure that has an interval, so that it can be compared."""
    return next((one for one in group.figures if one.name == name and one.low is not None), None)


def _interval(figure: Figure) -> Interval:
    assert figure.low is not None
    assert figure.high is not None
    return Interval(figure.low, figure.high)
