"""The stock of staged model files, and which of them nobody will ask for any more.

Files are staged by digest under DATA/artifacts, what their check found under DATA/checked. A
file stays as long as one of the last `KEPT_REVISIONS` revisions refers to it, or one that a
worker serves or may be loading. Applying an older configuration again stages its files again.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from serving.config.keys import WorkerReport
from serving.control.publishing.journal import Entry, Journal

__all__ = ["KEPT_REVISIONS", "Stock", "Swept", "digests_of", "needed_revisions", "sweep"]

KEPT_REVISIONS: Final = 5

_STAGED: Final = re.compile(r"([0-9a-f]{64})\.(?:onnx|json)")
_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{16}-[0-9a-f]{16}")
_ABANDONED_SECONDS: Final = 86_400.0


class Swept(msgspec.Struct, frozen=True):
    """How much was removed."""

    files: int = 0
    size: int = 0
    """Bytes."""


def needed_revisions(
    journaled: Sequence[int], reports: Iterable[WorkerReport]
) -> frozenset[int] | None:
    """Decide whose files must stay; None if that cannot be told now, so all of them.

    Args:
        journaled: every revision in the journal, oldest first.
        reports: the workers' latest.
    """
    needed = set(journaled[-KEPT_REVISIONS:])
    for report in reports:
        judged = max(report.revision, report.refused_revision)
        if judged == 0:  # it is loading something, and has not said what
            return None
        # Whatever came after the one it last spoke of, it may be loading at this moment.
        needed.update(revision for revision in journaled if revision >= judged)
        if report.revision:
            if report.revision not in journaled:
                return None
            needed.add(report.revision)
    return frozenset(needed)


def digests_of(entries: Iterable[Entry]) -> frozenset[str]:
    """Every file that these revisions refer to, by its SHA-256."""
    return frozenset(
        staged.sha256
        for entry in entries
        for versions in entry.snapshot.staged.values()
        for staged in versions.values()
    )


def sweep(data: Path, keep: frozenset[str], *, now: float | None = None) -> Swept:
    """Remove staged files and results of checks whose digest is not in `keep`.

    Nobody may stage meanwhile. Copies that a crash left unfinished go after a day. Other
    files are left alone, and so is one that cannot be removed. Blocks on the disk.

    Args:
        data: the data directory.
        keep: digests whose files stay.
        now: wall-clock seconds; left out: the clock's.
    """
    now = time.time() if now is None else now
    files = size = 0
    for folder in (data / "artifacts", data / "checked"):
        for file in folder.glob("*") if folder.is_dir() else ():
            try:
                status = file.lstat()
                staged = _STAGED.fullmatch(file.name)
                unneeded = staged is not None and staged[1] not in keep
                old = now - status.st_mtime > _ABANDONED_SECONDS
                if unneeded or (old and _UNFINISHED.fullmatch(file.name)):
                    file.unlink()
                    files, size = files + 1, size + status.st_size
            except OSError:
                continue
    return Swept(files, size)


class Stock:
    """Clears DATA of staged files, after somebody has said that there may be something to clear.

    Args:
        data: the data directory.
        journal: which revision refers to which files.
    """

    def __init__(self, data: Path, journal: Journal, log: logging.Logger) -> None:
        self._data = data
        self._journal = journal
        self._log = log
        self.staging: Final = asyncio.Lock()
        """Held by whoever stages files that no revision refers to yet."""

        self.may_hold_leftovers = True

    async def clear(self, reports: Sequence[WorkerReport]) -> None:
        """Remove what nobody needs; leave that for a later call if it cannot be told now."""
        needed = needed_revisions(self._journal.revisions, reports)
        if needed is None or self.staging.locked():
            return
        async with self.staging:
            try:
                swept = await asyncio.to_thread(self._sweep_all_but, needed)
            except OSError as error:
                self._log.warning("staged files cannot be cleared: %s", error.strerror)
                return
        self.may_hold_leftovers = False
        if swept.files:
            size = swept.size / (1 << 20)
            self._log.info("removed %d staged files (%.1f MiB) of old revisions", swept.files, size)

    def _sweep_all_but(self, revisions: frozenset[int]) -> Swept:
        entries = self._journal.read(revisions)
        if len(entries) < len(revisions):  # one cannot be read, so neither what it refers to
            return Swept()
        return sweep(self._data, digests_of(entries))
