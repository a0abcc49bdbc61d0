"""The label store: a journal that is flushed line by line, and Parquet parts that it becomes.

    LABELS/journal.jsonl                           batches not compacted yet
    LABELS/parts/model=NAME/FIRST-LAST.parquet     labels by the revisions they cover
    LABELS/lock                                    held by the one process that writes

A line is one batch: CRC-32 in hex, a space, JSON. It counts if it is whole, so a process that is
killed while it writes leaves either all of a batch or nothing. What cannot be read is skipped and
reported, and what stands behind it is read all the same. Every label has a revision, its place in
the order of arrival; nothing is ever changed, and the newest revision of a key is the one that
holds.

Readers look at the journal first and at the parts second: a part is put into place before the
journal is emptied, so a label may be seen twice, never not at all.
"""

import os
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from serving.files import append_line, try_lock, write_whole
from serving.recording.label import Label

__all__ = ["SCHEMA", "Batch", "LabelStore", "LabelStoreBusy", "Lost", "journal_table", "part_files"]

_JOURNAL: Final = "journal.jsonl"
_COMPACT_BYTES: Final = 8 << 20
"""Of journal, some 60,000 labels: it is read again whenever labels are joined."""

_UTC: Final = pa.timestamp("us", tz="UTC")
SCHEMA: Final = pa.schema(
    [
        ("prediction_id", pa.string()), ("row", pa.int32()),
        ("entity", pa.string()), ("time", _UTC), ("tolerance", pa.float64()),
        ("number", pa.float64()), ("text", pa.string()), ("label_time", _UTC),
        ("source", pa.string()), ("actor", pa.string()), ("received", _UTC),
        ("revision", pa.int64()),
    ]
)  # fmt: skip
"""Columns of a part. `prediction_id` is empty where `entity` is not."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Labels that came together: the revision of the first, who sent them, and when (µs)."""

    first: int
    actor: str
    received: int
    labels: list[Label]

    @property
    def last(self) -> int:
        """The revision of the last."""
        return self.first + len(self.labels) - 1


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """A place of the journal that cannot be read: `bytes` of it, from `offset` on."""

    offset: int
    bytes: int


class LabelStoreBusy(OSError):
    """Another process writes this store."""


