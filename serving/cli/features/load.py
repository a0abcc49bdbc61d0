"""`sluice features load`: a Parquet or CSV file into a view."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from serving.cli.features.place import Place, connected, place_options
from serving.cli.file_trouble import file_trouble
from serving.cli.output import CommandError, Output, output_options

if TYPE_CHECKING:
    from feature_cache.tables import TableFile
    from serving.cli.features.rejects import RejectFile

__all__ = ["Loaded", "load", "name_pairs"]

_SHOWN_REJECTS: Final = 3


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice features load --json` prints.

    `rows` is `written` (with `dry_run`: what would be) + `not_newer` + `expired` + `rejected`.
    `next_row` is where to go on if it was stopped; `rejects` the file with what did not fit.
    """

    file: str
    view: str
    rows: int
    written: int
    not_newer: int
    expired: int
    rejected: int
    seconds: float
    next_row: int
    complete: bool
    dry_run: bool
    rejects: str | None = None


def name_pairs(ctx: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> Any:
    """Read `NAME=COLUMN` options, as click's callback."""
    del ctx, parameter
    pairs = {}
    for word in words:
        name, equals, column = word.partition("=")
        if not (name and equals and column):
            raise click.BadParameter(f"it is NAME=COLUMN, not `{word}`")
        pairs[name] = column
    return pairs


def _moment(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    from feature_cache.ingest import Unfit, event_time_ms

    del ctx, parameter
    if text is None:
        return None
    if text == "now":
        return int(time.time() * 1e3)
    try:
        return event_time_ms(text)
    except Unfit:
        raise click.BadParameter("it is ISO 8601, such as 2026-11-27T08:00Z, or `now`") from None


@click.command(short_help="Load a Parquet or CSV file into a view.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--view", required=True, metavar="VIEW", help="Which view its rows belong to.")
@click.option(
    "--column",
    "columns",
    metavar="NAME=COLUMN",
    multiple=True,
    callback=name_pairs,
    help="The file's name of a key, a field or `event_time`, where it is another.",
)
@click.option(
    "--at",
    "moment",
    metavar="TIME",
    callback=_moment,
    help="When every row was true, for a file without event times: ISO 8601, or `now` "
    "[default: when the file was last changed].",
)
@click.option("--dry-run", is_flag=True, help="Check every row, write none.")
@click.option(
    "--rejects",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where rows that do not fit are written, with the reason; CSV "
    "[default: the file's name with .VIEW.rejected.csv behind it, here].",
)
@click.option(
    "--from-row",
    type=click.IntRange(min=0),
    default=0,
    help="Go on where a load stopped; it says where.",
)
@place_options
@output_options
def load(
    file: Path,
    *,
    view: str,
    columns: dict[str, str],
    moment: int | None,
    dry_run: bool,
    rejects: Path | None,
    from_row: int,
    place: Place,
    output: Output,
) -> None:
    """Load FILE, Parquet or CSV (also .csv.gz), into a view of the online store.

    The file needs a column for each key and each field of the view, under their names or as
    --column says; others are left alone. A column `event_time` (a timestamp, ISO 8601, or
    milliseconds since 1970; UTC where no zone is said) tells when each row was true. Of two rows
    for one entity the newer stays, so loading a file twice, or two files in the wrong order, does
    no harm. A field without a value is null. What does not fit is written to a file of its own
    with the reason, and does not stop the rest; the exit code is then 1.

    \b
    Examples:
      sluice features load people.parquet --view person_profile --config configs/demo
      sluice features load export.csv.gz --view person_household --column person_id=id --at now \\
        --config configs/demo
      sluice features load people.parquet --view person_profile --dry-run --config configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from feature_cache.durations import milliseconds
    from feature_cache.tables import TableFile, UnfitFile
    from serving.cli.features.rejects import RejectFile

    wanted = place.view(view)
    if wanted.source != "store":
        raise CommandError(f"the view `{view}` is written by Feast; it is only read here")
    now_ms = int(time.time() * 1e3)
    try:
        event_ms = moment if moment is not None else int(file.stat().st_mtime * 1e3)
        table = TableFile(file, wanted, names=columns, event_ms=event_ms, now_ms=now_ms)
    except (UnfitFile, OSError) as error:
        raise CommandError(file_trouble(error)) from error
    if table.has_event_times and moment is not None:
        raise click.UsageError("the file has event times of its own; leave --at out")
    if not table.has_event_times:
        said = (
            "" if moment is not None else ", when the file was last changed (--at says otherwise)"
        )
        output.note(f"event time of every row: {_written(event_ms)}{said}")
    bad = RejectFile(rejects or Path(f"{file.name}.{view}.rejected.csv"), append=from_row > 0)
    job = _Job(place, view, table, bad, output, dry_run=dry_run, from_row=from_row)
    started = time.monotonic()
    reason = asyncio.run(job.run(now_ms - milliseconds(wanted.keep_for)))
    report = job.report
    answer = Loaded(
        file=str(file),
        view=view,
        rows=report.read,
        written=report.written,
        not_newer=report.not_newer,
        expired=report.expired,
        rejected=report.rejected,
        seconds=round(time.monotonic() - started, 3),
        next_row=report.next_row,
        complete=not reason,
        dry_run=dry_run,
        rejects=str(bad.path) if bad.rows else None,
    )
    output.answer(answer, lambda: _summary(answer, bad))
    if reason:
        raise CommandError(
            reason, f"everything before row {report.next_row} is done: --from-row {report.next_row}"
        )
    if report.expired and report.expired == report.read - report.rejected:
        raise CommandError(
            f"every row is older than the view's keep_for, {wanted.keep_for}",
            "are the event times seconds? They are read as milliseconds since 1970",
        )
    if report.rejected:
        raise CommandError(f"{report.rejected:,} rows do not fit the view; see {bad.path}")


class _Job:
    """One load under way."""

    def __init__(
        self,
        place: Place,
        view: str,
        table: "TableFile",
        rejects: "RejectFile",
        output: Output,
        *,
        dry_run: bool,
        from_row: int,
    ) -> None:
        from feature_cache.loading import LoadReport

        self.report: LoadReport = LoadReport(next_row=from_row)
        self._place = place
        self._view = view
        self._table = table
        self._rejects = rejects
        self._output = output
        self._dry_run = dry_run
        self._from_row = from_row

    async def run(self, oldest_ms: int) -> str:
        """Load; returns why it ended early, or nothing."""
        if self._dry_run:
            return await self._load(None, oldest_ms)
        async with connected(self._place) as cache:
            return await self._load(cache, oldest_ms)

    async def _load(self, cache: Any, oldest_ms: int) -> str:
        from feature_cache.loading import Stopped, load
        from feature_cache.tables import UnfitFile
        from serving.cli.features.progress import load_progress

        with load_progress(self._view, silent=self._output.json) as progress, self._rejects:

            def seen(batch: Any) -> None:
                self._rejects.write(batch.rejects)
                progress(batch.part, self.report)

            try:
                await load(
                    cache,
                    self._view,
                    self._table.batches(self._from_row),
                    oldest_ms=oldest_ms,
                    report=self.report,
                    seen=seen,
                )
            except (Stopped, UnfitFile, OSError) as error:
                return file_trouble(error)
            except asyncio.CancelledError:
                return "interrupted"
        return ""


def _summary(answer: Loaded, bad: "RejectFile") -> str:
    verb = "would be written" if answer.dry_run else "written"
    parts = [f"{answer.written:,} rows {verb}"]
    if answer.not_newer:
        parts.append(f"{answer.not_newer:,} not newer than what is there")
    if answer.expired:
        parts.append(f"{answer.expired:,} older than keep_for")
    if answer.rejected:
        parts.append(f"{answer.rejected:,} rejected")
    rate = answer.rows / answer.seconds if answer.seconds else 0.0
    lines = [f"{answer.view}: {', '.join(parts)}; {answer.seconds:.2f} s, {rate:,.0f} rows/s"]
    lines += [f"  row {reject.row}: {reject.reason}" for reject in bad.first]
    if answer.rejected > len(bad.first):
        lines.append(f"  and {answer.rejected - len(bad.first):,} more in {bad.path}")
    return "\n".join(lines)


def _written(event_ms: int) -> str:
    return datetime.fromtimestamp(event_ms / 1e3, UTC).isoformat(timespec="milliseconds")
