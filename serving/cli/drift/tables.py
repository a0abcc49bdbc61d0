"""`sluice drift MODEL` for people: a verdict with its reasons, the columns, data, performance."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.cli.drift.gather import Findings
from serving.cli.output import plain_table
from serving.cli.performance import BRIEF, cell, figure_of
from serving.cli.sparkline import columns, sparkline
from serving.drift.quality import Finding
from serving.drift.report import ColumnDrift, DriftReport
from serving.drift.standing import Standing, Watched
from serving.performance.report import PerformanceReport
from serving.report.words import count, moment, percent, probability

__all__ = ["render", "verdicts"]

_STYLES: Final = {
    "none": "bold green", "inform": "bold cyan", "alert": "bold yellow", "trigger": "bold red",
}  # fmt: skip
_QUIET: Final = 20
"""Most columns without drift that are listed."""

_COURSE: Final = 24


def render(found: Findings) -> RenderableType:
    """Everything there is to see, the verdicts first."""
    if not found.drift.watched:
        return Text(f"{found.model}: {found.drift.words}")
    parts: list[RenderableType] = [verdicts(found.drift.watched)]
    report = found.performance.get("version")
    if report is not None:
        parts += _performance(report)
    return Group(*parts)


def verdicts(found: Sequence[Watched]) -> RenderableType:
    """Versions and what was concluded of each."""
    parts: list[RenderableType] = []
    for watched in found:
        parts += [*([""] if parts else []), *_version(watched)]
    return Group(*parts)


def _version(watched: Watched) -> list[RenderableType]:
    one, verdict = watched.standing, watched.verdict
    head = Text.assemble(
        (f"{one.model} {one.version}", "bold"),
        f" ({one.role}): ",
        (verdict.level, _STYLES[verdict.level]),
    )
    parts: list[RenderableType] = [head]
    parts += [Text(f"  • {reason}") for reason in verdict.reasons]
    parts.append(Text(f"  {_window(one)}", style="dim"))
    if not verdict.reasons:
        parts.append(Text(f"  {one.drift.words}", style="dim"))
    parts += ["", _columns(one.drift, one.options.min_effect)]
    if one.drift.missing:
        parts.append(Text(f"not counted: {', '.join(one.drift.missing)}", style="dim"))
    if one.not_compared:
        names = ", ".join(one.not_compared)
        words = f"not compared, for the reference is of another model file: {names}"
        parts.append(Text(words, style="dim"))
    if one.quality is not None:
        parts.append("")
        if one.quality.findings:
            parts.append(_quality(one.quality.findings))
        else:
            parts.append(Text(f"data quality: {one.quality.words}", style="dim"))
    return parts


def _window(one: Standing) -> str:
    report = one.drift
    span = ""
    if report.start is not None and report.end is not None:
        span = f" from {moment(report.start)} to {moment(report.end)}"
    return (
        f"{count(report.rows)} rows{span}, against {count(one.reference.rows)} of "
        f"{one.reference.source} (frozen {one.reference.created})"
    )


def _columns(report: DriftReport, threshold: float) -> Table:
    table = plain_table(
        "COLUMN", "ROWS", "PSI*", "Q", "LEVEL", "SINCE", "WHAT MOVED", f"{report.windows} WINDOWS"
    )
    for name in ("ROWS", "PSI*", "Q"):
        next(one for one in table.columns if one.header == name).justify = "right"
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True
    for column in _shown(report.columns):
        table.add_row(
            Text(column.name),
            count(column.rows),
            f"{column.psi_star:.4f}",
            probability(column.q),
            Text(column.level, style=_STYLES[column.level] if column.level != "none" else "dim"),
            moment(column.since) if column.since is not None else "",
            Text(column.direction),
            sparkline(columns(column.course, _COURSE), low=0.0, high=5 * threshold),
        )
    hidden = len(report.columns) - len(table.rows)
    if hidden:
        table.add_row(Text(f"… and {hidden} more without drift; --json lists them", style="dim"))
    return table


def _shown(found: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """Every column that drifts and some of the others; the worst are first already."""
    drifting = sum(one.level != "none" for one in found)
    return list(found[: drifting + _QUIET])


def _quality(findings: Sequence[Finding]) -> Table:
    table = plain_table("DATA QUALITY", "WHAT IS WRONG", "ROWS", "SHARE", "USUALLY", "Q")
    for one in findings:
        table.add_row(
            Text(one.subject),
            Text(one.words),
            count(one.rows),
            percent(one.share),
            percent(one.expected),
            probability(one.q),
        )
    return table


def _performance(report: PerformanceReport) -> list[RenderableType]:
    parts: list[RenderableType] = []
    groups = [group for group in report.groups if group.figures]
    present = [name for name in BRIEF if any(figure_of(group, name) for group in groups)]
    if present:
        names = [name.replace("_", " ").upper() for name in present]
        table = plain_table("VERSION", "ROLE", "ROWS", "LABELLED", *names)
        for group in groups:
            cells = [cell(figure_of(group, name)) for name in present]
            sizes = count(group.rows), count(group.labelled)
            table.add_row(group.version, group.role, *sizes, *cells)
        parts += ["", table]
    if report.labelled and report.coverage:
        parts.append("")
        table = plain_table("LABELS OF", "LABELLED", "95 % INTERVAL", "PAST THE HORIZON")
        for one in report.coverage:
            around = f"{percent(one.low)} – {percent(one.high)}"
            table.add_row(one.name, percent(one.value), around, count(one.rows))
        parts.append(table)
    words = [*(("yellow", alert) for alert in report.alerts), *(("dim", n) for n in report.notes)]
    return [*parts, *([""] if words else []), *(Text(text, style=style) for style, text in words)]
