"""The drift report: windows of counts in, a judgement of every column out. Pure.

    report(reference, windows, DriftOptions(important=("AGEP",), score="probabilities[1]"))

Which columns are named follows from counts alone; whether anybody is told, or a training is
asked for, is decided in `serving.drift.verdict`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from serving.config.frozen_bins import FrozenColumn, Reference
from serving.drift.bins import Counts
from serving.drift.statistics import (
    LEAST_BLOCKS,
    Comparison,
    compare_columns,
    q_values,
    reference_counts,
    unrest,
)

__all__ = [
    "ColumnDrift",
    "ColumnLevel",
    "DriftOptions",
    "DriftReport",
    "MovedBin",
    "Window",
    "joined",
    "report",
]

ColumnLevel = Literal["none", "inform", "alert"]

_MOVED: Final = 5

_PAST: Final = 48
"""Windows before one that tell how restless traffic is; two days of hours."""


class DriftOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is worth telling; the words are `monitoring`'s."""

    alpha: float = 0.01
    """Chance that a report names any column although nothing changed."""

    min_effect: float = 0.01
    """Smallest shift (PSI without its noise) worth telling."""

    min_rows: int = 500
    """A window with fewer rows is joined with the one before."""

    important: frozenset[str] = frozenset()
    """Columns whose drift is an alert."""

    score: str = ""
    """The score's column, whose drift is an alert too."""

    confirm: int = 2
    """An alert needs so many drifting windows …"""

    of_windows: int = 3
    """… of the last so many."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a stretch of time. Times are seconds since 1970.

    `blocks` holds, by column, shape [parts, bins]: one row for each part of the window in order
    of time, 30 are good. One row alone is allowed; then only the reference's own overdispersion
    guards against traffic in bursts.
    """

    start: float
    end: float
    blocks: Mapping[str, Counts]

    @property
    def rows(self) -> int:
        """Rows counted; every column counts every row."""
        return max((int(blocks.sum()) for blocks in self.blocks.values()), default=0)


class MovedBin(msgspec.Struct, frozen=True):
    """A bin's share of the reference's rows and of the window's."""

    name: str
    before: float
    now: float


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One column in the last window. See `statistics.Comparison` for the figures."""

    name: str
    rows: int
    psi: float
    psi_star: float
    statistic: float
    dof: float
    overdispersion: float
    p: float
    q: float
    level: ColumnLevel
    since: float | None
    """Start of the first window of the current run of drifting ones; None without drift."""
    direction: str
    """What moved most, in words; empty without drift."""
    moved: list[MovedBin]
    """What moved, most first."""
    course: list[float]
    """`psi_star` of every window, oldest first."""
    drifting: list[bool]
    """Whether each window drifted, oldest first."""


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """The last window, column by column, those that moved most first."""

    model: str
    start: float | None
    end: float | None
    rows: int
    windows: int
    starts: list[float]
    """Start of every window, oldest first; a column's `course` has one value for each."""
    level: ColumnLevel
    columns: list[ColumnDrift]
    missing: list[str]
    """Columns of the reference that the last window did not count."""
    words: str
    """The whole in one sentence."""


def report(
    reference: Reference, windows: Sequence[Window], options: DriftOptions | None = None
) -> DriftReport:
    """Judge the last window, in the light of those before it.

    Args:
        reference: the frozen bins.
        windows: oldest first. Columns the reference does not have are passed over. From eight
            on, those before a window tell how restless traffic is without any drift.
        options: what is worth telling.

    Raises:
        ValueError: a window's counts have other bins than the reference.
    """
    options = options or DriftOptions()
    course = joined(windows, options.min_rows)
    judged = [
        _judge(reference, window, options, _unrest(reference, course[:position]))
        for position, window in enumerate(course)
    ]
    if not judged:
        return DriftReport(
            model=reference.model,
            start=None,
            end=None,
            rows=0,
            windows=0,
            starts=[],
            level="none",
            columns=[],
            missing=list(reference.columns),
            words="nothing was counted yet",
        )
    last = judged[-1]
    columns = [_column(name, reference.columns[name], judged, options) for name in last.comparisons]
    columns.sort(key=lambda one: (not one.drifting[-1], -one.psi_star, one.q, one.name))
    levels = {one.level for one in columns}
    return DriftReport(
        model=reference.model,
        start=last.window.start,
        end=last.window.end,
        rows=last.window.rows,
        windows=len(judged),
        starts=[one.window.start for one in judged],
        level="alert" if "alert" in levels else "inform" if "inform" in levels else "none",
        columns=columns,
        missing=[name for name in reference.columns if name not in last.comparisons],
        words=_words(columns, last.window.rows, options),
    )


def joined(windows: Sequence[Window], min_rows: int) -> list[Window]:
    """Join each window that has too few rows with the one before it; oldest first.

    The first has none before it: it takes those after it until it has enough.
    """
    result: list[Window] = []
    for window in windows:
        if result and (window.rows < min_rows or result[0].rows < min_rows):
            result[-1] = _join(result[-1], window)
        else:
            result.append(window)
    return result


