"""`sluice log ship`: copies of the log elsewhere."""

import time
from pathlib import Path
from typing import Final

import click

from serving.cli.log.place import LogPlace, log_options
from serving.cli.output import CommandError, Output, output_options

__all__ = ["ship"]

_LOOK_SECONDS: Final = 5.0
_SHORTEST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 60.0


@click.command(short_help="Copy the log to S3, Kafka or Delta Lake.")
@click.argument("target")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of the target's own client: `endpoint_url` (S3), `security.protocol` and librdkafka's "
    "others (Kafka), storage options (Delta Lake).",
)
@click.option(
    "--options",
    "options_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with a NAME=VALUE a line; for secrets, which a command line shows to everybody.",
)
@log_options
@output_options
def ship(
    target: str,
    *,
    follow: bool,
    options: tuple[str, ...],
    options_file: Path | None,
    place: LogPlace,
    output: Output,
) -> None:
    """Copy to TARGET what it does not have yet, file by file, at least once.

    \b
    TARGET is
      s3://BUCKET/PREFIX      Parquet files, under model=…/hour=…/; needs the extra `s3`
      kafka://HOST:PORT/TOPIC rows as JSON, by prediction_id; needs the extra `kafka`
      delta:DIR               a Delta Lake table for each model; needs the extra `delta`

    Only rows that are Parquet are shipped, which they are once their segment is sealed
    (`segment_age`, `segment_size`). What a target has confirmed is kept in the log's folder
    `shipping`: stopped in any way, this goes on with the file it was at, which is then sent again.
    In S3 and Delta Lake that leaves no duplicates; from Kafka rows may come twice, with the same
    key. With --follow a target that is away is tried again.

    \b
    Examples:
      sluice log ship delta:lake --data configs/demo
      sluice log ship delta:lake --data configs/demo --json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.recording.shipping.address import target_of
    from serving.recording.shipping.cursor import Cursor
    from serving.recording.shipping.ship import Shipped
    from serving.recording.shipping.ship import ship as ship_files
    from serving.recording.shipping.target import ShippingFailed

    try:
        to = target_of(target, _options(options, options_file))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    total = Shipped()
    wait = _SHORTEST_WAIT_SECONDS
    with Cursor(place.log, target) as cursor:
        while True:
            try:
                done = ship_files(place.log, to, cursor, output.note)
            except ShippingFailed as error:
                if not follow:
                    raise
                output.note(f"{error.message}; trying again in {wait:g} s")
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
                continue
            wait = _SHORTEST_WAIT_SECONDS
            for name in ("files", "rows", "size"):
                setattr(total, name, getattr(total, name) + getattr(done, name))
            total.damaged = done.damaged
            if not follow:
                break
            time.sleep(_LOOK_SECONDS)
    to.close()
    output.answer(total, lambda: f"shipped {total.rows:,} rows in {total.files} files")
    if total.damaged:
        raise CommandError(
            f"{len(total.damaged)} damaged files were not shipped: {', '.join(total.damaged)}",
            "`sluice log verify` says more",
        )


def _options(options: tuple[str, ...], file: Path | None) -> dict[str, str]:
    lines = list(options)
    if file is not None:
        text = file.read_text(encoding="utf-8")
        lines += [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"`{name}` is not NAME=VALUE")
        found[name.strip()] = value.strip()
    return found
