"""Receipts of erasures: what was removed, from which files, when and by whom.

`LOG/erasures.jsonl`, one a line. A receipt names nobody: the subject stands in it as the digest
that hashed fields of this log have.
"""

import getpass
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from serving.files import append_line, try_lock
from serving.recording.columns import digest_with
from serving.recording.erasing import ErasedFile, RowsErased, erase_rows
from serving.recording.erasing_labels import LabelsErased, erase_labels
from serving.recording.layout import LogFolder
from serving.recording.reading import FileDamage
from serving.recording.subjects import Subject

__all__ = ["Receipt", "erase", "receipts"]

_RECEIPTS: Final = "erasures.jsonl"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure."""

    receipt: str
    """Its own name."""

    erased_at: datetime
    who: str
    """The user of the machine who asked."""

    subject: dict[str, str]
    """Keys, with a keyed digest of each value."""

    models: list[str]
    """Those that were searched; empty: all."""

    rows: int
    files: list[ErasedFile]
    labels: int = 0
    label_files: list[str] = []
    labels_held: bool = False
    """Another process writes the labels, so they are as they were."""

    unreadable: list[FileDamage] = []
    """Files that could not be searched, and are as they were."""

    not_by_this_key: list[str] = []
    """Models that keep rows without these keys: whose they are cannot be told."""

    error: str = ""
    """Why it ended before everything was done."""

    @property
    def complete(self) -> bool:
        """Whether everything was searched, and nothing is left."""
        return not (self.unreadable or self.labels_held or self.error)


def erase(
    log: LogFolder,
    keys: Mapping[str, str],
    models: Collection[str] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Receipt:
    """Remove a subject from the log and its labels, and keep the receipt.

    Args:
        log: its folder.
        keys: the subject, values as text.
        models: only theirs; None: all.
        told: is told what goes on.

    Raises:
        ErasureIncomplete: it could not be finished; what was done has its receipt, and erasing
            again goes on. OSError, pa.ArrowException: of the disk.
    """
    rows, labels = RowsErased(), None
    try:
        erase_rows(log, Subject.of(log, keys), models, rows, told)
        told("labels")
        labels = _labels(log.root / "labels", keys, rows, models)
    except BaseException as error:
        if rows.files:  # what is gone is gone: there has to be a receipt
            _keep(log, keys, models, rows, None, error=repr(error))
        raise
    return _keep(log, keys, models, rows, labels)


def _keep(
    log: LogFolder,
    keys: Mapping[str, str],
    models: Collection[str] | None,
    rows: RowsErased,
    labels: LabelsErased | None,
    *,
    error: str = "",
) -> Receipt:
    """Write the receipt."""
    digest = digest_with(log.hash_key())
    now = datetime.now(UTC)
    receipt = Receipt(
        receipt=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        erased_at=now,
        who=_who(),
        subject={name: digest(value) for name, value in keys.items()},
        models=sorted(models or ()),
        rows=sum(file.rows for file in rows.files),
        files=rows.files,
        labels=labels.labels if labels is not None else 0,
        label_files=labels.files if labels is not None else [],
        labels_held=labels is None,
        unreadable=rows.unreadable,
        not_by_this_key=rows.not_by_this_key,
        error=error,
    )
    append_line(log.root / _RECEIPTS, msgspec.json.encode(receipt))
    return receipt


def _labels(
    folder: Path, keys: Mapping[str, str], rows: RowsErased, models: Collection[str] | None
) -> LabelsErased | None:
    """Erase labels; None if another process writes them."""
    if not folder.is_dir():
        return LabelsErased()
    lock = try_lock(folder / "lock")
    if lock is None:
        return None
    try:
        return erase_labels(folder, keys, rows.labels_of, models)
    finally:
        os.close(lock)


def receipts(log: LogFolder) -> list[Receipt]:
    """Every receipt of a log, oldest first. Raises OSError."""
    try:
        lines = (log.root / _RECEIPTS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Receipt))
        except msgspec.MsgspecError:
            continue  # torn by a crash
    return found


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return f"uid {os.getuid()}"
