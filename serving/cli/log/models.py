"""`sluice log models`: what there is."""

from typing import TYPE_CHECKING

import click

from serving.cli.log.place import LogPlace, log_options
from serving.cli.output import Output, output_options, plain_table

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["models"]


@click.command(short_help="Show how many rows there are of each model, and of what time.")
@log_options
@output_options
def models(*, place: LogPlace, output: Output) -> None:
    """Show rows, bytes, versions and the range of time of each model in the log.

    \b
    Example:
      sluice log models --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.recording.inventory import inventory

    found, damages = inventory(place.log)
    output.answer(found)
    table = plain_table("MODEL", "ROWS", "MIB", "PARQUET", "SEGMENTS", "FROM", "TO", "VERSIONS")
    for column in table.columns[1:5]:
        column.justify = "right"
    for one in found:
        table.add_row(
            one.model,
            f"{one.rows:,}",
            f"{one.size / (1 << 20):,.1f}",
            str(one.parquet_files),
            str(one.segments),
            _time(one.oldest),
            _time(one.newest),
            " ".join(one.versions),
        )
    output.say(table if found else "no rows yet")
    for damage in damages:
        output.note(f"{damage.file} is damaged: {damage.reason}")


def _time(moment: "datetime | None") -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")
