"""Pictures of drift: a column's bins, its course over the windows, rows by window. Pure.

Each function gives one `<svg>`. Sizes are in pixels of a card that is `WIDTH` wide.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from serving.drift.standing import Distribution
from serving.report.arms import Arm
from serving.report.svg import Plot, Scale, element, figure, path, ticks, tip
from serving.report.words import clock, count, number, percent, tick

__all__ = ["WIDTH", "ArmBins", "Course", "Rows", "course", "histogram", "share_bars", "strip",
           "traffic"]  # fmt: skip

WIDTH: Final = 380.0
_SHORT: Final = {
    "missing": "∅", "nonfinite": "±∞", "below": "<", "above": ">", "new": "new", "other": "…",
}  # fmt: skip
_GAP: Final = 0.6
"""Between ordinary bins and the others, in bins."""

_WIDEST: Final = 64.0
_LETTER: Final = 6.0
"""Widths in pixels: most of a bin, and what a letter of a label takes."""


class ArmBins(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's rows in each bin of a column."""

    arm: Arm
    rows: Sequence[int]


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's PSI* by window: starts of the windows, values, whether each drifted."""

    arm: Arm
    starts: Sequence[float]
    values: Sequence[float]
    drifting: Sequence[bool]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's rows by window: (start, rows)."""

    arm: Arm
    windows: Sequence[tuple[float, int]]


def histogram(column: Distribution, arms: Sequence[ArmBins]) -> str:
    """Shares of rows by bin: the reference as wide bars, the first arm inside, others as marks.

    Bins for what is no ordinary value are drawn only if anything is in them.
    """
    plot = Plot(width=WIDTH, height=132)
    ordinary, special = _order(column, arms)
    shown = ordinary + special
    slots = len(shown) + (_GAP if ordinary and special else 0)
    left, right = plot.x_range
    each = min(_WIDEST, (right - left) / max(1.0, slots))
    left += (right - left - each * slots) / 2
    places = {
        bin_: left + each * (at + (_GAP if ordinary and at >= len(ordinary) else 0))
        for at, bin_ in enumerate(shown)
    }
    before = _shares(column.reference)
    now = [_shares(one.rows) for one in arms]
    highest = max((shares[at] for shares in [before, *now] for at in shown), default=0.0)
    scale = Scale(0.0, max(highest * 1.04, 1e-9), *plot.y_range)
    parts = [plot.grid(scale, ticks(0, scale.high, 3), lambda value: f"{100 * value:.3g} %")]
    for at, x in places.items():
        words = [f"{column.name} {column.bins[at]}", f"reference {percent(before[at])}"]
        bars = [_bar(x + each * 0.06, each * 0.88, scale, before[at], "bar reference")]
        for place, (one, shares) in enumerate(zip(arms, now, strict=True)):
            words.append(f"{one.arm.name} {percent(shares[at])}")
            if place == 0:
                bars.append(
                    _bar(x + each * 0.28, each * 0.44, scale, shares[at], f"bar {one.arm.css}")
                )
            else:
                y = scale(shares[at])
                bars.append(
                    element("line", css=f"mark {one.arm.css}", x1=x + each * 0.06,
                            x2=x + each * 0.94, y1=y, y2=y)
                )  # fmt: skip
        hover = element(
            "rect", css="hover", x=x, y=plot.top, width=each, height=scale.start - plot.top
        )
        parts.append(element("g", tip("\n".join(words)), hover, *bars, css="bin"))
    parts += [
        plot.label(x, plot.height - plot.bottom + 13, text)
        for x, text in _bin_labels(column, places, each)
    ]
    return figure(plot.width, plot.height, f"{column.name}: shares of rows by bin", *parts)


