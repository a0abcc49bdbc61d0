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
from serving.recording.erasing import ErasedFile, RowsErased, Stem, erase_rows
from serving.recording.erasing_labels import LabelsErased, erase_labels
from serving.recording.layout import LogFolder
from serving.recording.reading import FileDamage
from serving.recording.subjects import Subject

__all__ = ["LabelsWanted", "Receipt", "erase", "receipts"]

_RECEIPTS: Final = "erasures.jsonl"


class LabelsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which labels are to go, for the receipt `receipt`; see `erase_labels`."""

    receipt: str
    keys: dict[str, list[str]]
    predictions: list[Stem]
    models: list[str] | None = None


AskHolder = Callable[[LabelsWanted], LabelsErased | None]


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
    ask_holder: AskHolder | None = None,
) -> Receipt:
    """Remove a subject from the log and its labels, and keep the receipt.

    Args:
        log: its folder.
        keys: the subject, values as text.
        models: only theirs; None: all.
        told: is told what goes on.
        ask_holder: asks the process that writes the labels to erase them, where one does.

    Raises:
        ErasureIncomplete: it could not be finished; what was done has its receipt, and erasing
            again goes on. OSError, pa.ArrowException: of the disk.
    """
    subject = Subject.of(log, keys)
    rows, labels = RowsErased(), None
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    try:
        erase_rows(log, subject, models, rows, told)
        told("labels")
        wanted = LabelsWanted(
            receipt=name,
            keys=subject.texts,
            predictions=sorted(rows.labels_of),
            models=None if models is None else sorted(models),
        )
        labels = _labels(log.root / "labels", wanted, ask_holder)
    except BaseException as error:
        if rows.files:  # what is gone is gone: there has to be a receipt
            _keep(log, subject, name, models, rows, labels, error=repr(error))
        raise
    return _keep(log, subject, name, models, rows, labels)


def _keep(  # noqa: PLR0917 - what a receipt is made of
    log: LogFolder,
    subject: Subject,
    name: str,
    models: Collection[str] | None,
    rows: RowsErased,
    labels: LabelsErased | None,
    *,
    error: str = "",
) -> Receipt:
    """Write the receipt."""
    digest = digest_with(log.hash_key())
    receipt = Receipt(
        receipt=name,
        erased_at=datetime.now(UTC),
        who=_who(),
        subject={key: digest(value) for key, value in subject.keys.items()},
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
    folder: Path, wanted: LabelsWanted, ask_holder: AskHolder | None
) -> LabelsErased | None:
    """Erase labels, or have it done; None if another process writes them and does not answer."""
    if not folder.is_dir():
        return LabelsErased()
    lock = try_lock(folder / "lock")
    if lock is None:
        return None if ask_holder is None else ask_holder(wanted)
    try:
        return erase_labels(folder, wanted.keys, wanted.predictions, wanted.models)
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