class LabelStore:
    """Takes labels; the one writer of a folder.

    Args:
        folder: made if it is not there.
        compact_bytes: size from which the journal becomes a part.

    Raises:
        LabelStoreBusy: another process writes it. OSError: the disk's own errors.
    """

    def __init__(self, folder: Path, *, compact_bytes: int = _COMPACT_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(folder / "lock")
        if lock is None:
            raise LabelStoreBusy("another process writes the labels of this data directory")
        self._lock: int | None = lock
        self._folder = folder
        self._journal = folder / _JOURNAL
        self._compact_bytes = compact_bytes
        batches, self.lost = _scan(self._journal)
        """Places of the journal that could not be read at the start."""
        last = max((batch.last for batch in batches), default=0)
        self.revision = max(last, *(_covered(part)[1] for part in _parts(folder)), 0)
        """Of the newest label; 0 if there never was one."""

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def append(self, labels: Sequence[Label], *, actor: str, received: int) -> int:
        """Keep labels, and wait until the disk has them: all, or none if this raises OSError.

        Args:
            labels: in the order in which they hold.
            actor: who says so.
            received: microseconds since 1970.

        Returns:
            The revision of the first.
        """
        first = self.revision + 1
        if labels:
            batch = Batch(first=first, actor=actor, received=received, labels=list(labels))
            append_line(self._journal, _line(batch))
            self.revision = batch.last
        return first

    @property
    def wants_compacting(self) -> bool:
        """Whether the journal is large enough for `compact`."""
        try:
            return self._journal.stat().st_size >= self._compact_bytes
        except FileNotFoundError:
            return False

    def compact(self) -> int:
        """Make parts of the journal and empty it; how many labels. Raises OSError.

        Interrupted at any point it can be done again. A journal with places that cannot be read
        is kept beside, as `journal.FIRST.damaged`.
        """
        batches, lost = _scan(self._journal)
        if not batches and not lost:
            return 0
        first = batches[0].first if batches else self.revision
        for model in sorted({label.model for batch in batches for label in batch.labels}):
            place = self._folder / "parts" / f"model={model}"
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = place / f"{first:012d}-{batches[-1].last:012d}.parquet"
            write_whole(path, _parquet(_table(batches, model)))
        if lost:
            self._journal.replace(self._folder / f"journal.{first:012d}.damaged")
        write_whole(self._journal, b"")
        return sum(len(batch.labels) for batch in batches)

    def erase(
        self, model: str, entities: Collection[str], rows: Collection[tuple[str, int]]
    ) -> int:
        """Delete every label of some entities and of some rows of predictions, for good.

        Args:
            model: whose labels.
            entities: as `serving.recording.label.entity_text` writes them, digests where the log
                has digests.
            rows: `prediction_id` and row.

        Returns:
            How many labels are gone. Raises OSError: some may be; it can be done again.
        """
        self.compact()
        gone = 0
        for part in part_files(self._folder, model):
            table = pq.read_table(part, schema=SCHEMA)
            kept = [
                row["entity"] not in entities and (row["prediction_id"], row["row"]) not in rows
                for row in table.select(["entity", "prediction_id", "row"]).to_pylist()
            ]
            if not all(kept):
                # An empty part stays: its name holds the revisions that are given out.
                write_whole(part, _parquet(table.filter(pa.array(kept))))
                gone += len(kept) - sum(kept)
        for damaged in self._folder.glob("journal.*.damaged"):
            damaged.unlink()  # nobody can tell what is in there
        return gone

    def expire(self, before: int) -> int:
        """Delete parts whose labels all came before a time (µs since 1970); how many parts."""
        gone = 0
        for part in _parts(self._folder):
            received = pq.read_table(part, columns=["received"]).column("received")
            old = len(received) == 0 or received.cast(pa.int64()).to_numpy().max() < before
            # The newest stays: its name holds the revision that is counted on from.
            if old and _covered(part)[1] < self.revision:
                part.unlink()
                gone += 1
        return gone


def journal_table(folder: Path, model: str) -> tuple[pa.Table, int]:
    """Labels of a model that are not in a part yet, and how many places cannot be read."""
    batches, lost = _scan(folder / _JOURNAL)
    return _table(batches, model), len(lost)


def part_files(folder: Path, model: str) -> list[Path]:
    """Parts of a model, oldest first. Ask for them after the journal has been read."""
    return sorted((folder / "parts" / f"model={model}").glob("[0-9]*-[0-9]*.parquet"))


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / "parts").glob("model=*/[0-9]*-[0-9]*.parquet"))


def _covered(part: Path) -> tuple[int, int]:
    first, last = re.findall(r"\d+", part.name)[:2]
    return int(first), int(last)


def _parquet(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _line(batch: Batch) -> bytes:
    body = msgspec.json.encode(batch)
    return b"%08x %s" % (zlib.crc32(body), body)


def _scan(journal: Path) -> tuple[list[Batch], list[Lost]]:
    """Every batch that is whole, and what is not."""
    batches, lost, offset = [], [], 0
    for line in _lines(journal):
        batch = _batch(line)
        if batch is not None:
            batches.append(batch)
        elif line.strip():
            lost.append(Lost(offset=offset, bytes=len(line)))
        offset += len(line)
    return batches, lost


def _lines(journal: Path) -> Iterator[bytes]:
    try:
        with journal.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _batch(line: bytes) -> Batch | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        return msgspec.json.decode(body, type=Batch)
    except (ValueError, msgspec.MsgspecError):
        return None


def _table(batches: Sequence[Batch], model: str) -> Any:
    rows = [
        (batch, batch.first + place, label)
        for batch in batches
        for place, label in enumerate(batch.labels)
        if label.model == model
    ]
    columns: dict[str, list[Any]] = {
        name: [getattr(label, name) for _, _, label in rows]
        for name in (
            "prediction_id", "row", "entity", "time", "tolerance", "number", "text", "label_time",
            "source",
        )
    }  # fmt: skip
    columns["actor"] = [batch.actor for batch, _, _ in rows]
    columns["received"] = [batch.received for batch, _, _ in rows]
    columns["revision"] = [revision for _, revision, _ in rows]
    return pa.table(
        [pa.array(columns[field.name], type=field.type) for field in SCHEMA], schema=SCHEMA
    )
