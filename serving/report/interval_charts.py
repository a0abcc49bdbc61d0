"""Pictures of figures with intervals: over time, by slice, calibration, how long labels take. Pure.

Each function gives one `<svg>`; an interval that is not known is left out, never drawn as 0.
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import msgspec

from serving.performance.calibration import CalibrationPoint
from serving.performance.coverage import Coverage, DelayPoint
from serving.report.arms import Arm
from serving.report.charts import WIDTH
from serving.report.svg import Plot, Scale, element, escaped, figure, path, ticks, tip
from serving.report.words import between, clock, count, number, percent, span, tick

__all__ = ["Estimate", "ForestRow", "Trend", "calibration", "covered", "delays", "forest", "trend"]

_MOST_DOTS: Final = 120
"""Points of a line that get a dot with words; of more only the line is drawn."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A value, its interval if it is known, and the rows it is of."""

    value: float
    low: float | None = None
    high: float | None = None
    rows: int = 0


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's estimates by time, ascending."""

    arm: Arm
    points: Sequence[tuple[float, Estimate]]


def trend(name: str, trends: Sequence[Trend], *, share: bool) -> str:
    """A figure over time, one line an arm, its intervals as a band; a share is in percent."""
    words = percent if share else number
    plot = Plot(width=WIDTH, height=140, left=46)
    moments = [at for one in trends for at, _ in one.points]
    if not moments:
        return ""
    estimates = [estimate for one in trends for _, estimate in one.points]
    x = Scale(min(moments), max(moments), *plot.x_range)
    y = Scale(*_range(estimates), *plot.y_range)
    span = x.high - x.low
    parts = [plot.grid(y, ticks(y.low, y.high, 4), _percent_tick if share else tick)]
    parts.append(
        plot.below(x, sorted({x.low, x.low + span / 2, x.high}), lambda at: clock(at, span))
    )
    for one in reversed(trends):
        line = [(x(at), y(estimate.value)) for at, estimate in one.points]
        dots = []
        if len(line) <= _MOST_DOTS:
            dots = [
                element("circle", tip(f"{one.arm.name}, {clock(at, span)}: "
                        f"{_described(estimate, words)}"),
                        css="dot", cx=x(at), cy=y(estimate.value), r=2.2)
                for at, estimate in one.points
            ]  # fmt: skip
        band = [element("path", css="band", d=edge) for edge in _bands(one.points, x, y)]
        parts.append(
            element("g", *band, element("path", css="line", d=path(line)), *dots, css=one.arm.css)
        )
    return figure(plot.width, plot.height, f"{name} over time", *parts)


