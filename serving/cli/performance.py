"""`sluice performance`: how well a model does, by the labels it has."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

import click

from serving.cli.output import Output, output_options, plain_table
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from rich.table import Table

    from serving.performance.figures import Figure
    from serving.performance.report import Group, PerformanceReport

__all__ = ["BRIEF", "ask", "cell", "figure_of", "performance"]

BRIEF: Final = (
    "accuracy", "selection_rate", "recall", "false_positive_rate", "auc", "calibration_gap",
    "absolute_error", "rmse", "bias",
)  # fmt: skip
"""What is shown where every group has one line."""

_SHARES: Final = (
    "accuracy", "selection_rate", "recall", "false_positive_rate", "precision", "base_rate",
    "coverage",
)  # fmt: skip


@click.command(short_help="Show how well a model does, by the labels it has.")
@click.argument("model")
@click.option(
    "--by",
    type=click.Choice(["version", "role", "slice", "time"]),
    default="version",
    help="What rows are told apart by.",
)
@click.option("--last", metavar="DURATION", help="Only predictions this new, such as 7d.")
@gateway_options
@output_options
def performance(model: str, *, by: str, last: str | None, where: Where, output: Output) -> None:
    """Show MODEL's figures over predictions that have a label, each with its 95 % interval.

    What its outputs mean is in `monitoring.prediction` of its file, the columns of slices in
    `monitoring.slices`. With --by slice each group is compared with all others; one is named only
    where the difference is proven to be beyond `monitoring.fairness`. An interval tells how far the
    figure may be off by chance; labels that come for some rows rather than for others are told of
    separately (`sluice labels status`).

    \b
    Examples:
      sluice performance employment --data configs/demo
      sluice performance employment --by time --last 7d --data configs/demo
      sluice performance employment --json --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    report = ask(where, model, by=by, last=last)
    output.answer(report, lambda: _table(report) if report.groups else "")
    if by == "slice" and report.slices:
        output.say()
        output.say(_gaps(report))
    few = sum(
        gap.state == "few" for one in report.slices for group in one.groups for gap in group.gaps
    )
    if few:
        output.note(f"{few} comparisons need more rows (monitoring.fairness.min_rows)")
    for words in (*report.alerts, *report.notes):
        output.note(words)


def ask(where: Where, model: str, *, by: str, last: str | None = None) -> "PerformanceReport":
    """Ask the gateway. Raises CommandError, Unreachable."""
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.performance.report import PerformanceReport

    query = {"by": by} | ({"last": last} if last is not None else {})
    path = f"/api/v1/performance/{quote(model, safe='')}?{urlencode(query)}"
    with AdminClient(find_admin(where), where.token(), seconds=180.0) as client:
        return client.get(path, PerformanceReport)


def _table(report: "PerformanceReport") -> "Table":
    return _long(report) if report.by in ("version", "role") else _wide(report)


def _long(report: "PerformanceReport") -> "Table":
    """One line a figure: few groups, everything of them."""
    table = plain_table("VERSION", "ROLE", "FIGURE", "VALUE", "95 % INTERVAL", "ROWS", "WORTH")
    for group in report.groups:
        version, role = group.version or "(all)", group.role
        if not group.figures:
            table.add_row(version, role, "–", "", "", f"{group.rows:,}", "")
        for figure in group.figures:
            table.add_row(
                version, role, figure.name.replace("_", " "), _value(figure),
                _interval(figure), f"{figure.rows:,}", f"{figure.effective:,.0f}",
            )  # fmt: skip
            version = role = ""
    return table


def _wide(report: "PerformanceReport") -> "Table":
    """One line a group, with the figures that matter most."""
    present = [name for name in BRIEF if any(figure_of(group, name) for group in report.groups)]
    of = ("SLICE", "VALUE") if report.by == "slice" else ("FROM",)
    names = [name.replace("_", " ").upper() for name in present]
    table = plain_table(*of, "VERSION", "ROLE", "ROWS", "LABELLED", *names)
    for group in report.groups:
        place = (group.column, group.value) if report.by == "slice" else (_moment(group),)
        cells = [cell(figure_of(group, name)) for name in present]
        table.add_row(
            *place, group.version, group.role, f"{group.rows:,}", f"{group.labelled:,}", *cells
        )
    return table


def _gaps(report: "PerformanceReport") -> "Table":
    """Comparisons that were made; those of too few rows would only hide them."""
    table = plain_table("SLICE", "VALUE", "VERSION", "ROLE", "AGAINST ALL OTHERS", "GAP", "STATE")
    for one in report.slices:
        for group in one.groups:
            for gap in group.gaps:
                if gap.state == "few":
                    continue
                high = "∞" if gap.high is None else f"{gap.high:.3f}"
                shown = f"{gap.value:.3f} ({gap.low:.3f} – {high})"
                what = f"{gap.measure.replace('_', ' ')}, {gap.kind}"
                table.add_row(
                    one.column, group.group, one.version, one.role, what, shown, gap.state
                )
    return table


def figure_of(group: "Group", name: str) -> "Figure | None":
    """A group's figure by name; None if it has none."""
    return next((figure for figure in group.figures if figure.name == name), None)


def _moment(group: "Group") -> str:
    if group.bucket is None:
        return "–"
    return datetime.fromtimestamp(group.bucket, UTC).strftime("%Y-%m-%d %H:%MZ")


def cell(figure: "Figure | None") -> str:
    """A figure with its interval, as it stands in a table."""
    return f"{_value(figure)} ({_interval(figure)})" if figure is not None else "–"


def _value(figure: "Figure") -> str:
    return f"{figure.value:.1%}" if figure.name in _SHARES else f"{figure.value:.4g}"


def _interval(figure: "Figure") -> str:
    if figure.low is None or figure.high is None:
        return "too few"
    if figure.name in _SHARES:
        return f"{figure.low:.1%} – {figure.high:.1%}"
    return f"{figure.low:.4g} – {figure.high:.4g}"
