"""`sluice log query`: the log in SQL."""

from pathlib import Path
from typing import Final

import click

from serving.cli.duration import read_duration
from serving.cli.log.place import LogPlace, log_options, read_moment, read_size
from serving.cli.output import CommandError, Output, output_options

__all__ = ["query"]

_SHOWN_ROWS: Final = 1000


@click.command(short_help="Ask the log in SQL.")
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default=None,
    help=f"How the answer is written [default: table, of {_SHOWN_ROWS:,} rows at most].",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="File for the answer [default: standard output].",
)
@click.option("--since", callback=read_moment, help="Rows from then on: 2h (ago), or a UTC time.")
@click.option("--until", callback=read_moment, help="Rows up to then.")
@click.option(
    "--memory", callback=read_size, default="1GiB", show_default=True, help="Most it may use."
)
@click.option(
    "--timeout", callback=read_duration, default="5m", show_default=True, help="Longest wait."
)
@log_options
@output_options
def query(
    sql: str,
    *,
    form: str | None,
    target: Path | None,
    since: float | None,
    until: float | None,
    memory: int,
    timeout: float,
    place: LogPlace,
    output: Output,
) -> None:
    """Answer one SELECT in DuckDB's SQL; see also DESCRIBE, SUMMARIZE and SHOW TABLES.

    Every model is a view by its name, with a row for each instance and columns such as event_time,
    version, role, code, total_seconds, sample_weight, and the entity keys, features and outputs by
    their own names (`DESCRIBE employment` lists them; those that share a name are called
    feature_NAME, output_NAME …). The view `predictions` has what all models have in common, and
    log.MODEL the log's own column names. Quote names that are no plain words: "fraud-eu".

    Where a share of requests is kept, count(*) says how many rows there are and sum(sample_weight)
    how many there were. --since and --until leave whole files unread.

    The query runs in a process of its own, which ends when it takes too long or needs too much
    memory. It can only read, and only the log.

    \b
    Examples:
      sluice log query "DESCRIBE employment" --data configs/demo
      sluice log query "SELECT version, role, count(*), quantile_cont(total_seconds, 0.99) AS p99 \
        FROM predictions GROUP BY ALL" --since 1h --data configs/demo
      sluice log query "FROM employment WHERE person_id = 7" --format json --data configs/demo
      sluice log query "FROM employment" --format parquet -o rows.parquet --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    import sys

    from serving.cli.log.answers import write_answer
    from serving.cli.log.query_progress import progress
    from serving.recording.query import Query

    form = form or ("json" if output.json else "table")
    if form == "parquet" and target is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is no text for a terminal; name a file with --output")
    with (
        progress(silent=output.json) as told,
        Query(
            place.folder, sql, memory=memory, timeout=timeout, since=since, until=until, told=told
        ) as asked,
    ):
        rows, more = write_answer(asked.batches(), form, target, _SHOWN_ROWS)
    if more:
        output.note(f"only the first {rows:,} rows are shown; other formats give all")
    for damage in asked.damages:
        output.note(
            f"{damage.file}: {damage.length} bytes at {damage.offset} are damaged and left out: "
            f"{damage.reason}"
        )
    if asked.damages:
        raise CommandError(
            "the answer is made of what can be read; parts of the log are damaged",
            "`sluice log verify` says which",
        )
