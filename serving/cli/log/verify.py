"""`sluice log verify`: is everything there, and readable?"""

from typing import TYPE_CHECKING

import click

from serving.cli.log.place import LogPlace, log_options
from serving.cli.output import CommandError, Output, output_options, plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from serving.recording.verifying import Verdict

__all__ = ["verify"]


@click.command(short_help="Read every byte, and account for every row that was offered.")
@log_options
@output_options
def verify(*, place: LogPlace, output: Output) -> None:
    """Read every byte of the log, and account for every row that was offered to it.

    For each process that wrote: rows offered = logged + left out by sampling + dropped, by reason +
    held (not written yet, by one that runs) + lost in a crash + damaged. And the rows that are
    there are the rows logged, less those erased and those deleted for age or size.

    Exits with 1 if something is damaged or does not add up. Rows that were dropped or lost in a
    crash are no reason: they are counted.

    \b
    Examples:
      sluice log verify --data configs/demo
      sluice log verify --data configs/demo --json | jq .damages
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.recording.verifying import verify as verify_log

    verdict = verify_log(place.log)
    output.answer(verdict, lambda: _table(verdict))
    output.say(
        f"\n{verdict.files} files, {verdict.size / (1 << 20):,.1f} MiB, {verdict.rows:,} rows; "
        f"{verdict.erased:,} rows erased, {verdict.removed:,} deleted for age or size"
    )
    for damage in verdict.damages:
        output.say(f"{damage.file}: {damage.length} bytes at {damage.offset}: {damage.reason}")
    for problem in verdict.problems:
        output.say(problem)
    if not verdict.sound:
        raise CommandError(
            f"{len(verdict.damages)} damages, {len(verdict.problems)} things that do not add up"
        )


def _table(verdict: "Verdict") -> "Table":
    from serving.recording.ledger import DROPPED
    from serving.recording.verifying import total_of

    table = plain_table(
        "WRITER", "", "OFFERED", "LOGGED", "SAMPLED OUT", "DROPPED", "HELD", "CRASH", "DAMAGED"
    )
    for column in table.columns[2:]:
        column.justify = "right"
    total = total_of(verdict.writers)
    for one in [*verdict.writers, total]:
        dropped = sum(one.dropped.values())
        reasons = ", ".join(
            f"{name} {one.dropped[name]}" for name in DROPPED if one.dropped.get(name)
        )
        table.add_row(
            f"{one.node}/{one.writer}" if one.writer else "all",
            "runs" if one.alive else "",
            *(str(number) for number in (one.offered, one.logged, one.sampled_out)),
            f"{dropped} ({reasons})" if reasons else "0",
            *(str(number) for number in (one.held, one.crash, one.damaged)),
        )
    return table