def _join(one: Window, other: Window) -> Window:
    both = {
        name: np.concatenate((one.blocks[name], other.blocks[name]))
        if name in one.blocks and name in other.blocks
        else one.blocks[name]
        if name in one.blocks
        else other.blocks[name]
        for name in {**one.blocks, **other.blocks}
    }
    return Window(start=one.start, end=other.end, blocks=both)


class _Judged(msgspec.Struct, frozen=True):
    window: Window
    comparisons: dict[str, Comparison]
    q: dict[str, float]
    drifting: dict[str, bool]


def _unrest(reference: Reference, past: Sequence[Window]) -> float:
    """By how much more than chance the windows before differ from each other."""
    past = past[-_PAST:]
    names = [
        name
        for name, column in reference.columns.items()
        if all(
            name in one.blocks and one.blocks[name].shape[-1] == len(column.counts) for one in past
        )
    ]
    if len(past) < LEAST_BLOCKS:
        return 1.0
    return unrest(
        [reference_counts(reference.columns[name]) for name in names],
        [np.stack([one.blocks[name].sum(0) for one in past]) for name in names],
    )


def _judge(
    reference: Reference, window: Window, options: DriftOptions, least_effect: float
) -> _Judged:
    names = [name for name in reference.columns if name in window.blocks]
    for name in names:
        bins, expected = window.blocks[name].shape[-1], len(reference.columns[name].counts)
        if bins != expected:
            raise ValueError(
                f"column `{name}` was counted into {bins} bins, but the reference has {expected}: "
                "these are the counts of another reference"
            )
    compared = compare_columns(
        [reference_counts(reference.columns[name]) for name in names],
        [window.blocks[name] for name in names],
        least_effect,
    )
    q = dict(zip(names, q_values([one.p for one in compared]), strict=True))
    comparisons = dict(zip(names, compared, strict=True))
    drifting = {
        name: q[name] < options.alpha and comparisons[name].psi_star > options.min_effect
        for name in names
    }
    return _Judged(window, comparisons, q, drifting)


def _column(
    name: str, frozen: FrozenColumn, judged: Sequence[_Judged], options: DriftOptions
) -> ColumnDrift:
    last = judged[-1]
    found = last.comparisons[name]
    drifting = [one.drifting.get(name, False) for one in judged]
    course = [one.comparisons[name].psi_star if name in one.comparisons else 0.0 for one in judged]
    level: ColumnLevel = "inform" if drifting[-1] else "none"
    matters = name in options.important or name == options.score
    if matters and sum(drifting[-options.of_windows :]) >= options.confirm:
        level = "alert"
    first = len(drifting)
    while first and drifting[first - 1]:
        first -= 1
    moved = _moved(frozen, last.window.blocks[name].sum(0))
    return ColumnDrift(
        name=name,
        rows=found.rows,
        psi=found.psi,
        psi_star=found.psi_star,
        statistic=found.statistic,
        dof=found.dof,
        overdispersion=found.overdispersion,
        p=found.p,
        q=last.q[name],
        level=level,
        since=judged[first].window.start if drifting[-1] else None,
        direction=_direction(moved) if drifting[-1] else "",
        moved=moved,
        course=course,
        drifting=drifting,
    )


def _moved(frozen: FrozenColumn, window: Counts) -> list[MovedBin]:
    before, n = np.array(frozen.counts, np.int64), int(window.sum())
    if not n:
        return []
    p = (before + 0.5) / (before.sum() + 0.5 * len(before))
    q = (window + 0.5) / (n + 0.5 * len(before))
    part = (q - p) * np.log(q / p)
    names = frozen.names
    order = np.argsort(-part, kind="stable")[:_MOVED]
    return [
        MovedBin(names[bin_], float(before[bin_] / before.sum()), float(window[bin_] / n))
        for bin_ in order.tolist()
        if before[bin_] or window[bin_]
    ]


def _direction(moved: Sequence[MovedBin]) -> str:
    if not moved:
        return ""
    most = moved[0]
    return f"share of `{most.name}` {_percent(most.before)} → {_percent(most.now)}"


def _percent(share: float) -> str:
    """One digit after the point, or as many as show that it is not nothing."""
    digits = 1 if share == 0 or share >= 0.001 else min(6, -math.floor(math.log10(share)) - 2)
    return f"{100 * share:.{digits}f} %"


def _words(columns: Sequence[ColumnDrift], rows: int, options: DriftOptions) -> str:
    named = [one for one in columns if one.level != "none"]
    if rows < options.min_rows:
        few = f"; {rows} rows are fewer than min_rows, {options.min_rows}"
    else:
        few = ""
    if not named:
        return f"none of {len(columns)} columns drifted{few}"
    most = named[0]
    what = f": {most.direction}" if most.direction else ""
    return f"{len(named)} of {len(columns)} columns drifted, most of all `{most.name}`{what}{few}"
