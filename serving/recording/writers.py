"""Writers of the log that are gone: what they had counted, and what a crash cost."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from serving.files import append_line, is_held
from serving.recording.layout import LogFolder
from serving.recording.ledger import DROPPED, read_ledger

__all__ = ["Account", "account", "accounts", "close_account", "is_alive", "note_converted"]

_CONVERTED: Final = "converted.jsonl"
_ACCOUNTS: Final = "writers.jsonl"


class Account(msgspec.Struct, frozen=True):
    """What became of the rows offered to one writer; it adds up.

    offered = logged + sampled_out + each of `dropped` + held + crash + damaged
    """

    node: str
    writer: str
    offered: int
    logged: int
    """Rows that can be read."""

    sampled_out: int
    dropped: dict[str, int]
    held: int = 0
    """Not written yet by a writer that is alive."""

    crash: int = 0
    """Not written when the process died."""

    damaged: int = 0
    """Written, and not readable any more."""

    alive: bool = False


class _Converted(msgspec.Struct):
    segment: str
    rows: int


def is_alive(folder: Path) -> bool:
    """Whether a writer's process still runs: it holds its ledger."""
    try:
        return is_held(folder / "ledger")
    except FileNotFoundError:
        return False


def note_converted(folder: Path, segment: str, rows: int) -> None:
    """Keep how many rows of a writer have become Parquet. Raises OSError."""
    append_line(folder / _CONVERTED, msgspec.json.encode(_Converted(segment, rows)))


def account(folder: Path, live_rows: Mapping[str, int]) -> Account:
    """Draw up a writer's account.

    Args:
        folder: the writer's.
        live_rows: readable rows of its segments that are there, by their identity.

    Raises:
        OSError, ValueError: there is no ledger to go by.
    """
    alive = is_alive(folder)
    counts = read_ledger(folder / "ledger")
    rows = {line.segment: line.rows for line in _converted(folder)} | dict(live_rows)
    readable = sum(rows.values())
    dropped = {reason: counts[reason] for reason in DROPPED}
    damaged = max(0, counts["logged"] - readable)
    missing = counts["offered"] - counts["sampled_out"] - sum(dropped.values()) - readable - damaged
    return Account(
        node=folder.parent.name,
        writer=folder.name,
        offered=counts["offered"],
        logged=readable,
        sampled_out=counts["sampled_out"],
        dropped=dropped,
        held=missing if alive else 0,
        crash=0 if alive else missing,
        damaged=damaged,
        alive=alive,
    )


def close_account(log: LogFolder, folder: Path) -> Account:
    """Draw up the account of a writer that is gone and has no segments left; remove its folder."""
    closed = account(folder, {})
    append_line(log.root / _ACCOUNTS, msgspec.json.encode(closed))
    shutil.rmtree(folder)
    return closed


def accounts(log: LogFolder) -> list[Account]:
    """Accounts of the writers that are gone for good, each once."""
    try:
        lines = (log.root / _ACCOUNTS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: dict[tuple[str, str], Account] = {}
    for line in lines:
        try:
            one = msgspec.json.decode(line, type=Account)
        except msgspec.DecodeError:
            continue  # torn by a crash; it was written again after it
        found[one.node, one.writer] = one
    return list(found.values())


def _converted(folder: Path) -> list[_Converted]:
    try:
        lines = (folder / _CONVERTED).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=_Converted))
        except msgspec.DecodeError:
            continue
    return found
