"""Parquet and CSV files as rows of a view: typed, checked and converted a column at a time.

Needs pyarrow, which nothing else here does.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_cache.columns import Column, convert, convert_times, could_be
from feature_cache.ingest import (
    EVENT_TIME,
    FUTURE_MS,
    Reject,
    Rows,
    names_problem,
)
from feature_cache.views import FeatureView

__all__ = ["Checked", "TableFile", "UnfitFile"]

_BATCH_ROWS: Final = 16_384
_COMPRESSED: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class UnfitFile(ValueError):
    """The file as a whole cannot be rows of the view. The message says what to do."""


class Checked(msgspec.Struct):
    """Some rows of a file: those that fit, and the others as they were read.

    `first` is the number of the first row, `count` how many there were, `part` how much of the
    file has been read by now, 0 to 1.
    """

    first: int
    count: int
    rows: Rows
    rejects: list[tuple[Reject, dict[str, Any]]]
    part: float


class TableFile:
    """One file, opened.

    Args:
        path: Parquet, or CSV (`.csv`, `.tsv`, also compressed).
        view: whose rows they are.
        names: the file's name of a key, a field or `event_time`, where it is another.
        event_ms: when every row was true, for a file without event times; milliseconds.
        now_ms: what is later than a minute after this is refused.

    Raises:
        UnfitFile: a column is missing or of a kind that cannot be what the view says.
        OSError: the file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        view: FeatureView,
        *,
        names: Mapping[str, str] | None = None,
        event_ms: int,
        now_ms: int,
    ) -> None:
        self.path = path
        self.rows: int | None = None
        """How many there are, where the file says."""
        self._view = view
        self._names = dict(names or {})
        self._event_ms = event_ms
        self._now_ms = now_ms
        stem = path.with_suffix("") if path.suffix in _COMPRESSED else path
        self._separator = {".csv": ",", ".tsv": "\t"}.get(stem.suffix.lower())
        self._size = max(path.stat().st_size, 1)
        if unknown := sorted(self._names.keys() - {*view.entity, *view.fields, EVENT_TIME}):
            raise UnfitFile(f"the view '{view.view}' has no '{unknown[0]}'")
        if self._separator is None:
            try:
                with pq.ParquetFile(path) as file:
                    self.rows = file.metadata.num_rows
                    schema = file.schema_arrow
            except pa.ArrowInvalid as error:
                raise UnfitFile(
                    f"{path.name} is no Parquet file, and CSV is known by its name, "
                    f".csv or .tsv ({_first_line(error)})"
                ) from None
            self._check_schema(schema)
        else:
            with self._csv([], lambda _: 0.0) as (reader, _):
                self._check_names(reader.schema.names)

    @property
    def has_event_times(self) -> bool:
        """Whether the rows say when they were true."""
        return self._has_event_times

    def _read_as(self, name: str) -> str:
        return self._names.get(name, name)

    def _check_names(self, found: Sequence[str]) -> None:
        wanted = {self._read_as(name): name for name in (*self._view.entity, *self._view.fields)}
        renamed = [wanted.get(name, name) for name in found]
        if problem := names_problem(self._view, renamed):
            raise UnfitFile(f"{self.path.name} has {problem}; `--column NAME=COLUMN` renames")
        self._has_event_times = self._read_as(EVENT_TIME) in found
        if EVENT_TIME in self._names and not self._has_event_times:
            raise UnfitFile(f"{self.path.name} has no column '{self._names[EVENT_TIME]}'")

    def _check_schema(self, schema: pa.Schema) -> None:
        self._check_names(schema.names)
        kinds: dict[str, str] = {
            **self._view.entity,
            **{n: f.type for n, f in self._view.fields.items()},
        }
        if self._has_event_times:
            kinds[EVENT_TIME] = "time"
        for name, kind in kinds.items():
            if not could_be(schema.field(self._read_as(name)).type, kind):
                raise UnfitFile(
                    f"{self.path.name}: the column '{self._read_as(name)}' is "
                    f"{schema.field(self._read_as(name)).type}, and {name} is {kind}"
                )

    def _wanted(self) -> list[str]:
        names = [self._read_as(name) for name in (*self._view.entity, *self._view.fields)]
        return [*names, self._read_as(EVENT_TIME)] if self._has_event_times else names

    def batches(self, first: int = 0) -> Iterator[Checked]:
        """Read and check, some thousand rows at a time, from row `first` on.

        Raises:
            UnfitFile: what is left of the file cannot be read; `first` of the last `Checked`
                and its `count` say how far it could.
        """
        source = self._parquet_batches() if self._separator is None else self._csv_batches()
        try:
            for at, table, faults, part in source:
                kept = [fault for fault in faults if fault[0].row >= first]
                skip = max(first - at - (len(faults) - len(kept)), 0)
                if skip < table.num_rows or kept:
                    yield self._checked(max(at, first), table.slice(skip), kept, part)
        except pa.ArrowInvalid as error:
            raise UnfitFile(f"{self.path.name} cannot be read on: {_first_line(error)}") from None

    def _parquet_batches(self) -> Iterator[tuple[int, Any, list[Any], float]]:
        at = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=self._wanted()):
                yield at, batch, [], (at + batch.num_rows) / max(self.rows or 1, 1)
                at += batch.num_rows

    def _csv_batches(self) -> Iterator[tuple[int, Any, list[Any], float]]:
        """Rows of a broken CSV file are told by their text; numbers count them in."""
        at = 0
        faults: list[Any] = []

        def broken(row: Any) -> float:
            faults.append(row)
            return 0.0

        with self._csv(self._wanted(), broken) as (reader, raw):
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    batch = None
                told = [
                    (
                        Reject(
                            # Its number counts lines from 1, the heading's too.
                            fault.number - 2 if fault.number is not None else at,
                            f"{fault.actual_columns} columns, where the heading has "
                            f"{fault.expected_columns}",
                        ),
                        {"text": fault.text},
                    )
                    for fault in faults
                ]
                faults.clear()
                if batch is None:
                    if told:
                        yield at, _no_rows(self._wanted()), told, 1.0
                    return
                yield at, batch, told, min(raw.tell() / self._size, 1.0)
                at += batch.num_rows + len(told)

    @contextlib.contextmanager
    def _csv(self, columns: list[str], broken: Any) -> Iterator[tuple[Any, Any]]:
        def on_broken(row: Any) -> str:
            broken(row)
            return "skip"

        with pa.OSFile(str(self.path)) as raw:
            codec = _COMPRESSED.get(self.path.suffix)
            stream = pa.CompressedInputStream(raw, codec) if codec else raw
            try:
                reader = pacsv.open_csv(
                    stream,
                    read_options=pacsv.ReadOptions(use_threads=False, block_size=1 << 20),
                    parse_options=pacsv.ParseOptions(
                        delimiter=self._separator,
                        newlines_in_values=True,
                        invalid_row_handler=on_broken,
                    ),
                    convert_options=pacsv.ConvertOptions(
                        include_columns=columns or None,
                        column_types=dict.fromkeys(columns, pa.string()),
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        null_values=[""],
                    ),
                )
            except pa.ArrowInvalid as error:
                raise UnfitFile(f"{self.path.name}: {_first_line(error)}") from None
            with reader:
                yield reader, raw

    def _checked(
        self, first: int, batch: Any, faults: list[tuple[Reject, dict[str, Any]]], part: float
    ) -> Checked:
        """Convert one batch, whose rows stand between the faults, the first being `first`."""
        count = batch.num_rows
        bad: dict[int, str] = {}
        entities: dict[str, Any] = {}
        for name, kind in self._view.entity.items():
            column = convert(name, batch.column(self._read_as(name)), kind)
            for row in np.flatnonzero(column.nulls).tolist():
                column.bad.setdefault(row, f"no value for the key {name}")
            entities[name] = _merged(column, bad)
        columns, nulls = {}, {}
        for name, field in self._view.fields.items():
            column = convert(name, batch.column(self._read_as(name)), field.type)
            if self._view.on_missing == "reject":
                for row in np.flatnonzero(column.nulls).tolist():
                    reason = f"no value for {name}, and the view rejects requests without one"
                    column.bad.setdefault(row, reason)
            columns[name] = _merged(column, bad)
            if column.nulls.any():
                nulls[name] = column.nulls
        event_ms = self._times(batch, bad)
        rejects = [
            *faults,
            *(
                (
                    Reject(_number(first + row, faults), bad[row]),
                    batch.slice(row, 1).to_pylist()[0],
                )
                for row in sorted(bad)
            ),
        ]
        kept = np.ones(count, np.bool_)
        kept[list(bad)] = False
        rows = Rows(
            {name: _plain(_kept(values, kept)) for name, values in entities.items()},
            {name: _kept(values, kept) for name, values in columns.items()},
            {name: mask[kept] for name, mask in nulls.items()},
            event_ms[kept],
        )
        rejects.sort(key=lambda one: one[0].row)
        return Checked(first, count + len(faults), rows, rejects, part)

    def _times(self, batch: Any, bad: dict[int, str]) -> NDArray[np.int64]:
        count = batch.num_rows
        if not self._has_event_times:
            return np.full(count, self._event_ms, np.int64)
        column = convert_times(batch.column(self._read_as(EVENT_TIME)))
        for row in np.flatnonzero(column.nulls).tolist():
            column.bad.setdefault(row, f"no {EVENT_TIME}")
        values = _merged(column, bad)
        for row in np.flatnonzero(values > self._now_ms + FUTURE_MS).tolist():
            ahead = (int(values[row]) - self._now_ms) / 1e3
            bad.setdefault(row, f"{EVENT_TIME} is {ahead:,.0f} s in the future")
        for row in np.flatnonzero(values < 0).tolist():
            bad.setdefault(row, f"{EVENT_TIME} is before 1970")
        return np.asarray(values, np.int64)


def _number(row: int, faults: Sequence[tuple[Reject, Any]]) -> int:
    """A row's number in the file, if `row` is it without the faulty ones among them."""
    for fault, _ in faults:
        row += fault.row <= row
    return row


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values  # type: ignore[no-any-return]


def _no_rows(names: list[str]) -> Any:
    return pa.record_batch([pa.array([], pa.string()) for _ in names], names)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _merged(column: Column, bad: dict[int, str]) -> Any:
    for row, reason in column.bad.items():
        bad.setdefault(row, reason)
    return column.values


def _kept(values: Any, kept: NDArray[np.bool_]) -> Any:
    if kept.all():
        return values
    if isinstance(values, np.ndarray):
        return values[kept]
    return [value for value, keep in zip(values, kept.tolist(), strict=True) if keep]
