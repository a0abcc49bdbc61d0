"""One subject's rows, out of every file of the log.

A file that holds such rows is written anew without them and takes the old one's place; so the old
bytes are gone from the log's folder, whole files at a time. It is done over and over until there
is none left, since answers go on being given. A writer that holds the subject in a segment that it
is still writing is asked to seal it (`prediction_log.py`).

Meanwhile the keeper cannot merge (`keeper.lock`), and what it was about to publish of files that
changed is thrown away (`parquet.py`).
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.errors import SluiceError
from serving.files import stamp, sync_folder, try_lock
from serving.recording.layout import SEAL, LogFolder, SegmentName
from serving.recording.lock import held
from serving.recording.parquet import SOURCES
from serving.recording.reading import (
    FileDamage,
    OpenLog,
    OpenParquet,
    OpenSegment,
    current,
    parquet_files,
    sources_of,
)
from serving.recording.removed import note_erased, sha256_of
from serving.recording.segment import SegmentWriter, read_segment
from serving.recording.subjects import Subject
from serving.recording.writers import is_alive, note_converted

__all__ = ["ErasedFile", "ErasureIncomplete", "RowsErased", "Stem", "erase_rows"]

_PASSES: Final = 50
_SEAL_SECONDS: Final = 15.0
_KEEPER_SECONDS: Final = 60.0
_STEP_SECONDS: Final = 0.05
_TEMPORARY: Final = ".erasing"

Stem = tuple[str, int]
"""The first two parts of a prediction_id and the number of a row: what its label goes by."""


class ErasureIncomplete(SluiceError):
    """Some rows are left. Erasing again goes on where it stopped."""


class ErasedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file that was written anew; `sha256_after` is empty if nothing of it was left."""

    file: str
    model: str
    rows: int
    sha256_before: str
    sha256_after: str


class RowsErased(msgspec.Struct, kw_only=True):
    """What was done."""

    files: list[ErasedFile] = []
    unreadable: list[FileDamage] = []
    """Files that could not be searched, and are as they were."""

    not_by_this_key: list[str] = []
    """Models whose rows do not have these keys: they cannot be told whose they are."""

    labels_of: set[Stem] = set()


class _Match(msgspec.Struct, frozen=True):
    """A file that holds rows of the subject, as it was when it was looked at."""

    path: Path
    model: str
    stamp: tuple[int, ...] | None
    segment: SegmentName | None


def erase_rows(
    log: LogFolder,
    subject: Subject,
    models: Collection[str] | None,
    done: RowsErased,
    told: Callable[[str], None] = lambda _: None,
) -> None:
    """Remove every row of a subject.

    Args:
        log: its folder.
        subject: whose rows.
        models: only theirs; None: all.
        done: is told what was done, also if it is not all.
        told: is told what goes on.

    Raises:
        ErasureIncomplete: a writer does not seal a segment, or rows come faster than they go.
        OSError: the disk does not take the new files; the old ones are then as they were.
    """
    with _no_merging(log):
        _remove_leftovers(log)
        for _ in range(_PASSES):
            told("searching")
            matches = _search(log, subject, models, done)
            if not matches:
                return
            told(f"rewriting {len(matches)} files")
            _await_seals([one for one in matches if _being_written(one)])
            with held(log.lock, alone=True):
                for match in matches:
                    if stamp(match.path) == match.stamp and not _being_written(match):
                        _rewrite(log, match, subject, done)
            _remove_leftovers(log)
    raise ErasureIncomplete(
        "rows of the subject keep coming; stop asking about it, and erase again"
    )


