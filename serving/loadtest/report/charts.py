"""Pictures of a load test: latency and rates over time, latency by percentile, shares. Pure.

Each function gives one `<svg>`, as wide as there is room for; sizes are pixels of `WIDTH`.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from serving.loadtest.report.document import Slice
from serving.report.svg import Plot, Scale, element, figure, path, ticks, tip
from serving.report.words import count, percent, short_time

__all__ = ["COLOURS", "Line", "Mark", "latency", "percentiles", "rates", "shares"]

WIDTH: Final = 1140.0
_HEIGHT: Final = 250.0
_LEFT: Final = 58.0
_TOP: Final = 20.0
"""Room for the names of phases."""

_SHARES_WIDTH: Final = 380.0
_MOST_DOTS: Final = 120
_LEAST_SECONDS: Final = 1e-7
"""The unit of the histograms; 0 has no logarithm."""

COLOURS: Final = ("production", "canary", "shadow", "other")
"""Classes of the style sheet for lines that have no meaning of their own."""

_SHARES: Final = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line: its name, its colour's class, a value for each slice (None leaves a gap)."""

    name: str
    css: str
    values: Sequence[float | None]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A value that must not be exceeded, and whose it is."""

    name: str
    value: float
    css: str = ""
    """The class of the line that it is a limit of; empty for none."""

    start: float = 0.0
    end: float | None = None
    """From when to when it holds, in seconds; None: to the end."""


class _Axis(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at the left of a picture over time, and what is drawn behind its lines."""

    label: str
    y: Callable[[float], float]
    words: Callable[[float], str]
    behind: str


def latency(slices: Sequence[Slice], lines: Sequence[Line], marks: Sequence[Mark] = ()) -> str:
    """Latency over time on a logarithmic axis, one line a quantile; empty without a value."""
    known = [value for line in lines for value in line.values if value is not None and value > 0]
    if not known:
        return ""
    plot = Plot(width=WIDTH, height=_HEIGHT, left=_LEFT, top=_TOP)
    logarithmic = _Logarithmic.of(plot, [*known, *_limits(marks)])
    end = slices[-1].start + slices[-1].seconds
    x = Scale(0.0, end, *plot.x_range)
    axis = _Axis(
        label="Latency over time",
        y=logarithmic,
        words=short_time,
        behind=logarithmic.grid() + logarithmic.thresholds(marks, x),
    )
    return _over_time(plot, axis, slices, lines)


def rates(slices: Sequence[Slice], lines: Sequence[Line]) -> str:
    """Requests a second over time, from 0."""
    plot = Plot(width=WIDTH, height=_HEIGHT, left=_LEFT, top=_TOP)
    known = [value for line in lines for value in line.values if value is not None]
    if not known:
        return ""
    y = Scale(0.0, max(1.0, max(known) * 1.05), *plot.y_range)
    axis = _Axis(
        label="Requests a second over time",
        y=y,
        words=lambda value: f"{value:,.1f}/s",
        behind=plot.grid(y, ticks(0.0, y.high, 4), lambda value: f"{value:,.6g}"),
    )
    return _over_time(plot, axis, slices, lines)


def _over_time(plot: Plot, axis: _Axis, slices: Sequence[Slice], lines: Sequence[Line]) -> str:
    end = slices[-1].start + slices[-1].seconds
    x = Scale(0.0, end, *plot.x_range)
    at = [one.start + one.seconds / 2 for one in slices]
    parts = [*_warm(plot, slices, x), axis.behind, *_phases(plot, slices, x)]
    parts.append(plot.below(x, ticks(0.0, end, 6), lambda value: f"{value:g} s"))
    for line in reversed(lines):
        stretches = _stretches(list(zip(at, line.values, strict=True)))
        drawn = [
            element(
                "path", css="line", d=path([(x(when), axis.y(value)) for when, value in stretch])
            )
            for stretch in stretches
            if len(stretch) > 1
        ]
        shown = [point for stretch in stretches for point in stretch]
        # A lone point has no line, and would not be seen without its dot.
        if len(shown) > _MOST_DOTS:
            shown = [stretch[0] for stretch in stretches if len(stretch) == 1]
        drawn += [
            element("circle", tip(f"{line.name}, {when:g} s: {axis.words(value)}"), css="dot",
                    cx=x(when), cy=axis.y(value), r=2.2)
            for when, value in shown
        ]  # fmt: skip
        parts.append(element("g", *drawn, css=line.css))
    return figure(plot.width, plot.height, axis.label, *parts)


def _stretches(
    points: Sequence[tuple[float, float | None]],
) -> list[list[tuple[float, float]]]:
    """Points without gaps between them."""
    found: list[list[tuple[float, float]]] = [[]]
    for when, value in points:
        if value is not None:
            found[-1].append((when, value))
        elif found[-1]:
            found.append([])
    return [one for one in found if one]


def _warm(plot: Plot, slices: Sequence[Slice], x: Scale) -> list[str]:
    """What counts for nothing, shaded."""
    return [
        element("rect", tip("warm-up: counts for no SLO"), css="zebra", x=x(one.start),
                y=plot.top, width=x(one.start + one.seconds) - x(one.start),
                height=plot.height - plot.top - plot.bottom)
        for one in slices if one.warmup
    ]  # fmt: skip


def _phases(plot: Plot, slices: Sequence[Slice], x: Scale) -> list[str]:
    """A line where a phase begins, and its name if there is room."""
    starts = [(slices[0].start, slices[0].phase)] + [
        (after.start, after.phase) for before, after in pairwise(slices)
        if after.phase != before.phase
    ]  # fmt: skip
    if len(starts) < 2:
        return []
    ends = [start for start, _ in starts[1:]] + [slices[-1].start + slices[-1].seconds]
    parts = []
    for (start, name), end in zip(starts, ends, strict=True):
        where = x(start)
        parts.append(element("line", tip(name), css="threshold", x1=where, x2=where, y1=plot.top,
                             y2=plot.height - plot.bottom))  # fmt: skip
        if x(end) - where > 6 * len(name) + 6:
            parts.append(plot.label(where + 2, plot.top - 7, name, "start"))
    return parts