def _order(column: Distribution, arms: Sequence[ArmBins]) -> tuple[list[int], list[int]]:
    """Bins from left to right: ordinary ones with what is below and above, then the others."""
    filled = [
        at
        for at in range(column.special)
        if column.reference[at] or any(one.rows[at] for one in arms)
    ]
    low = [at for at in filled if column.bins[at] == "below"]
    high = [at for at in filled if column.bins[at] == "above"]
    rest = [at for at in filled if at not in low and at not in high]
    ordinary = list(range(column.special, len(column.bins)))
    if column.kind != "numeric":
        # They come by frequency; numbers are looked for by size.
        with contextlib.suppress(ValueError):
            ordinary.sort(key=lambda at: float(column.bins[at]))
    return low + ordinary + high, rest


def _shares(rows: Sequence[int]) -> list[float]:
    total = sum(rows)
    return [one / total if total else 0.0 for one in rows]


def _bar(x: float, width: float, scale: Scale, value: float, css: str) -> str:
    top = scale(value)
    return element("rect", css=css, x=x, y=top, width=width, height=max(0.0, scale.start - top))


def _bin_labels(
    column: Distribution, places: Mapping[int, float], each: float
) -> list[tuple[float, str]]:
    """Where which text stands below the bins: signs of special ones, then what still fits."""
    found = [
        (x + each / 2, _SHORT.get(column.bins[at], "?"))
        for at, x in places.items()
        if at < column.special
    ]
    inner = [at for at in places if at >= column.special]
    if column.kind == "numeric":
        # Edges stand between bins.
        labels = [(places[at], _edge(column.bins[at], 0)) for at in inner]
        if inner:
            labels.append((places[inner[-1]] + each, _edge(column.bins[inner[-1]], -1)))
    else:
        labels = [(places[at] + each / 2, _shortened(column.bins[at])) for at in inner]
    widest = _LETTER * max((len(text) for _, text in labels), default=0) + 6
    step = max(1, math.ceil(widest / each))
    for x, text in labels[::step]:
        if all(abs(x - at) > _LETTER / 2 * (len(text) + len(other)) + 3 for at, other in found):
            found.append((x, text))
    return found


def _edge(name: str, end: int) -> str:
    """One end of `LOW … <HIGH`, in few digits."""
    text = name.split(" … ")[end].lstrip("<")
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= 12 else f"{text[:11]}…"


def course(name: str, courses: Sequence[Course], threshold: float, seconds: float) -> str:
    """PSI* over the windows, one line an arm; windows that drifted and the last have a dot.

    Args:
        name: of the column.
        courses: one for each arm.
        threshold: from which a shift is told.
        seconds: length of a window.
    """
    plot = Plot(width=WIDTH, height=84, top=6)
    starts = [start for one in courses for start in one.starts]
    if not starts:
        return ""
    last = max(starts)
    x = Scale(min(starts), last if last > min(starts) else last + seconds, *plot.x_range)
    highest = max([threshold * 2, *(value for one in courses for value in one.values)])
    y = Scale(0.0, highest * 1.1, *plot.y_range, root=True)
    parts = [
        plot.grid(y, _root_ticks(threshold, y), tick),
        element("line", tip(f"told from {threshold:g}"), css="threshold", x1=plot.left,
                x2=plot.x_range[1], y1=y(threshold), y2=y(threshold)),
        _time_axis(plot, x),
    ]  # fmt: skip
    for one in reversed(courses):
        points = [(x(start), y(value)) for start, value in zip(one.starts, one.values, strict=True)]
        marks = [
            element("circle", tip(f"{one.arm.name}, {clock(start, x.high - x.low)}: PSI* "
                    f"{number(value)}{', drifted' if drifted else ''}"),
                    css="dot" if drifted else "dot quiet", cx=at[0], cy=at[1],
                    r=2.8 if drifted else 1.5)
            for at, start, value, drifted in zip(
                points, one.starts, one.values, one.drifting, strict=True
            )
            if drifted or start == one.starts[-1]
        ]  # fmt: skip
        line = element("path", css="line", d=path(points))
        parts.append(element("g", line, *marks, css=one.arm.css))
    return figure(plot.width, plot.height, f"{name}: PSI* by window", *parts)


def _root_ticks(threshold: float, scale: Scale) -> list[float]:
    """0, the threshold and powers of ten above it, as far as they do not touch."""
    found = [0.0]
    for value in (threshold, 0.1, 1.0, 10.0):
        far = abs(scale(value) - scale(found[-1])) >= 13
        if found[-1] < value <= scale.high and far:
            found.append(value)
    return found