@contextlib.contextmanager
def _no_merging(log: LogFolder) -> Iterator[None]:
    """Have the keepers merge and delete nothing meanwhile."""
    until = time.monotonic() + _KEEPER_SECONDS
    while (descriptor := try_lock(log.root / "keeper.lock")) is None:
        if time.monotonic() > until:
            raise ErasureIncomplete(
                f"the log's keeper, or another erasure, has been busy for {_KEEPER_SECONDS:g} s; "
                "nothing was erased, try again"
            )
        time.sleep(_STEP_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(log: LogFolder) -> None:
    """Remove files that do not count and may hold anybody's rows: halves, and what was replaced."""
    with held(log.lock, alone=True):
        for path in [*log.parquet.rglob(".*"), *log.segments.rglob(f".*{_TEMPORARY}")]:
            path.unlink(missing_ok=True)
        files = parquet_files(log)
        sources = {}
        for file in files:
            if file.merged:
                with contextlib.suppress(OSError, pa.ArrowException, ValueError):
                    sources[file.path] = sources_of(file.path)
        kept = current(files, {name.identity for name in log.live()}, sources)
        for file in files:
            if file not in kept:
                file.path.unlink()


def _search(
    log: LogFolder, subject: Subject, models: Collection[str] | None, done: RowsErased
) -> list[_Match]:
    """Files that have to be written anew."""
    found = []
    lacking: set[str] = set()
    with OpenLog(log, models) as opened:
        for segment in opened.segments:
            before = stamp(segment.name.path)
            if _segment_matches(opened, segment, subject, lacking):
                name = segment.name
                found.append(_Match(name.path, name.model, before, name))
        opened.damages.clear()  # of segments: rewriting leaves those parts out
        for file in list(opened.parquet):
            before = stamp(file.name.path)
            if _parquet_matches(opened, file, subject, lacking):
                found.append(_Match(file.name.path, file.name.model, before, None))
        done.unreadable = list(opened.damages)
    done.not_by_this_key = sorted(lacking)
    return found


def _segment_matches(
    opened: OpenLog, segment: OpenSegment, subject: Subject, lacking: set[str]
) -> bool:
    contents = opened.contents(segment)
    # What cannot be read cannot be searched either: it may be anybody's, and goes.
    if contents.damages and not _grows(segment.name):
        return True
    if not contents.batches:
        return False
    table = pa.Table.from_batches(contents.batches, contents.schema)
    if not set(subject.columns) <= set(table.column_names):
        lacking.add(segment.name.model)
    return subject.rows(table) is not None


def _parquet_matches(
    opened: OpenLog, file: OpenParquet, subject: Subject, lacking: set[str]
) -> bool:
    try:
        with pq.ParquetFile(file.pinned, page_checksum_verification=True) as source:
            if not set(subject.columns) <= set(source.schema_arrow.names):
                lacking.add(file.name.model)
                return False
            return any(
                subject.rows(source.read_row_group(group, columns=subject.columns)) is not None
                for group in range(source.num_row_groups)
            )
    except (pa.ArrowException, OSError) as error:
        opened.exclude(file, str(error))
        return False


def _being_written(match: _Match) -> bool:
    return match.segment is not None and match.path.exists() and _grows(match.segment)


def _grows(segment: SegmentName) -> bool:
    return not segment.sealed and is_alive(segment.path.parent)


def _await_seals(matches: list[_Match]) -> None:
    """Ask writers to seal what they are writing, and wait until they have."""
    for folder in {match.path.parent for match in matches}:
        with contextlib.suppress(FileNotFoundError):  # its writer has ended, and is tidied away
            (folder / SEAL).touch(mode=0o600)
    until = time.monotonic() + _SEAL_SECONDS
    while waiting := [match for match in matches if _being_written(match)]:
        if time.monotonic() > until:
            writers = ", ".join(sorted({match.path.parent.name for match in waiting}))
            raise ErasureIncomplete(
                f"{writers} did not seal its segments within {_SEAL_SECONDS:g} s; rows of the "
                "subject are left in them; erase again when the worker answers, or is gone"
            )
        time.sleep(_STEP_SECONDS)


def _rewrite(log: LogFolder, match: _Match, subject: Subject, done: RowsErased) -> None:
    """Put a file without the subject's rows in its place."""
    before = sha256_of(match.path)
    temporary = match.path.with_name(f".{match.path.name}{_TEMPORARY}")
    temporary.unlink(missing_ok=True)
    write = _segment_without if match.segment is not None else _parquet_without
    try:
        removed, left, stems = write(match, subject, temporary)
        after = sha256_of(temporary) if left else ""
        if match.segment is not None and removed:
            # They were logged, and will not be among those that become Parquet: so that the
            # writer's account still adds up. The same rows give the same name.
            identity = f"erased~{match.segment.identity}~{removed + left}"
            note_converted(match.path.parent, identity, removed)
        if removed:
            note_erased(log, match.path, removed, before)
        if left:
            temporary.replace(match.path)
        else:
            match.path.unlink()
        sync_folder(match.path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    done.labels_of |= stems
    done.files.append(
        ErasedFile(
            file=str(match.path.relative_to(log.root)),
            model=match.model,
            rows=removed,
            sha256_before=before,
            sha256_after=after,
        )
    )


def _segment_without(
    match: _Match, subject: Subject, temporary: Path
) -> tuple[int, int, set[Stem]]:
    """Write a segment without the subject; how many rows went and stay, and which went."""
    contents = read_segment(match.path)
    if contents.schema is None or not contents.batches:
        return 0, 0, set()
    writer = SegmentWriter(temporary, contents.schema)
    removed, stems = 0, set()
    try:
        for batch in contents.batches:
            kept, gone = _split(pa.Table.from_batches([batch]), subject)
            removed += gone.num_rows
            stems |= _stems(gone)
            for one in kept.to_batches():
                writer.write(one)
    finally:
        writer.close()
    return removed, writer.rows, stems


def _parquet_without(
    match: _Match, subject: Subject, temporary: Path
) -> tuple[int, int, set[Stem]]:
    """Write a Parquet file without the subject, group by group."""
    removed, left, stems = 0, 0, set()
    with pq.ParquetFile(match.path, page_checksum_verification=True) as source:
        schema = source.schema_arrow
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for group in range(source.num_row_groups):
                kept, gone = _split(source.read_row_group(group), subject)
                removed += gone.num_rows
                left += kept.num_rows
                stems |= _stems(gone)
                if kept.num_rows:
                    writer.write_table(kept)
            sources = (source.metadata.metadata or {}).get(SOURCES)
            if sources is not None:
                writer.add_key_value_metadata({SOURCES: sources})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    return removed, left, stems


def _split(table: pa.Table, subject: Subject) -> tuple[pa.Table, pa.Table]:
    """Rows that stay, and the subject's."""
    its = subject.rows(table)
    if its is None:
        return table, table.slice(0, 0)
    return table.filter(pc.invert(its)), table.filter(its)


def _stems(rows: pa.Table) -> set[Stem]:
    ids = rows["prediction_id"].to_pylist()
    return {
        ("~".join(one.split("~")[:2]), number)
        for one, number in zip(ids, rows["row"].to_pylist(), strict=True)
        if one
    }