def _range(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """What an axis shows: all values; all intervals, but those three times as wide as most."""
    values = [one.value for one in estimates]
    widths = sorted(
        one.high - one.low for one in estimates if one.low is not None and one.high is not None
    )
    usual = 3 * widths[len(widths) // 2] if widths else math.inf
    for one in estimates:
        if one.low is not None and one.high is not None and one.high - one.low <= usual:
            values += [one.low, one.high]
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 1e-3)
    return low - room, high + room


def _bands(points: Sequence[tuple[float, Estimate]], x: Scale, y: Scale) -> list[str]:
    """Closed paths around the intervals, one for each stretch where they are known."""
    found = []
    for known, stretch in groupby(points, key=lambda point: point[1].low is not None):
        if not known:
            continue
        members = list(stretch)
        upper = [(x(at), y(one.high)) for at, one in members if one.high is not None]
        lower = [(x(at), y(one.low)) for at, one in members if one.low is not None]
        if len(members) == 1:
            [(at, top)], [(_, bottom)] = upper, lower
            upper, lower = [(at - 2, top), (at + 2, top)], [(at - 2, bottom), (at + 2, bottom)]
        found.append(path([*upper, *reversed(lower)], close=True))
    return found


def _described(estimate: Estimate, words: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        around = "too few rows for an interval"
    else:
        around = between(words(estimate.low), words(estimate.high))
    return f"{words(estimate.value)} ({around}; {count(estimate.rows)} rows)"


def calibration(arms: Sequence[tuple[Arm, Sequence[CalibrationPoint]]]) -> str:
    """What came true against what was scored; on the diagonal scores mean what they say."""
    plot = Plot(width=WIDTH, height=300, left=46, bottom=34)
    x, y = Scale(0.0, 1.0, *plot.x_range), Scale(0.0, 1.0, *plot.y_range)
    fifths = [0.0, 0.25, 0.5, 0.75, 1.0]
    parts = [
        plot.grid(y, fifths, _percent_tick),
        plot.below(x, fifths, tick),
        plot.label((plot.left + plot.width) / 2, plot.height - 5, "mean score of the group"),
        element("line", css="threshold", x1=x(0.0), y1=y(0.0), x2=x(1.0), y2=y(1.0)),
    ]
    for arm, points in reversed(arms):
        marks = []
        for one in points:
            words = (
                f"{arm.name}: scored {percent(one.score)}, came true {percent(one.value)} "
                f"({percent(one.low)} to {percent(one.high)}); {percent(one.share)} of rows"
            )
            at = x(one.score)
            whisker = element("line", css="whisker", x1=at, x2=at, y1=y(one.low), y2=y(one.high))
            dot = element("circle", css="dot", cx=at, cy=y(one.value), r=3.2)
            marks.append(element("g", tip(words), whisker, dot))
        line = element("path", css="line thin", d=path([(x(p.score), y(p.value)) for p in points]))
        parts.append(element("g", line, *marks, css=arm.css))
    return figure(plot.width, plot.height, "Calibration: came true by score", *parts)


class ForestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One group of a slice: an estimate a measure (None: not known), and how it stands out.

    `beyond` are measures whose difference to everybody else is proven to be beyond the tolerance.
    """

    name: str
    rows: int
    estimates: Sequence[Estimate | None]
    beyond: Sequence[bool]


def forest(
    label: str,
    arm: Arm,
    measures: Sequence[str],
    groups: Sequence[ForestRow],
    overall: Sequence[float | None],
) -> str:
    """Groups below each other, measures beside each other, each estimate with its interval.

    Args:
        label: what groups are told apart by.
        arm: whose figures.
        measures: names of the measures.
        groups: from top to bottom.
        overall: the same measures of all rows, drawn as a line.
    """
    row, head, names = 20.0, 24.0, 168.0
    width = 3 * WIDTH
    each = (width - names) / max(1, len(measures))
    height = head + row * len(groups) + 24
    parts = [
        element("text", "group", css="head", x=6.0, y=15.0),
        element("text", "rows", css="head", x=names - 16, y=15.0, text_anchor="end"),
    ]
    for at, group in enumerate(groups):
        y = head + row * at
        if at % 2 == 0:
            parts.append(element("rect", css="zebra", x=0.0, y=y, width=width, height=row))
        parts += [
            element("text", tip(group.name), _cut(group.name), css="name", x=6.0, y=y + 14),
            element("text", count(group.rows), css="label", x=names - 16, y=y + 14,
                    text_anchor="end"),
        ]  # fmt: skip
    for place, measure in enumerate(measures):
        left = names + each * place
        found = [group.estimates[place] for group in groups]
        middle = overall[place]
        known = [one for one in found if one is not None]
        if not known:
            continue
        values = [*known, *([Estimate(value=middle)] if middle is not None else [])]
        x = Scale(*_range(values), left + 20, left + each - 20)
        parts.append(
            element("text", _cut(measure), css="head", x=left + each / 2, y=15.0,
                    text_anchor="middle")
        )  # fmt: skip
        bottom = head + row * len(groups)
        if middle is not None:
            parts.append(
                element("line", tip(f"all: {number(middle)}"), css="threshold", x1=x(middle),
                        x2=x(middle), y1=head - 2, y2=bottom)
            )  # fmt: skip
        for at, one in enumerate(found):
            if one is not None:
                words = f"{groups[at].name}: {_described(one, number)}"
                css = arm.css
                if groups[at].beyond[place]:
                    words += "; differs from everybody else beyond the tolerance"
                    css = "standsout"
                parts.append(_whisker(one, x, head + row * at + row / 2, words, css))
        parts += [
            element("text", tick(value), css="label", x=x(value), y=bottom + 14,
                    text_anchor="middle")
            for value in ticks(x.low, x.high, 3)
        ]  # fmt: skip
    return figure(width, height, f"{label}: figures by group, {arm.name}", *parts)


def _whisker(one: Estimate, x: Scale, y: float, words: str, css: str) -> str:
    line = ""
    if one.low is not None and one.high is not None:
        line = element("line", css="whisker", x1=x(one.low), x2=x(one.high), y1=y, y2=y)
    dot = element("circle", css="dot", cx=x(one.value), cy=y, r=3.6)
    return element("g", tip(words), line, dot, css=css)


def _cut(text: str) -> str:
    return escaped(text if len(text) <= 20 else f"{text[:19]}…")


def covered(found: Sequence[Coverage], css: Sequence[str], least: float = 0.0) -> str:
    """Labelled predictions of those whose time for a label is over, one bar a version."""
    row = 34.0
    plot = Plot(width=WIDTH, height=row * len(found) + 30, left=8, bottom=22)
    x = Scale(0.0, 1.0, *plot.x_range)
    parts = [plot.below(x, [0.0, 0.5, 1.0], _percent_tick)]
    for at, (one, style) in enumerate(zip(found, css, strict=True)):
        y = plot.top + row * at + 14
        words = f"{one.name}: {percent(one.value)} of {count(one.rows)} predictions"
        parts += [
            plot.label(plot.left, y - 3, words, "start"),
            element("rect", css="bar reference", x=x(0.0), y=y, width=x(1.0) - x(0.0), height=10.0),
            element(
                "g",
                tip(f"{percent(one.low)} to {percent(one.high)}"),
                element("rect", css="bar", x=x(0.0), y=y, width=x(one.value) - x(0.0), height=10.0),
                element("line", css="whisker ink", x1=x(one.low), x2=x(one.high), y1=y + 5,
                        y2=y + 5),
                css=style,
            ),
        ]  # fmt: skip
    if least > 0:
        parts.append(
            element("line", tip(f"min_coverage {percent(least)}"), css="threshold", x1=x(least),
                    x2=x(least), y1=plot.top, y2=plot.height - plot.bottom)
        )  # fmt: skip
    return figure(plot.width, plot.height, "Label coverage by version", *parts)


def delays(points: Sequence[DelayPoint]) -> str:
    """The share of predictions that had their label by a time; a single point gives no picture."""
    plot = Plot(width=WIDTH, height=170, left=46)
    if len(points) < 2:
        return ""
    least, most = math.log(points[0].seconds), math.log(points[-1].seconds)
    x = Scale(least, most, *plot.x_range)
    y = Scale(0.0, max(0.05, min(1.0, 1.1 * max(point.high for point in points))), *plot.y_range)
    places = [(x(math.log(point.seconds)), point) for point in points]
    upper = [(at, y(point.high)) for at, point in places]
    lower = [(at, y(point.low)) for at, point in places]
    dots = [
        element("circle", tip(f"within {span(point.seconds)}: {percent(point.value)} "
                f"({percent(point.low)} to {percent(point.high)}) of {count(point.rows)}"),
                css="dot", cx=at, cy=y(point.value), r=2.8)
        for at, point in places
    ]  # fmt: skip
    parts = [
        plot.grid(y, ticks(0.0, y.high, 4), _percent_tick),
        element(
            "g",
            element("path", css="band", d=path([*upper, *reversed(lower)], close=True)),
            element("path", css="line", d=path([(at, y(point.value)) for at, point in places])),
            *dots,
            css="other",
        ),
    ]
    taken = -math.inf
    for at, point in places:
        if at - taken >= 40:
            side = "end" if at > plot.x_range[1] - 10 else "middle"
            parts.append(plot.label(at, plot.height - plot.bottom + 13, span(point.seconds), side))
            taken = at
    return figure(plot.width, plot.height, "Labels that had come, by time since prediction", *parts)


def _percent_tick(share: float) -> str:
    return f"{tick(round(100 * share, 6))} %"
