"""Goodput under overload, in tables and a picture. Pure."""

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from bench_report import describe
from overload_points import AFTER_SECONDS, Point, Recovery, Server

from serving.report.svg import Scale, element, escaped, figure, path

__all__ = ["Found", "lines", "page", "picture", "summary"]

BEGIN: Final = "<!-- figures: begin (python loadtests/overload.py --render) -->"
END: Final = "<!-- figures: end -->"

_COLUMNS: Final = (
    "load", "capacity/s", "offered/s", "good/s", "of capacity",
    "refused/s", "504/s", "late/s", "lost/s", "errors/s",
    "p50 ms", "p99 ms", "refused p99 ms", "generator late p99 ms",
)  # fmt: skip
_COLOURS: Final = {
    "sluice": "#0b7285",
    "uvicorn": "#e8590c",
    "ray-best": "#5f3dc4",
    "ray-default": "#868e96",
}


class Found(msgspec.Struct, kw_only=True):
    """All figures of one or more runs of the tool."""

    about: dict[str, Any]
    """`bench_report.machine()`."""

    run_ms: float
    deadline_ms: float
    servers: list[Server] = []

    def joined(self, newer: "Found") -> "Found":
        """These figures and newer ones; a server measured again is replaced.

        If only its spike was, only that.
        """
        servers = {one.name: one for one in self.servers}
        for one in newer.servers:
            before = servers.get(one.name)
            points = one.points or (before.points if before else [])
            servers[one.name] = msgspec.structs.replace(one, points=points)
        return msgspec.structs.replace(newer, servers=list(servers.values()))


def _cells(one: Point) -> list[str]:
    rates = (one.refused, one.expired, one.late, one.lost, one.errors)
    void = "" if one.valid else " void"
    return [
        f"{one.factor:g}x{void}",
        f"{one.capacity:.0f}",
        f"{one.offered:.0f}",
        f"{one.goodput:.0f}",
        f"{one.share:.0%}",
        *(f"{rate:.1f}".removesuffix(".0") for rate in rates),
        _ms(one.p50),
        _ms(one.p99),
        _ms(one.refused_p99),
        _ms(one.lag_p99),
    ]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"


def lines(server: Server) -> list[str]:
    """The table of one server, for a terminal: a head, and a line for each load."""
    rows = [list(_COLUMNS), *(_cells(one) for one in server.points)]
    widths = [max(len(name), 7) for name in _COLUMNS]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def summary(server: Server) -> list[str]:
    """Bars of goodput, and what the spike left behind."""
    bars = [
        f"{one.factor:5g}x  {'█' * round(40 * one.share):48}  {one.share:.0%} of capacity"
        for one in server.points
    ]
    return [*bars, f"       {_spike(server.recovery)}"] if server.recovery else bars


def _spike(one: Recovery) -> str:
    back = (
        f"not back within {AFTER_SECONDS:g} s of its end"
        if one.seconds is None
        else "back at once"
        if one.seconds == 0
        else f"back {one.seconds:.1f} s after its end"
    )
    offered = f" ({one.offered:.0f}/s)" if one.offered else ""
    return f"{one.factor:g}x{offered} for {one.lasted:g} s: {one.goodput:.0f}/s in time, {back}"


def page(text: str, found: Found) -> str:
    """The page with the figures between its marks replaced.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for figures; write {BEGIN} and {END} into it")
    return before + BEGIN + "\n" + "\n".join(_markdown(found)) + "\n" + END + after


def _markdown(found: Found) -> list[str]:
    most = f"{max(one.factor for server in found.servers for one in server.points):g}x"
    head = ("server", "capacity/s", "peak", f"at {most}", "of peak", f"refused p99 at {most}",
            "after a spike")  # fmt: skip
    parts = [
        "",
        *describe(found.about).splitlines(),
        f"A run takes {found.run_ms:g} ms, a request has {found.deadline_ms:g} ms.",
        "",
        f"| {' | '.join(head)} |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for server in found.servers:
        last = max(server.points, key=lambda one: one.factor)
        parts.append(
            f"| {server.name} | {last.capacity:.0f} | {server.peak:.0%} | {last.share:.0%} "
            f"| {last.share / server.peak:.0%} | {_words(last)} "
            f"| {_spike(server.recovery) if server.recovery else '-'} |"
        )
    for server in found.servers:
        parts += ["", f"### {server.name}", "", "| " + " | ".join(_COLUMNS) + " |"]
        parts.append("|" + "--:|" * len(_COLUMNS))
        parts += ["| " + " | ".join(_cells(one)) + " |" for one in server.points]
    return [*parts, ""]


def _words(one: Point) -> str:
    return "nobody refused" if one.refused_p99 is None else f"{one.refused_p99 * 1e3:.1f} ms"


_WIDTH: Final = 640.0
_HEIGHT: Final = 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 530.0, 16.0, 280.0


def picture(servers: Sequence[Server]) -> str:
    """Goodput over offered load, both in capacities of each server, as SVG."""
    most = max(one.factor for server in servers for one in server.points)
    x = Scale(0.0, most, _LEFT, _RIGHT)
    y = Scale(0.0, 1.2, _BOTTOM, _TOP)
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [
            element("line", x1=_LEFT, x2=_RIGHT, y1=y(value), y2=y(value), stroke="#dee2e6"),
            _text(f"{value:g}", _LEFT - 8, y(value) + 4, "end"),
        ]
    parts += [
        _text(f"{value}x", x(value), _BOTTOM + 18, "middle")
        for value in range(1, math.floor(most) + 1)
    ]
    parts.append(_text("offered / capacity", (_LEFT + _RIGHT) / 2, _BOTTOM + 36, "middle"))
    parts.append(_text("in time / capacity", _LEFT, _TOP - 4, "start"))
    for server in servers:
        colour = _COLOURS.get(server.name, "#212529")
        points = [(x(one.factor), y(min(one.share, 1.2))) for one in server.points]
        parts.append(element("path", d=path(points), fill="none", stroke=colour, stroke_width=2))
        parts += [element("circle", cx=a, cy=b, r=3, fill=colour) for a, b in points]
        at = _TOP + 20 + 20 * [one.name for one in servers].index(server.name)
        parts.append(element("circle", cx=_RIGHT + 18, cy=at - 4, r=4, fill=colour))
        parts.append(_text(server.name, _RIGHT + 28, at, "start"))
    label = "Goodput by offered load, in multiples of each server's capacity"
    return figure(_WIDTH, _HEIGHT, label, *parts) + "\n"


def _text(words: str, x: float, y: float, anchor: str) -> str:
    return element(
        "text",
        escaped(words),
        x=x,
        y=y,
        text_anchor=anchor,
        font_family="sans-serif",
        font_size=12,
        fill="#495057",
    )
