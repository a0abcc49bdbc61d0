"""From segments to Parquet, one file an hour and writer; later one file an hour.

A file appears under its name when it is whole. Whoever reads while a segment is turned into
files finds the segment: files of a segment that is still there do not count, and a merged file
names those it replaces (key `sluice.sources` of its metadata).
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.files import stamp
from serving.recording.layout import LogFolder, SegmentName
from serving.recording.lock import held
from serving.recording.segment import Damage, read_segment

__all__ = ["SOURCES", "Converted", "convert", "merge"]

SOURCES: Final = b"sluice.sources"
_COMPRESSION: Final = "zstd"
_HOUR: Final = "%Y-%m-%dT%H"


class Converted(msgspec.Struct, frozen=True):
    """What became of a segment."""

    rows: int
    files: list[Path]
    damages: list[Damage]


def convert(
    folder: LogFolder, segment: SegmentName, note: Callable[[int], None] = lambda _: None
) -> Converted:
    """Turn a segment that nobody writes any more into Parquet, and remove it.

    Done again after a crash it gives the same files. `note` is told the number of rows before the
    segment goes.

    Raises:
        OSError: the disk does not take them, or the segment was changed meanwhile (rows were
            erased). The segment is then as it was.
    """
    before = stamp(segment.path)
    contents = read_segment(segment.path)
    parts: list[tuple[Path, Path]] = []
    try:
        if contents.batches:
            table = pa.Table.from_batches(contents.batches)
            hours = pc.strftime(table["event_time"], format=_HOUR)
            for hour in sorted(pc.unique(hours).to_pylist()):
                target = folder.hour(segment.model, hour) / f"{segment.identity}.parquet"
                part = table.filter(pc.equal(hours, hour))
                parts.append((_write(part, target), target))
        with held(folder.lock, alone=True):
            _check_unchanged(segment.path, before)
            for temporary, target in parts:
                temporary.replace(target)
            note(contents.rows)
            segment.path.unlink()
    except OSError:
        for temporary, _ in parts:
            temporary.unlink(missing_ok=True)
        raise
    return Converted(contents.rows, [target for _, target in parts], contents.damages)


def _check_unchanged(path: Path, before: tuple[int, ...] | None) -> None:
    """Raise OSError if a file is another one than it was: rows were erased from it."""
    if stamp(path) != before:
        raise OSError(f"{path.name} was changed while it was read")


def merge(folder: LogFolder, files: Sequence[Path]) -> Path:
    """Make one file of several of one hour. Rows stay in the order of files.

    Never more than one row group is in memory.

    Raises:
        OSError: the disk does not take it. pyarrow.ArrowInvalid: the files do not go together,
            such as a feature that was a number and is a text now; they stay as they are.
    """
    schema = pa.unify_schemas(
        [pq.read_schema(path).remove_metadata() for path in files], promote_options="permissive"
    )
    names = sorted(path.name for path in files)
    schema = schema.with_metadata({SOURCES: json.dumps(names).encode()})
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    target = files[0].with_name(f"merged-{digest}.parquet")
    temporary = _temporary(target)
    try:
        with pq.ParquetWriter(
            temporary, schema, compression=_COMPRESSION, write_page_checksum=True
        ) as writer:
            for path in files:
                with pq.ParquetFile(path, page_checksum_verification=True) as source:
                    for group in range(source.num_row_groups):
                        writer.write_table(_fitted(source.read_row_group(group), schema))
        _synced(temporary)
        with held(folder.lock, alone=True):
            temporary.replace(target)
            for path in files:
                path.unlink()
    except (OSError, pa.ArrowException):
        temporary.unlink(missing_ok=True)
        raise
    return target


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The same rows with a schema's columns; null where there was none."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _write(table: pa.Table, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        pq.write_table(table, temporary, compression=_COMPRESSION, write_page_checksum=True)
        _synced(temporary)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp")


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