def _time_axis(plot: Plot, scale: Scale) -> str:
    span = scale.high - scale.low
    middle = scale.low + span / 2
    wide = plot.width > 2 * WIDTH
    at = [scale.low + span * part / 6 for part in range(7)] if wide else []
    values = at or [scale.low, middle, scale.high]
    return plot.below(scale, values, lambda value: clock(value, span))


def strip(values: Sequence[float], drifting: Sequence[bool], threshold: float) -> str:
    """PSI* of the windows as cells, pale to dark; those that drifted are coloured.

    Cells of one shade are one path: a page of hundreds of columns stays small.
    """
    shades: dict[tuple[bool, float], list[int]] = {}
    for at, (value, drifted) in enumerate(zip(values, drifting, strict=True)):
        shade = round(_weight(value, threshold, drifted=drifted), 1)
        shades.setdefault((drifted, shade), []).append(at)
    width, height = 6, 14
    cells = [
        element(
            "path",
            css="cell drifted" if drifted else "cell",
            d="".join(f"M{at * width} 0h{width - 1}v{height}h-{width - 1}z" for at in places),
            opacity=shade,
        )
        for (drifted, shade), places in shades.items()
    ]
    whole = max(1, len(values) * width)
    picture = figure(whole, height, "PSI* by window, oldest first", *cells)
    return element("span", picture, css="strip", style=f"width:{whole}px")


def _weight(value: float, threshold: float, *, drifted: bool) -> float:
    least = max(threshold, 1e-9)
    if drifted:
        return min(1.0, 0.45 + 0.55 * math.sqrt(value / (30 * least)))
    return min(0.5, 0.1 + 0.4 * value / (3 * least))


def share_bars(share: float, expected: float) -> str:
    """A share of rows above the usual one, on one scale."""
    most = max(share, expected, 1e-9)
    rows = [("bar bad", share, 2.0), ("bar reference", expected, 9.0)]
    bars = [
        element("rect", css=css, x=0.0, y=y, width=max(0.8, 96 * value / most), height=5.5)
        for css, value, y in rows
    ]
    label = f"{percent(share)}, usually {percent(expected)}"
    return element("span", figure(98, 16, label, tip(label), *bars), css="strip",
                   style="width:98px")  # fmt: skip


def traffic(arms: Sequence[Rows], seconds: float) -> str:
    """Rows by window, one row of bars an arm above each other, on one scale of time."""
    # A stretch begins with its first rows; bars stand where its time begins.
    snapped = [[(start // seconds * seconds, rows) for start, rows in one.windows] for one in arms]
    starts = [start for windows in snapped for start, _ in windows]
    if not starts:
        return ""
    band = 62.0
    plot = Plot(width=3 * WIDTH, height=band * len(arms) + 24, left=52)
    x = Scale(min(starts), max(starts) + seconds, *plot.x_range)
    parts = [_time_axis(plot, x)]
    wide = max(1.0, (x(x.low + seconds) - x(x.low)) * 0.86)
    for place, (one, windows) in enumerate(zip(arms, snapped, strict=True)):
        bottom = plot.top + band * (place + 1) - 8
        most = max((rows for _, rows in windows), default=0)
        y = Scale(0.0, max(1.0, most * 1.02), bottom, bottom - band + 20)
        bars = [
            element("rect", tip(f"{one.arm.name}, {clock(start, x.high - x.low)}: "
                    f"{count(rows)} rows"),
                    css="bar", x=x(start), y=y(rows), width=wide, height=bottom - y(rows))
            for start, rows in windows
        ]  # fmt: skip
        parts += [
            plot.grid(y, [0.0, float(most)], lambda value: count(int(value))),
            element("g", *bars, css=one.arm.css),
            plot.label(plot.left + 2, bottom - band + 15, one.arm.name, "start"),
        ]
    return figure(plot.width, plot.height, "Rows by window", *parts)