def percentiles(histogram: Sequence[tuple[float, int]], marks: Sequence[Mark] = ()) -> str:
    """Latency by percentile: each step to the right has a tenth of the requests before it.

    `marks` are at most values of quantiles; their names are not drawn. Empty without requests.
    """
    total = sum(number for _, number in histogram)
    if not total:
        return ""
    # Beyond 1 - 1/total there is one request, and no further percentile.
    most = math.log10(total) if total > 1 else 0.3
    plot = Plot(width=WIDTH, height=_HEIGHT, left=_LEFT, top=_TOP)
    x = Scale(0.0, max(most, 1.0), *plot.x_range)
    y = _Logarithmic.of(plot, [*(value for value, _ in histogram), *_limits(marks)])
    points: list[tuple[float, float]] = []
    below = 0
    for value, number in histogram:
        height = y(value)
        start = x(-math.log10(1 - below / total))
        below += number
        end = x(-math.log10(1 - below / total)) if below < total else x(x.high)
        points += [(start, height), (end, height)]
    shown = [share for share in _SHARES if -math.log10(1 - share) <= x.high + 1e-9]
    parts = [y.grid(), y.thresholds(marks, x)]
    places = {-math.log10(1 - share): f"p{100 * share:g}" for share in shown}
    parts.append(plot.below(x, list(places), lambda value: places[value]))
    parts += [
        element("line", css="grid", x1=x(one), x2=x(one), y1=plot.top, y2=plot.height - plot.bottom)
        for one in places
    ]
    line = element("path", tip(f"{count(total)} requests"), css="line", d=path(_thinned(points)))
    parts.append(element("g", line, css="production"))
    return figure(plot.width, plot.height, "Latency by percentile", *parts)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Steps closer than a third of a pixel are not seen."""
    found = [points[0]]
    for one in points[1:-1]:
        if math.dist(one, found[-1]) >= 0.3:
            found.append(one)
    return [*found, points[-1]]


def shares(table: Mapping[str, int], total: int, bad: Collection[str] = ()) -> str:
    """Parts of a whole as bars, the largest first; those in `bad` are red."""
    ordered = sorted(table.items(), key=lambda one: (-one[1], one[0]))
    row = 22.0
    plot = Plot(width=_SHARES_WIDTH, height=row * len(ordered) + 4, left=150, right=112, bottom=0)
    x = Scale(0.0, 1.0, *plot.x_range)
    parts = []
    for at, (name, number) in enumerate(ordered):
        share = number / total if total else 0.0
        top = at * row + 4
        short = name if len(name) <= 24 else f"{name[:23]}…"
        bar = element(
            "rect", css="bar", x=x(0), y=top, width=max(0.8, x(share) - x(0)), height=14.0
        )
        parts.append(
            element(
                "g",
                tip(f"{name}: {count(number)} of {count(total)}"),
                plot.label(plot.left - 6, top + 11, short, "end"),
                bar,
                plot.label(x(share) + 6, top + 11, f"{percent(share)} ({count(number)})", "start"),
                css="bad" if name in bad else COLOURS[min(at, len(COLOURS) - 1)],
            )
        )
    return figure(plot.width, plot.height, "Shares", *parts)


# --- logarithmic axis ------------------------------------------------------------------------


class _Logarithmic(msgspec.Struct, frozen=True, kw_only=True):
    """An axis of seconds, a power of ten as far from the next everywhere."""

    plot: Plot
    scale: Scale
    """Of powers of ten."""

    values: Sequence[float]
    """Seconds that are written at it."""

    @classmethod
    def of(cls, plot: Plot, shown: Sequence[float]) -> "_Logarithmic":
        """The axis on which all these seconds have room."""
        powers = [math.log10(max(value, _LEAST_SECONDS)) for value in shown]
        low, high = min(powers), max(powers)
        room = max((high - low) * 0.06, 0.05)
        low, high = low - room, high + room
        steps = (1, 2, 5) if high - low < 2.5 else (1,)
        found = [
            step * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for step in steps
            if low <= math.log10(step * 10.0**power) <= high
        ]
        # Less than one step apart: its ends are all there is to say.
        values = found if len(found) > 1 else [10.0**low, 10.0**high]
        return cls(plot=plot, scale=Scale(low, high, *plot.y_range), values=values)

    def __call__(self, seconds: float) -> float:
        """Where a time is, in pixels."""
        return self.scale(math.log10(max(seconds, _LEAST_SECONDS)))

    def grid(self) -> str:
        """Lines with their times."""
        powers = [math.log10(value) for value in self.values]
        return self.plot.grid(self.scale, powers, lambda power: short_time(10.0**power))

    def thresholds(self, marks: Sequence[Mark], x: Scale) -> str:
        """A dashed line for each mark, for as long as it holds."""
        drawn = []
        for mark in marks:
            if mark.value <= 0:
                continue
            end, height = x.high if mark.end is None else mark.end, self(mark.value)
            line = element(
                "line",
                tip(f"{mark.name}: at most {short_time(mark.value)}"),
                css="limit" if mark.css else "threshold",
                x1=x(mark.start),
                x2=x(end),
                y1=height,
                y2=height,
            )
            drawn.append(element("g", line, css=mark.css) if mark.css else line)
        return "".join(drawn)


def _limits(marks: Sequence[Mark]) -> list[float]:
    return [mark.value for mark in marks if mark.value > 0]
