"""An answer in SQL's rows, as a table, CSV, JSON or Parquet."""

import contextlib
import csv
import io
import itertools
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["write_answer"]

_WIDEST_CELL = 200


def write_answer(
    batches: Iterator[pa.RecordBatch], form: str, target: Path | None, most: int
) -> tuple[int, bool]:
    """Write an answer where it belongs.

    Args:
        batches: the answer; the first has its schema, and may have no rows.
        form: `table`, `csv`, `json` or `parquet`.
        target: a file, which appears when it is whole; None: standard output.
        most: rows of a table; the rest is not read.

    Returns:
        Rows written, and whether there are more.
    """
    first = next(batches)
    if form == "table":
        return _table(first, batches, target, most)
    with _place(target) as file:
        rows = 0
        write = {"csv": _csv, "json": _json, "parquet": _parquet}[form]
        for count in write(first.schema, batches, file):
            rows += count
    return rows, False


@contextlib.contextmanager
def _place(target: Path | None) -> Iterator[IO[bytes]]:
    """A file that is put in its place when everything is in it, or standard output."""
    if target is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        # Of people: for nobody else's eyes, until the owner says otherwise.
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as file:
            yield file
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _table(
    first: pa.RecordBatch, batches: Iterator[pa.RecordBatch], target: Path | None, most: int
) -> tuple[int, bool]:
    from rich.console import Console

    from serving.cli.output import plain_table

    rows = itertools.chain.from_iterable(_rows(batch) for batch in batches)
    table = plain_table(*first.schema.names)
    for place, field in enumerate(first.schema):
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            table.columns[place].justify = "right"
    count = 0
    for row in itertools.islice(rows, most):
        table.add_row(*[_cell(value) for value in row])
        count += 1
    more = next(rows, None) is not None
    with _place(target) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", write_through=True)
        console = Console(file=text, highlight=False, markup=False, emoji=False)
        if target is not None or not sys.stdout.isatty():
            # Nobody looks at its edge: as wide as it is.
            console.width = max(console.measure(table).maximum, 1)
        console.print(table)
        text.flush()
        text.detach()
    return count, more


def _csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: IO[bytes]) -> Iterator[int]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    for batch in batches:
        writer.writerows([[_plain(value) for value in row] for row in _rows(batch)])
        yield batch.num_rows
    text.detach()


def _json(schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: IO[bytes]) -> Iterator[int]:
    before = b"[\n"
    for batch in batches:
        for row in _rows(batch):
            named = dict(zip(schema.names, row, strict=True))
            file.write(before + orjson.dumps(named, default=_other, option=orjson.OPT_UTC_Z))
            before = b",\n"
        yield batch.num_rows
    file.write(b"\n]\n" if before == b",\n" else b"[]\n")


def _parquet(
    schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: IO[bytes]
) -> Iterator[int]:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)
            yield batch.num_rows


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    columns = [column.to_pylist() for column in batch.columns]
    return zip(*columns, strict=True)


def _cell(value: Any) -> str:
    """A value on a screen: short, and nothing that a terminal would obey."""
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list):
        text = "[" + ", ".join(_cell(one) for one in value) + "]"
    else:
        text = "" if value is None else str(_plain(value))
    text = "".join(
        one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text
    )
    return text if len(text) <= _WIDEST_CELL or "\n" in text else text[:_WIDEST_CELL] + "…"


def _plain(value: Any) -> Any:
    """A value in CSV: times in ISO 8601, lists and structures in JSON."""
    if isinstance(value, list | dict):
        return orjson.dumps(value, default=_other, option=orjson.OPT_UTC_Z).decode()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _other(value: Any) -> Any:
    """What JSON has no type for: whole decimals as numbers, the rest as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, tuple):
        return list(value)
    text = str(value)
    return int(value) if text.lstrip("-").isdigit() and abs(int(value)) < 1 << 63 else text
