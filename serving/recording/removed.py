"""What was deleted for age or size, and erased: a line a file, written before it is done.

So rows that are missing otherwise are noticed, also after a process was killed in between.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from serving.files import append_line
from serving.recording.layout import LogFolder

__all__ = ["erased_rows", "note_erased", "note_removed", "removed_rows", "sha256_of"]

_REMOVED: Final = "removed.jsonl"
_ERASED: Final = "erased.jsonl"

T = TypeVar("T")


class _Removed(msgspec.Struct, frozen=True):
    """One file, relative to `LOG/parquet`; `rows` is 0 where they could not be told any more."""

    file: str
    rows: int
    reason: str


class _Erased(msgspec.Struct, frozen=True):
    """One file, relative to the log, that had this digest before `rows` rows were left out."""

    file: str
    rows: int
    sha256: str


def note_removed(log: LogFolder, path: Path, reason: str) -> None:
    """Keep that a Parquet file is about to be deleted, and its rows. Raises OSError."""
    try:
        rows = pq.read_metadata(path).num_rows
    except FileNotFoundError:
        return
    except (OSError, pa.ArrowException):
        rows = 0
    line = _Removed(str(path.relative_to(log.parquet)), rows, reason)
    append_line(log.root / _REMOVED, msgspec.json.encode(line))


def removed_rows(log: LogFolder, there: Iterable[Path]) -> int:
    """Rows of all files that were deleted; `there` are those that are not, whatever was noted."""
    rows = {one.file: one.rows for one in _lines(log.root / _REMOVED, _Removed)}
    for path in there:
        rows.pop(str(path.relative_to(log.parquet)), None)
    return sum(rows.values())


def note_erased(log: LogFolder, path: Path, rows: int, sha256: str) -> None:
    """Keep that rows are about to be erased from a file, whose digest is `sha256`. Raises OSError.

    Noted again for the same file with the same digest, after a crash, it counts once.
    """
    line = _Erased(str(path.relative_to(log.root)), rows, sha256)
    append_line(log.root / _ERASED, msgspec.json.encode(line))


def erased_rows(log: LogFolder) -> int:
    """Rows that were erased from all files; not those of a file that is still as it was."""
    noted = {(one.file, one.sha256): one.rows for one in _lines(log.root / _ERASED, _Erased)}
    return sum(rows for (file, digest), rows in noted.items() if not _is(log.root / file, digest))


def sha256_of(path: Path) -> str:
    """Digest of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is(path: Path, digest: str) -> bool:
    try:
        return sha256_of(path) == digest
    except FileNotFoundError:
        return False


def _lines(path: Path, kind: type[T]) -> list[T]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=kind))
        except msgspec.MsgspecError:
            continue  # torn by a crash; it was written again after it
    return found
