"""`sluice labels load`: a file of labels to the gateway."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from serving.cli.features.load import name_pairs
from serving.cli.output import CommandError, Output, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from serving.cli.client import AdminClient
    from serving.cli.features.rejects import RejectFile
    from serving.cli.labels.table import LabelFile

__all__ = ["LabelsLoaded", "load"]

_BATCH_ITEMS: Final = 4000
_BATCH_BYTES: Final = 700_000
"""The admin port takes a body of 1 MiB."""

_LISTED: Final = 10


class LabelsLoaded(msgspec.Struct, kw_only=True):
    """What `sluice labels load --json` prints.

    `read` is joined + repeated + corrected + orphan + late + rejected. `unknown` lists the first
    ten orphans; `rejects` is the file with what is no label. `complete` is false if it was stopped:
    loading the file again is safe.
    """

    file: str
    read: int = 0
    joined: int = 0
    repeated: int = 0
    corrected: int = 0
    orphan: int = 0
    late: int = 0
    rejected: int = 0
    unknown: list[str] = []
    seconds: float = 0.0
    complete: bool = True
    dry_run: bool = False
    rejects: str | None = None


@click.command(short_help="Load a Parquet, CSV or NDJSON file of labels.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--model", default="", metavar="MODEL", help="Whose labels, where no id says so.")
@click.option(
    "--column",
    "columns",
    metavar="NAME=COLUMN",
    multiple=True,
    callback=name_pairs,
    help="The file's name of a field or a key, where it is another.",
)
@click.option(
    "--time",
    "moment",
    default="",
    metavar="TIME",
    help="Time of rows by key that say none, ISO 8601; `now` means each key's newest prediction.",
)
@click.option("--source", default="", help="Where they come from [default: the file's name].")
@click.option("--dry-run", is_flag=True, help="Tell what would become of them, keep none.")
@click.option(
    "--rejects",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where rows that are no labels are written, with the reason; CSV "
    "[default: the file's name with .rejected.csv behind it, here].",
)
@gateway_options
@output_options
def load(
    file: Path,
    *,
    model: str,
    columns: dict[str, str],
    moment: str,
    source: str,
    dry_run: bool,
    rejects: Path | None,
    where: Where,
    output: Output,
) -> None:
    """Load FILE, Parquet, CSV (also .csv.gz) or JSON lines, with what came true of predictions.

    A row has a `label` and says whose it is: by `prediction_id` and perhaps `row`, or by the
    model's keys (such as person_id) and `time`, which means the newest prediction at or before it.
    Perhaps also `label_time` (when it was known; now, if it is not said), `tolerance` (seconds) and
    `source`. Times are timestamps, ISO 8601 or milliseconds since 1970; UTC where no zone is said.

    Loading a file twice does no harm: what is known already is counted as repeated. Another value
    corrects the one before. A label whose prediction is not in the log is kept until it is. What is
    no label at all is written to a file of its own with the reason; the exit code is then 1, as it
    is where not one prediction is known.

    \b
    Examples:
      sluice labels load outcomes.csv --model employment --data configs/demo
      sluice labels load outcomes.csv --model employment --dry-run --json --data configs/demo
      sluice labels load outcomes.csv --model employment --time now --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.cli.features.rejects import RejectFile
    from serving.cli.file_trouble import file_trouble
    from serving.cli.labels.table import LabelFile, UnfitLabelFile

    bad = RejectFile(rejects or Path(f"{file.name}.rejected.csv"), append=False)
    report = LabelsLoaded(file=str(file), dry_run=dry_run)
    began = time.monotonic()
    problem = ""
    with AdminClient(find_admin(where), where.token()) as client:
        try:
            table = LabelFile(file, columns, _entity(client, model))
        except (UnfitLabelFile, OSError) as error:
            raise CommandError(file_trouble(error)) from error
        job = _Job(client, report, bad, model=model, source=source or file.name)
        job.moment = int(time.time() * 1e3) if moment == "now" else moment
        try:
            job.run(table, silent=output.json)
        except (UnfitLabelFile, OSError) as error:
            problem = file_trouble(error)
        except CommandError as error:
            if report.read == 0:
                raise
            problem = error.message
    report.seconds = round(time.monotonic() - began, 3)
    report.complete = not problem
    report.rejects = str(bad.path) if bad.rows else None
    output.answer(report, lambda: _summary(report, bad))
    if problem:
        raise CommandError(
            f"stopped after {report.read:,} rows: {problem}", "loading the file again is safe"
        )
    _judge(report)


