"""One subject's labels, out of the label store (`LOG/labels`).

The store is a journal of lines (CRC-32 in hex, a space, a JSON batch) and Parquet parts. A label of
the journal is blanked, since those behind it are counted from the batch's first; a part is written
anew without the rows. Whoever calls holds the store's lock, or is the one process that writes it.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from serving.files import write_whole

__all__ = ["LabelsErased", "erase_labels"]

_SEPARATOR: Final = "\x1f"
_BLANK: Final[list[Any]] = ["", "", 0, "", 0, 0.0, None, "", 0, ""]
"""A label of nothing, of no model: model, prediction_id, row, entity, time, …"""

Stem = tuple[str, int]


class LabelsErased(msgspec.Struct, kw_only=True):
    """How many labels went, from which files."""

    labels: int = 0
    files: list[str] = []


class _Whose:
    """Tells the subject's labels: by entity, or by the predictions that were erased."""

    def __init__(self, keys: Mapping[str, Sequence[str]], stems: Collection[Stem]) -> None:
        self._pairs = [{f"{name}={text}" for text in texts} for name, texts in keys.items()]
        self._stems = stems

    def __call__(self, prediction_id: str, row: int, entity: str) -> bool:
        if prediction_id:
            return ("~".join(prediction_id.split("~")[:2]), row) in self._stems
        its = set(entity.split(_SEPARATOR))
        return all(not pairs.isdisjoint(its) for pairs in self._pairs)


def erase_labels(
    folder: Path,
    keys: Mapping[str, Sequence[str]],
    stems: Collection[Stem],
    models: Collection[str] | None,
) -> LabelsErased:
    """Remove a subject's labels from every file.

    Args:
        folder: the label store.
        keys: the subject's; for each name the texts it may stand as: itself and its digest.
        stems: first two parts of the prediction_id, and row, of predictions that were erased.
        models: only theirs; None: all.

    Raises:
        OSError, pa.ArrowException: a file cannot be read or written; others may be done.
    """
    done = LabelsErased()
    whose = _Whose(keys, set(stems))
    for journal in sorted(folder.glob("journal*")):
        _journal(journal, whose, models, done)
    for part in sorted(folder.glob("parts/model=*/*.parquet")):
        if models is None or part.parent.name.removeprefix("model=") in models:
            _part(part, whose, done)
    return done


def _journal(path: Path, whose: _Whose, models: Collection[str] | None, done: LabelsErased) -> None:
    lines, found = [], 0
    for line in path.read_bytes().splitlines():
        batch = _batch(line)
        if batch is None:
            # What cannot be read cannot be searched: it may be anybody's, and goes with the rest.
            found += 1 if line.strip() else 0
            continue
        its = [
            place
            for place, label in enumerate(batch["labels"])
            if models is None or label[0] in models
            if label[0] and whose(label[1], label[2], label[3])
        ]
        for place in its:
            batch["labels"][place] = _BLANK
        done.labels += len(its)
        found += len(its)
        body = msgspec.json.encode(batch)
        lines.append(b"%08x %s\n" % (zlib.crc32(body), body) if its else line + b"\n")
    if found:
        write_whole(path, b"".join(lines))
        done.files.append(path.name)


def _batch(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        batch = msgspec.json.decode(body)
        return batch if isinstance(batch["labels"], list) else None
    except (ValueError, TypeError, KeyError):
        return None


def _part(path: Path, whose: _Whose, done: LabelsErased) -> None:
    table = pq.read_table(path, partitioning=None)
    keep = [
        not whose(*label)
        for label in zip(
            table["prediction_id"].to_pylist(),
            table["row"].to_pylist(),
            table["entity"].to_pylist(),
            strict=True,
        )
    ]
    if all(keep):
        return
    sink = pa.BufferOutputStream()
    pq.write_table(table.filter(pa.array(keep)), sink, compression="zstd")
    # A part without labels stays: its name says up to which revision there were any.
    write_whole(path, sink.getvalue().to_pybytes())
    done.labels += keep.count(False)
    done.files.append(f"{path.parent.name}/{path.name}")
