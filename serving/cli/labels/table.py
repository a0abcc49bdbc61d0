"""A file of labels as the items that the admin port takes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

__all__ = ["LabelFile", "UnfitLabelFile"]

_PLAIN: Final = ("prediction_id", "row", "time", "tolerance", "label", "label_time", "source")
_LINES: Final = (".ndjson", ".jsonl")
_COMPRESSED: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_BATCH_ROWS: Final = 4096

Item = tuple[int, Any, float]
"""Row number from 0, the item, and how much of the file has been read, 0 to 1."""


class UnfitLabelFile(ValueError):
    """The file as a whole cannot be labels. The message says what to do."""


class LabelFile:
    """One file.

    Args:
        path: Parquet, CSV (`.csv`, `.tsv`, also compressed) or JSON lines (`.ndjson`, `.jsonl`).
        names: the file's name of a column, where it is another.
        entity: the model's keys and their datatype; columns of these names say whose label it is
            where there is no `prediction_id`.

    Raises:
        UnfitLabelFile: it has no label, or nothing that says whose. OSError: it cannot be read.
    """

    def __init__(self, path: Path, names: Mapping[str, str], entity: Mapping[str, str]) -> None:
        self._path = path
        self._entity = dict(entity)
        self._names = dict(names)
        stem = path.with_suffix("") if path.suffix in _COMPRESSED else path
        self._kind = stem.suffix.lower()
        self._size = max(path.stat().st_size, 1)
        known = (*_PLAIN, *self._entity)
        if unknown := sorted(self._names.keys() - set(known)):
            raise UnfitLabelFile(f"a label has no '{unknown[0]}'; it has {', '.join(known)}")
        if self._kind in _LINES:
            if self._names:
                raise UnfitLabelFile("--column is for Parquet and CSV; name the fields in the file")
            return
        if self._kind in (".csv", ".tsv"):
            with self._csv() as (reader, _):
                self._check(reader.schema.names)
        else:
            try:
                with pq.ParquetFile(path) as file:
                    self._check(file.schema_arrow.names)
            except pa.ArrowInvalid as error:
                raise UnfitLabelFile(
                    f"{path.name} is no Parquet file, and others are known by their name: .csv, "
                    f".tsv, .ndjson ({str(error).splitlines()[0]})"
                ) from None

    def items(self) -> Iterator[Item]:
        """Every row, in the file's order.

        Raises:
            UnfitLabelFile: what is left cannot be read.
        """
        try:
            if self._kind in _LINES:
                yield from self._from_lines()
            else:
                yield from self._from_table()
        except (pa.ArrowInvalid, EOFError) as error:
            raise UnfitLabelFile(
                f"{self._path.name} cannot be read on: {str(error).splitlines()[0]}"
            ) from None

    def _column(self, name: str) -> str:
        return self._names.get(name, name)

    def _check(self, found: Sequence[str]) -> None:
        missing = [name for name in self._names.values() if name not in found]
        if missing:
            raise UnfitLabelFile(f"{self._path.name} has no column '{missing[0]}'")
        if self._column("label") not in found:
            raise UnfitLabelFile(
                f"{self._path.name} has no column 'label'; `--column label=COLUMN` names another"
            )
        by_id = self._column("prediction_id") in found
        keys = [name for name in self._entity if self._column(name) in found]
        if not by_id and (len(keys) < len(self._entity) or not keys):
            wanted = f", or {', '.join(self._entity)} with `time`" if self._entity else ""
            raise UnfitLabelFile(
                f"{self._path.name} says of no row whose label it is: it needs a column "
                f"'prediction_id'{wanted} (`--model` says whose keys are looked for)"
            )
        self._by_id = by_id

    def _from_lines(self) -> Iterator[Item]:
        codec = _COMPRESSED.get(self._path.suffix)
        with pa.OSFile(str(self._path)) as raw:
            stream = pa.CompressedInputStream(raw, codec) if codec else raw
            number, rest = 0, b""
            while block := stream.read(1 << 18):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield number, _decoded(line), min(raw.tell() / self._size, 1.0)
                    number += 1
            if rest.strip():
                yield number, _decoded(rest), 1.0

    def _from_table(self) -> Iterator[Item]:
        number = 0
        for batch, part in self._batches():
            columns = {name: batch.column(name) for name in batch.schema.names}
            values = {name: column.to_pylist() for name, column in columns.items()}
            for place in range(batch.num_rows):
                yield number, self._item({name: of[place] for name, of in values.items()}), part
                number += 1

    def _batches(self) -> Iterator[tuple[Any, float]]:
        if self._kind in (".csv", ".tsv"):
            with self._csv() as (reader, raw):
                for batch in reader:
                    yield batch, min(raw.tell() / self._size, 1.0)
            return
        with pq.ParquetFile(self._path) as file:
            wanted = {self._column(name) for name in (*_PLAIN, *self._entity)}
            present = [name for name in file.schema_arrow.names if name in wanted]
            read = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=present):
                read += batch.num_rows
                yield batch, read / max(file.metadata.num_rows, 1)

    def _csv(self) -> "_Csv":
        return _Csv(self._path, "\t" if self._kind == ".tsv" else ",")

    def _item(self, row: dict[str, Any]) -> dict[str, Any]:
        item: dict[str, Any] = {}
        for name in _PLAIN:
            value = row.get(self._column(name))
            if value is not None:
                item[name] = _plain(name, value)
        if not item.get("prediction_id"):
            item.pop("prediction_id", None)
            item["entity"] = {
                name: _key(row.get(self._column(name)), kind) for name, kind in self._entity.items()
            }
        elif self._by_id:
            item.pop("time", None)
            item.pop("tolerance", None)
        return item


class _Csv:
    """An open CSV file, every column a text: what a value is, its field says, not its looks."""

    def __init__(self, path: Path, separator: str) -> None:
        self._raw = pa.OSFile(str(path))
        codec = _COMPRESSED.get(path.suffix)
        stream = pa.CompressedInputStream(self._raw, codec) if codec else self._raw
        names = _heading(path, separator)
        try:
            self._reader = pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(use_threads=False, block_size=1 << 18),
                parse_options=pacsv.ParseOptions(delimiter=separator, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            self._raw.close()
            raise UnfitLabelFile(f"{path.name}: {str(error).splitlines()[0]}") from None

    def __enter__(self) -> tuple[Any, Any]:
        return self._reader, self._raw

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._raw.close()


def _heading(path: Path, separator: str) -> list[str]:
    """Names of the columns, to have them all read as texts."""
    import csv
    import io

    with pa.OSFile(str(path)) as raw:
        codec = _COMPRESSED.get(path.suffix)
        stream = pa.CompressedInputStream(raw, codec) if codec else raw
        text = stream.read(1 << 16).decode("utf-8-sig", "replace")
    return next(csv.reader(io.StringIO(text), delimiter=separator), [])


def _decoded(line: bytes) -> Any:
    """A line's JSON; what is none is sent as a text, and refused with its row's number."""
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return line.decode("utf-8", "replace")[:200]


def _plain(name: str, value: Any) -> Any:
    """A value of a column as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and name in ("row", "tolerance", "label", "time", "label_time"):
        return _number(value)
    return value


def _number(text: str) -> Any:
    """What a text of a CSV file stands for: a number, true or false, or itself."""
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return int(lowered)
    except ValueError:
        pass
    try:
        number = float(lowered)
    except ValueError:
        return text
    # JSON has no nan and no infinity; as texts they are refused by name.
    return number if json.dumps(number)[-1].isdigit() else text


def _key(value: Any, kind: str) -> Any:
    if isinstance(value, str) and kind != "BYTES":
        try:
            return int(value)
        except ValueError:
            return value
    return value