def _judge(report: LabelsLoaded) -> None:
    """Raise CommandError if the answer is no."""
    if report.rejected:
        raise CommandError(f"{report.rejected:,} rows are no labels; see {report.rejects}")
    if report.read == 0:
        raise CommandError(f"{report.file} has no rows")
    if report.orphan == report.read:
        raise CommandError(
            "not one of these predictions is in the log",
            "are they of this gateway? Labels are kept, and joined should they appear",
        )


def _entity(client: "AdminClient", model: str) -> dict[str, str]:
    """The model's keys, or none where no model is named. Raises CommandError."""
    from serving.control.admin.answers import ConfigAnswer

    if not model:
        return {}
    models = client.get("/api/v1/config", ConfigAnswer).models
    if model not in models:
        raise CommandError(f"there is no model `{model}`; there is {', '.join(sorted(models))}")
    entity = models[model].get("entity", {})
    return {str(name): str(kind) for name, kind in entity.items()}


class _Job:
    """One load under way."""

    def __init__(
        self,
        client: "AdminClient",
        report: LabelsLoaded,
        rejects: "RejectFile",
        *,
        model: str,
        source: str,
    ) -> None:
        self._client = client
        self._report = report
        self._rejects = rejects
        self._model = model
        self._source = source
        self.moment: int | str = ""
        """Time of rows by key that say none; empty leaves them as they are."""

    def run(self, table: "LabelFile", *, silent: bool) -> None:
        """Send everything. Raises CommandError, UnfitLabelFile, OSError."""
        from serving.cli.features.progress import load_progress

        with load_progress("labels", silent=silent) as progress, self._rejects:
            items: list[Any] = []
            numbers: list[int] = []
            size = 0
            for number, item, part in table.items():
                if self.moment and isinstance(item, dict) and not item.get("prediction_id"):
                    item.setdefault("time", self.moment)
                encoded = len(msgspec.json.encode(item)) + 1
                if len(items) >= _BATCH_ITEMS or size + encoded > _BATCH_BYTES:
                    self._send(items, numbers, part, progress)
                    items, numbers, size = [], [], 0
                items.append(item)
                numbers.append(number)
                size += encoded
            if items:
                self._send(items, numbers, 1.0, progress)

    def _send(
        self,
        items: list[Any],
        numbers: list[int],
        part: float,
        progress: Callable[[float, Any], None],
    ) -> None:
        from feature_cache.ingest import Reject
        from serving.control.labels.desk import LabelsTaken

        body = {
            "labels": items, "model": self._model, "source": self._source, "partial": True,
            "dry_run": self._report.dry_run,
        }  # fmt: skip
        answer = self._client.post("/api/v1/labels", body, LabelsTaken, role="operator")
        report = self._report
        report.read += len(items)
        for name in ("joined", "repeated", "corrected", "orphan", "late"):
            setattr(report, name, getattr(report, name) + getattr(answer, name))
        report.rejected += len(answer.invalid)
        room = _LISTED - len(report.unknown)
        report.unknown += [
            f"row {numbers[one.index]}: {one.names}" for one in answer.unknown[:room]
        ]
        rejected = [(numbers[one.index], one.reason, items[one.index]) for one in answer.invalid]
        self._rejects.write(
            [
                (Reject(number, reason), item if isinstance(item, dict) else {"text": str(item)})
                for number, reason, item in rejected
            ]
        )
        progress(part, report)


def _summary(report: LabelsLoaded, bad: "RejectFile") -> str:
    verb = "would be joined" if report.dry_run else "joined"
    parts = [f"{report.joined:,} {verb}"]
    for count, said in (
        (report.repeated, "repeated"),
        (report.corrected, "corrected"),
        (report.orphan, "without a prediction"),
        (report.late, "later than the horizon"),
        (report.rejected, "rejected"),
    ):
        if count:
            parts.append(f"{count:,} {said}")
    rate = report.read / report.seconds if report.seconds else 0.0
    lines = [
        f"{report.read:,} labels: {', '.join(parts)}; {report.seconds:.2f} s, {rate:,.0f} rows/s"
    ]
    lines += [f"  row {reject.row}: {reject.reason}" for reject in bad.first]
    if report.rejected > len(bad.first):
        lines.append(f"  and {report.rejected - len(bad.first):,} more in {bad.path}")
    if report.unknown:
        lines.append("  no prediction in the log for")
        lines += [f"    {one}" for one in report.unknown]
        if report.orphan > len(report.unknown):
            lines.append(f"    and {report.orphan - len(report.unknown):,} more")
    return "\n".join(line.replace("\x1f", ", ") for line in lines)
