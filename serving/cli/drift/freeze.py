"""`sluice drift freeze MODEL`: make a model's reference from a table or from the log."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from serving.cli.output import CommandError, Output, output_options, plain_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from serving.config.columns import Column
    from serving.config.frozen_bins import FrozenColumn, Reference
    from serving.config.load import Loaded

    Arrays = dict[str, NDArray[Any]]

__all__ = ["Frozen", "FrozenRow", "freeze"]

_PATH = click.Path(path_type=Path)


class FrozenRow(msgspec.Struct, frozen=True, kw_only=True):
    """One column in the answer of `--json`."""

    name: str
    type: str
    kind: str
    bins: int
    missing: int
    overdispersion: float


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice drift freeze --json` prints."""

    file: str
    model: str
    version: str
    rows: int
    source: str
    columns: list[FrozenRow]
    ignored: list[str]


class _Sample(msgspec.Struct):
    columns: dict[str, Any]
    hours: Any = None
    statuses: dict[str, dict[str, int]] = {}
    ignored: list[str] = []


@click.command(short_help="Make a model's reference from a table or from the log.")
@click.argument("model")
@click.option(
    "--config", "root", metavar="DIR", type=_PATH, default=".", help="Configuration.  [here]"
)
@click.option("--table", metavar="FILE", type=_PATH, help="Parquet or CSV, one row a prediction.")
@click.option("--log", metavar="DIR", type=_PATH, help="Or the prediction log's directory.")
@click.option("--out", metavar="FILE", type=_PATH, required=True, help="The reference to write.")
@click.option("--version", metavar="VERSION", help="Whose outputs.  [the one in production]")
@click.option("--where", "wanted", metavar="COLUMN=VALUE", help="Only such rows of the table.")
@click.option("--source", "words", metavar="TEXT", help="What was counted, for people.")
@click.option(
    "--created",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]),
    help="When, in UTC, instead of now: the same input then gives the same file.",
)
@output_options
def freeze(
    model: str,
    *,
    root: Path,
    table: Path | None,
    log: Path | None,
    out: Path,
    version: str | None,
    wanted: str | None,
    words: str | None,
    created: datetime | None,
    output: Output,
) -> None:
    """Look once at what is usual for MODEL and write the bins that traffic is counted into.

    Features are found in the table by their field's name, outputs by theirs (`label`,
    `probabilities[1]`). If the table has no outputs, the model file is asked about every row. From
    the log, production's answers are taken, and how much their shares vary from hour to hour is
    measured too, so that the report does not take the usual ups and downs for drift.

    The file holds counts and no row of anybody. Name it as `monitoring.reference`.

    \b
    Examples:
      sluice drift freeze employment --config configs/demo --table people.parquet --out ref.json
      sluice drift freeze employment --config configs/demo --log .sluice/predictions --out ref.json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.config.frozen_bins import encode_reference
    from serving.drift.sources import UnfitSource

    if (table is None) == (log is None):
        raise click.UsageError("give either --table or --log")
    if wanted is not None and (table is None or "=" not in wanted):
        raise click.UsageError("--where COLUMN=VALUE chooses rows of a --table")
    loaded, chosen = _model(root, model, version)
    try:
        if table is not None:
            sample = _from_table(loaded, model, chosen, table, wanted)
        else:
            assert log is not None
            sample = _from_log(loaded, model, chosen, log)
        reference = _reference(loaded, model, chosen, sample, words or (table or log or out).name)
        reference = msgspec.structs.replace(reference, created=_utc(created))
    except UnfitSource as error:
        raise CommandError(str(error)) from error
    try:
        out.write_bytes(encode_reference(reference))
    except OSError as error:
        raise CommandError(f"{out} cannot be written: {(error.strerror or '').lower()}") from error
    answer = Frozen(
        file=str(out),
        model=model,
        version=chosen,
        rows=reference.rows,
        source=reference.source,
        columns=[_row(name, column) for name, column in reference.columns.items()],
        ignored=sample.ignored,
    )
    output.answer(answer, lambda: _table(answer))
    if sample.ignored:
        output.note("not watched: " + ", ".join(sample.ignored))
    output.note(f"{reference.rows} rows frozen into {out}")


def _model(root: Path, model: str, version: str | None) -> tuple["Loaded", str]:
    from serving.config.load import load_directory
    from serving.config.problems import did_you_mean

    loaded = load_directory(root)
    models = loaded.configuration.models
    if model not in models:
        raise CommandError(f"there is no model `{model}` in {root}", did_you_mean(model, models))
    chosen = version or models[model].traffic.production
    if chosen not in models[model].versions:
        hint = did_you_mean(chosen, models[model].versions)
        raise CommandError(f"`{model}` has no version `{chosen}`", hint)
    return loaded, chosen


def _features(loaded: "Loaded", model: str) -> "dict[str, Column]":
    from serving.config.columns import UnknownFeature
    from serving.drift.columns import feature_columns

    configuration = loaded.configuration
    try:
        return feature_columns(configuration.models[model], configuration.views)
    except UnknownFeature as error:
        raise CommandError(error.message, error.suggestion) from error


def _from_table(
    loaded: "Loaded", model: str, version: str, file: Path, wanted: str | None
) -> _Sample:
    from serving.cli.drift.scoring import score
    from serving.drift.columns import value_of
    from serving.drift.sources import UnfitSource, read_table

    found = read_table(file)
    if wanted is not None:
        found = _only(found, wanted)
    features = _features(loaded, model)
    if absent := [name for name in features if name not in found]:
        raise CommandError(
            f"{file.name} has no column {', '.join(f'`{name}`' for name in absent)}",
            "each feature of the model needs a column of its field's name",
        )
    columns: Arrays = {}
    for name, column in features.items():
        try:
            columns[name] = value_of(column, found[name])
        except ValueError as error:
            raise UnfitSource(f"column `{name}`: {error}") from error
    outputs, ignored = score(loaded, model, version, columns, found)
    for name, column in features.items():
        if column.type == "string" and _hidden(loaded, model, name):
            del columns[name]  # the bins of text are its values
            ignored.append(f"`{name}` (log.fields hides it)")
    return _Sample({**columns, **outputs}, ignored=ignored)


def _hidden(loaded: "Loaded", model: str, name: str) -> bool:
    """Whether the prediction log does not keep a field as it is."""
    return loaded.configuration.models[model].log.fields.get(name, "keep") != "keep"


def _only(found: "Arrays", wanted: str) -> "Arrays":
    """The rows whose column has a value."""
    from serving.config.problems import did_you_mean

    name, _, value = wanted.partition("=")
    if name not in found:
        raise CommandError(f"the table has no column `{name}`", did_you_mean(name, found))
    chosen: NDArray[np.bool_]
    try:
        chosen = found[name] == (float(value) if found[name].dtype.kind in "biuf" else value)
    except ValueError as error:
        raise CommandError(f"`{name}` holds numbers, and `{value}` is none") from error
    if not chosen.any():
        raise CommandError(f"no row has `{name}` = {value}")
    return {column: values[chosen] for column, values in found.items()}


def _from_log(loaded: "Loaded", model: str, version: str, folder: Path) -> _Sample:
    from serving.drift.sources import read_log

    rows = read_log(folder, model, version)
    fields = _features(loaded, model)
    features = {
        name: values
        for name, values in rows.features.items()
        if name in fields and not _hidden(loaded, model, name)
    }
    absent = [f"`{name}` (not in the log as it is)" for name in fields if name not in features]
    return _Sample({**features, **rows.outputs}, rows.hours, rows.statuses, absent)


def _reference(
    loaded: "Loaded", model: str, version: str, sample: _Sample, source: str
) -> "Reference":
    from serving.config.frozen_bins import Reference
    from serving.drift.freezing import freeze as freeze_columns
    from serving.drift.sources import UnfitSource

    try:
        columns = freeze_columns(sample.columns, sample.hours)
    except ValueError as error:
        raise UnfitSource(str(error)) from error
    if not columns:
        raise UnfitSource("no column of the model was found; there is nothing to freeze")
    sha256 = loaded.configuration.models[model].versions[version].sha256
    return Reference(
        model=model,
        digests={version: sha256} if sha256 else {},
        rows=next(iter(columns.values())).rows,
        created="",
        source=source,
        columns=columns,
        statuses=sample.statuses,
    )


def _utc(created: datetime | None) -> str:
    from datetime import UTC

    return f"{created or datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _row(name: str, column: "FrozenColumn") -> FrozenRow:
    return FrozenRow(
        name=name,
        type=column.type,
        kind=column.kind,
        bins=len(column.counts),
        missing=column.counts[0],
        overdispersion=round(column.overdispersion, 3),
    )


def _table(answer: Frozen) -> "Table":
    table = plain_table("column", "type", "cut", "bins", "missing", "varies")
    rows: Mapping[str, FrozenRow] = {row.name: row for row in answer.columns}
    for name, row in rows.items():
        varies = f"{row.overdispersion:.3g}×"
        table.add_row(name, row.type, row.kind, str(row.bins), str(row.missing), varies)
    return table
