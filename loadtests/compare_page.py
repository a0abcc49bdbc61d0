"""The comparison in words: tables of Markdown, readable in a terminal too. Pure."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from bench_report import describe
from compare_figures import Report, RowReport, Sample, Spread, over_floor, spread, verdicts

__all__ = ["BEGIN", "END", "MissingMarks", "around", "text", "written"]

BEGIN: Final = "<!-- figures: written by `python loadtests/compare.py --write`, not by hand -->"
END: Final = "<!-- end of figures -->"
LATE_US: Final = 1000.0
"""A generator that lets its 99th percentile leave later than this is marked."""

BAR_CELLS: Final = 20


class MissingMarks(Exception):
    """The page has no place for figures."""


def written(page: str, report: Report) -> str:
    """The page with these figures between its marks. Raises MissingMarks."""
    before, after = around(page)
    return f"{before}{BEGIN}\n\n{text(report)}\n{END}{after}"


def around(page: str) -> tuple[str, str]:
    """What people wrote before the figures and after them.

    Raises:
        MissingMarks: The page does not say where figures go.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise MissingMarks(f"the page needs a line `{BEGIN}` and after it one `{END}`")
    return before, after


def text(report: Report) -> str:
    """Everything there is to say, ending in a line feed."""
    parts = [_how(report), _aims(report), _cpu(report), _latency(report), _running(report)]
    parts.append(_missing(report))
    return "\n\n".join(part for part in parts if part) + "\n"


# --- parts -------------------------------------------------------------------------------------


def _how(report: Report) -> str:
    settings = report.settings
    minutes = report.took_seconds / 60
    made_with = ", ".join(report.versions)
    times = "one round" if settings.rounds == 1 else f"{settings.rounds} rounds"
    rounds = (
        f"{times}, {settings.seconds:g} s a measurement, {minutes:.0f} minutes."
        " Medians over the rounds, least to most in brackets."
    )
    return "\n".join(
        [
            "```console",
            f"$ {report.command}",
            "```",
            "",
            f"{describe(report.about)}, {made_with}.".replace("\n", ". "),
            rounds,
        ]
    )


def _aims(report: Report) -> str:
    rows = [
        (
            verdict.words,
            f"≤ {verdict.limit:g} ×",
            "not measured" if verdict.found is None else f"{_spread(verdict.found, 2)} ×",
            {True: "met", False: "**missed**", None: ""}[verdict.met],
        )
        for verdict in verdicts(report)
    ]
    return _titled("Aims", _table(("what", "aim", "found", ""), rows, right=(1, 2)))


def _measured(report: Report) -> list[RowReport]:
    return [row for row in report.rows if row.samples]


def _cpu(report: Report) -> str:
    measured = _measured(report)
    most = max((over_floor(row).median for row in measured), default=1.0)
    rows = [
        (
            row.title,
            _spread(_over(row, lambda one: one.cpu_us), 1),
            _spread(over_floor(row), 2),
            _bar(over_floor(row).median, most),
            f"{_median(row, lambda one: one.idle_percent):.0f} %",
            _spread(_over(row, lambda one: one.requests_per_second), 0),
        )
        for row in measured
    ]
    head = ("server", "CPU µs/request", "× the floor", "", "idle, of a core", "requests/s")
    connections = report.settings.connections
    return _titled(
        f"CPU per request, {connections} connections, closed loop",
        _table(head, rows, right=(1, 2, 4, 5)),
        "Bars are logarithmic. Requests per second include the generator's work on the same cores.",
    )


def _latency(report: Report) -> str:
    rates = report.settings.rates
    late = False
    rows = []
    for row in _measured(report):
        cells = [row.title, _spread(_over(row, lambda one: one.alone_p50_us), 0)]
        for rate in rates:
            found = [at for sample in row.samples for at in sample.rates if at.rate == rate]
            marked = any(at.late_us > LATE_US for at in found)
            late = late or marked
            for figures in ([at.p50_us for at in found], [at.p99_us for at in found]):
                cell = _spread(spread(figures), 0) if figures else "–"
                cells.append(f"{cell} †" if marked else cell)
        rows.append(tuple(cells))
    head = ("server", "p50, one connection")
    head += tuple(f"{which} at {rate:,g}/s" for rate in rates for which in ("p50", "p99"))
    notes = "A dash: the server cannot take the rate here, generator beside it."
    if late:
        notes += " †: the generator was late by more than 1 ms, and the figure is too high by that."
    return _titled(
        "Latency, µs", _table(head, rows, right=range(1, len(head))), notes if rows else ""
    )


def _running(report: Report) -> str:
    last_of_each = {row.server: row for row in _measured(report)}
    rows = [
        (
            title,
            _spread(_over(row, lambda one: one.pss_mib), 0),
            f"{_median(row, lambda one: one.rss_mib):,.0f}",
            _spread(_over(row, lambda one: one.start_seconds), 1),
        )
        for title, row in last_of_each.items()
    ]
    head = ("server", "memory, MiB (PSS)", "MiB (RSS)", "first answer after, s")
    return _titled(
        "Memory of the process tree after the load, and starting",
        _table(head, rows, right=(1, 2, 3)),
        "PSS counts a page that n processes share as an n-th part for each; RSS counts it n times.",
    )


def _missing(report: Report) -> str:
    lines = [f"- {row.title}: {row.trouble}" for row in report.rows if row.trouble]
    return _titled("Not measured", "\n".join(lines)) if lines else ""


# --- how they are written ----------------------------------------------------------------------


def _titled(title: str, *parts: str) -> str:
    return "\n\n".join([f"### {title}", *(part for part in parts if part)])


def _over(row: RowReport, figure: Callable[[Sample], float]) -> Spread:
    return spread([figure(sample) for sample in row.samples])


def _median(row: RowReport, figure: Callable[[Sample], float]) -> float:
    return statistics.median(figure(sample) for sample in row.samples)


def _spread(found: Spread, digits: int) -> str:
    least, most = f"{found.least:,.{digits}f}", f"{found.most:,.{digits}f}"
    median = f"{found.median:,.{digits}f}"
    return median if least == most else f"{median} ({least}–{most})"


def _bar(ratio: float, most: float) -> str:
    """As long as the logarithm of a ratio, `most` being the longest; 1 and less is one cell."""
    share = math.log(ratio) / math.log(most) if ratio > 1 < most else 0.0
    return "█" * max(round(BAR_CELLS * share), 1)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table whose columns line up; `right` are those of numbers. Empty without rows."""
    lines = [tuple(row) for row in rows]
    if not lines:
        return ""
    numbers = set(right)
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = [
        "-" * (max(width, 3) - 1) + ":" if at in numbers else "-" * max(width, 3)
        for at, width in enumerate(widths)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if at in numbers else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(cells, map(len, rule), strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(head), line(rule), *map(line, lines)])
