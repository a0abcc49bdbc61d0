"""`sluice labels status`: how much is known of what came true."""

from typing import TYPE_CHECKING

import click

from serving.cli.output import Output, output_options, plain_table
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from rich.table import Table

    from serving.performance.report import PerformanceReport

__all__ = ["status"]


@click.command(short_help="Show how many predictions have a label, and how long labels take.")
@click.argument("model")
@gateway_options
@output_options
def status(model: str, *, where: Where, output: Output) -> None:
    """Show how many of MODEL's predictions have a label, by version, and how long labels take.

    Coverage is of predictions whose time for a label (monitoring.labels.horizon) is over. In the
    delay table each line is of the predictions that are at least that old.

    \b
    Examples:
      sluice labels status employment --data configs/demo
      sluice labels status employment --data configs/demo --json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.performance import ask

    report = ask(where, model, by="version")
    output.answer(
        {
            "model": report.model,
            "rows": report.rows,
            "labelled": report.labelled,
            "labels": report.labels,
            "coverage": report.coverage,
            "delay": report.delay,
            "alerts": report.alerts,
            "notes": report.notes,
        }
    )
    if output.json:
        return
    states = report.labels
    output.say(
        f"{report.model}: {report.labelled:,} of {report.rows:,} predictions have a label; "
        f"{states.kept:,} labels kept, {states.orphan:,} without a prediction, "
        f"{states.late:,} later than the horizon, {states.early:,} before their prediction"
    )
    if states.unreadable:
        output.say(f"{states.unreadable} places of the labels' journal cannot be read")
    if report.coverage:
        output.say()
        output.say(_coverage(report))
    if report.delay:
        output.say()
        output.say(_delay(report))
    for words in (*report.alerts, *report.notes):
        output.note(words)


def _coverage(report: "PerformanceReport") -> "Table":
    table = plain_table("VERSION", "PAST THE HORIZON", "LABELLED", "95 % INTERVAL")
    for one in report.coverage:
        table.add_row(
            one.name, f"{one.rows:,}", f"{one.value:.1%}", f"{one.low:.1%} – {one.high:.1%}"
        )
    return table


def _delay(report: "PerformanceReport") -> "Table":
    from serving.cli.span import age

    table = plain_table("LABELLED WITHIN", "SHARE", "95 % INTERVAL", "OF")
    for point in report.delay:
        table.add_row(
            age(point.seconds),
            f"{point.value:.1%}",
            f"{point.low:.1%} – {point.high:.1%}",
            f"{point.rows:,}",
        )
    return table
