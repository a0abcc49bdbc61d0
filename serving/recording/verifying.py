"""Whether the log is whole: every byte is read, and every row that was offered accounted for.

For each writer, alive or gone,

    offered = logged + sampled_out + dropped by reason + held + crash + damaged

(`writers.py`), and of all of them together the rows that are there are the rows logged, less
those that were erased (`erased.jsonl`) or deleted for age or size (`removed.jsonl`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from serving.recording.layout import LogFolder
from serving.recording.ledger import read_ledger
from serving.recording.lock import held
from serving.recording.reading import FileDamage, OpenLog, parquet_files
from serving.recording.removed import erased_rows, removed_rows
from serving.recording.writers import Account, account, accounts

__all__ = ["Verdict", "judge", "total_of", "verify"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `size` is in bytes; `rows` are those that can be read."""

    sound: bool
    """Nothing is damaged, and everything adds up."""

    files: int
    size: int
    rows: int
    erased: int
    """Rows that `sluice log erase` left out."""

    removed: int
    """Rows that were deleted: too old, or over `max_size`."""

    missing: int
    """Rows that were logged and are not there, and nobody says why."""

    writers: list[Account]
    damages: list[FileDamage]
    problems: list[str]
    """What does not add up, in words."""


def verify(folder: LogFolder) -> Verdict:
    """Read everything.

    Writers may go on; the keeper waits until the segments have been read.

    Raises:
        OSError: the log cannot be read.
    """
    with held(folder.lock, alone=False):
        log = OpenLog(folder)
        try:
            # What a writer had logged before its segments are read has to be in them.
            before = {path.parent: _logged(path) for path in folder.segments.glob("*/*/ledger")}
            segments = _segment_rows(log)
            closed = {(one.node, one.writer): one for one in accounts(folder)}
            for place, logged in sorted(before.items()):
                one = _account(place, segments.get(place, {}), logged)
                if one is not None:
                    closed.setdefault((one.node, one.writer), one)
            erased = erased_rows(folder)
            removed = removed_rows(folder, [file.path for file in parquet_files(folder)])
        except BaseException:
            log.close()
            raise
    with log:
        files = [*(one.pinned for one in log.segments), *(one.pinned for one in log.parquet)]
        size = sum(file.stat().st_size for file in files)
        rows = sum(sum(one.values()) for one in segments.values())
        rows += sum(log.check(file) or 0 for file in list(log.parquet))
    orphans = sorted(str(place.relative_to(folder.segments)) for place in segments.keys() - before)
    return judge(
        list(closed.values()),
        files=len(files),
        size=size,
        rows=rows,
        erased=erased,
        removed=removed,
        damages=log.damages,
        orphans=orphans,
    )


def judge(
    writers: Sequence[Account],
    *,
    files: int,
    size: int,
    rows: int,
    erased: int,
    removed: int = 0,
    damages: Sequence[FileDamage] = (),
    orphans: Sequence[str] = (),
) -> Verdict:
    """Say whether the numbers add up.

    Args:
        writers: accounts of all there ever were.
        files: how many are there.
        size: of them in bytes.
        rows: in them that can be read.
        erased: rows that were erased.
        removed: rows deleted for age or size.
        damages: what cannot be read.
        orphans: writers whose ledger is missing.
    """
    problems = []
    for one in writers:
        name = f"{one.node}/{one.writer}"
        if one.held < 0 or one.crash < 0:
            more = -(one.held + one.crash)
            problems.append(f"{name} has {more} rows more than it was offered")
        if one.damaged:
            problems.append(f"{one.damaged} rows that {name} had logged cannot be read")
    problems += [
        f"{name} has segments and no ledger: its rows are not accounted for" for name in orphans
    ]
    logged = sum(one.logged for one in writers)
    missing = logged - erased - removed - rows
    if missing > 0 and not damages:
        problems.append(
            f"{missing} rows are missing: files were deleted, and not by the log's own keeper"
        )
    if missing < 0 and not orphans:
        problems.append(
            f"there are {-missing} rows more than were logged: files were copied into the log, or "
            "writers.jsonl, which holds the accounts, has lost lines"
        )
    return Verdict(
        sound=not (problems or damages),
        files=files,
        size=size,
        rows=rows,
        erased=erased,
        removed=removed,
        missing=max(0, missing),
        writers=sorted(writers, key=lambda one: (one.node, one.writer)),
        damages=list(damages),
        problems=problems,
    )


def _logged(ledger: Path) -> int:
    try:
        return read_ledger(ledger)["logged"]
    except (OSError, ValueError):
        return 0


def _segment_rows(log: OpenLog) -> dict[Path, dict[str, int]]:
    """Readable rows of segments by writer's folder and segment."""
    found: dict[Path, dict[str, int]] = {}
    for segment in log.segments:
        rows = log.contents(segment).rows
        found.setdefault(segment.name.path.parent, {})[segment.name.identity] = rows
    return found


def _account(place: Path, rows: Mapping[str, int], logged: int) -> Account | None:
    """A writer's account; None if it has been closed meanwhile."""
    try:
        one = account(place, rows)
    except FileNotFoundError:
        return None
    if not one.alive:
        return one
    # It goes on: what it logged since its segments were read is held, as far as we can see.
    damaged = max(0, logged - one.logged)
    return replace(one, damaged=damaged, held=one.held + one.damaged - damaged)


def total_of(writers: Iterable[Account]) -> Account:
    """The sum of accounts."""
    writers = list(writers)
    dropped = Counter[str]()
    for one in writers:
        dropped.update(one.dropped)
    sums = {
        name: sum(getattr(one, name) for one in writers)
        for name in ("offered", "logged", "sampled_out", "held", "crash", "damaged")
    }
    return Account(node="", writer="", dropped=dict(dropped), **sums)
