"""Evidence of rollouts: what workers wrote is added to the book, kept, and confirmed to them.

One look: read what stands in the store, write what is new to the disk, add it to the book, then in
one transaction write it to the store and confirm it. After a crash anywhere in between workers tell
again what was not confirmed, and the book knows what it has. A store that comes back empty, or
older, gets the whole book; a disk that comes back empty gets the store's.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from serving.clock import Clock
from serving.config.schema import Rule
from serving.control.rollouts.evidence_entries import Entries, Read
from serving.control.rollouts.evidence_log import RolloutEvidenceLog
from serving.control.stores.evidence_store import Confirmation
from serving.control.stores.store import Store
from serving.rollout.book import Book
from serving.rollout.wire import Unfolded

__all__ = ["COMPACT_BYTES", "Evidence"]

COMPACT_BYTES: Final = 4 << 20
"""A log longer than this is replaced by a snapshot: minutes of traffic at 1,000 new keys a
second, and a second to read again."""

_PICTURE_BYTES: Final = 32 << 20
"""The store gets no larger book: it has to be there within the bound of one call. Sixteen rules
whose sets are half full; then only the disk has it."""

_TOO_LARGE: Final = b"-"

_AT_ONCE: Final = 20
"""Batches that are added before the loop has its turn: about 10 ms."""


class Evidence:
    """The books of rollouts that are going on.

    Args:
        store: where workers write, and a second copy of each book is.
        folder: `DATA/rollouts`.
        clock: its monotonic time says when a worker has been silent for a day.
        log: hears of what was refused, damaged or replaced.
        compact_bytes: see `COMPACT_BYTES`.

    A look that fails changes nothing that a later one does not put right; its caller may also be
    cancelled, and the look goes on.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        clock: Clock,
        log: logging.Logger,
        *,
        compact_bytes: int = COMPACT_BYTES,
    ) -> None:
        self._store = store.evidence
        self._folder = folder
        self._clock = clock
        self._log = log
        self._compact_bytes = compact_bytes
        self._open: dict[str, _Rollout] = {}
        self._opening = asyncio.Lock()

    async def open(self, model: str, rollout_id: str, rules: list[Rule]) -> Book:
        """Take a rollout's book up where the disk has it; a new one is empty. Raises OSError.

        Again for one that is open: with the rules as they are now.
        """
        async with self._opening:
            if found := self._open.get(rollout_id):
                found.disk.follow(rules)
                return found.disk.book
            folder = self._folder / model / rollout_id
            disk = await asyncio.to_thread(RolloutEvidenceLog, folder, rules)
            self._tell(rollout_id, disk)
            self._open[rollout_id] = _Rollout(disk, Entries(rollout_id, self._clock, self._log))
            return disk.book

    async def look(self, rollout_id: str) -> Book:
        """Add what workers have written since the last look, keep it and confirm it.

        Looks that overlap are one.

        Raises:
            KeyError: the rollout is not open.
            StoreUnavailable: `book` is as far as it could be read; it is confirmed later.
            OSError: the disk takes nothing; nothing was added, and workers keep it.
        """
        rollout = self._open[rollout_id]
        if rollout.looking is None or rollout.looking.done():
            rollout.looking = asyncio.create_task(self._look(rollout_id, rollout))
            # Somebody has looked at its error then, though its caller may be gone.
            rollout.looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(rollout.looking)
        return rollout.disk.book

    def book(self, rollout_id: str) -> Book | None:
        """The book as of the last look; None for a rollout that is not open."""
        found = self._open.get(rollout_id)
        return found.disk.book if found else None

    def lost(self, rollout_id: str) -> dict[str, int]:
        """By reason: evidence that is known to be missing, and workers whose words are refused."""
        rollout = self._open[rollout_id]
        refused = {"workers_refused": rollout.entries.refused} if rollout.entries.refused else {}
        return rollout.disk.book.lost | refused

    async def close(self, rollout_id: str) -> None:
        """Write one last snapshot and let go of the files. Raises OSError."""
        rollout = self._open.pop(rollout_id, None)
        if rollout is None:
            return
        if rollout.looking is not None:
            await asyncio.wait([rollout.looking])
        try:
            if rollout.disk.size:
                picture = await asyncio.to_thread(rollout.disk.picture)
                await asyncio.to_thread(rollout.disk.compact, picture)
        finally:
            rollout.disk.close()

    async def forget(self, rollout_id: str) -> None:
        """Remove a rollout that is over from the store; the disk keeps it.

        Raises:
            StoreUnavailable: it is still there.
        """
        await self._store.forget(rollout_id)

    def _tell(self, rollout_id: str, disk: RolloutEvidenceLog) -> None:
        """What the files could not give back."""
        if disk.damage:
            self._log.error(
                "rollout %s: its evidence on this disk is damaged (%s); the store's copy is taken "
                "if it has more, else what is missing is counted as lost",
                *(rollout_id, disk.damage),
            )
        elif disk.cut:
            self._log.warning(
                "rollout %s: the last %d bytes of its evidence log were not written to their end "
                "and are cut off; workers tell of them again",
                *(rollout_id, disk.cut),
            )

    async def _look(self, rollout_id: str, rollout: "_Rollout") -> None:
        disk, entries = rollout.disk, rollout.entries
        index = await self._store.index(rollout_id)
        if index.mark > disk.position:
            await self._adopt(rollout_id, disk)
        wanted = entries.wanted(index.sizes)
        contents = await self._store.unfolded(rollout_id, wanted)
        read, frame = await asyncio.to_thread(_take, disk, entries, contents)
        if frame:
            await _add(disk.book, read.added)
            disk.advance(frame)
        confirmation = _confirmation(disk, read, frame, entries.silent())
        behind = index.mark != disk.position - bool(frame)
        if not behind and disk.size <= self._compact_bytes:
            if not frame and not confirmation.gone:
                return
            if await self._store.confirm(rollout_id, confirmation):
                return
        await self._write_whole(rollout_id, disk, confirmation.gone)

    async def _adopt(self, rollout_id: str, disk: RolloutEvidenceLog) -> None:
        stored = await self._store.book(rollout_id)
        try:
            adopted = await asyncio.to_thread(disk.adopt, stored)
        except ValueError as error:
            self._log.error("rollout %s: the store's book cannot be read: %s", rollout_id, error)
            return
        if adopted:
            self._log.warning(
                "rollout %s: the store had more evidence than this disk; going on from frame %d",
                *(rollout_id, disk.position),
            )
        else:
            self._log.error(
                "rollout %s: store and disk have different evidence, as if two gateways used one "
                "store; the disk's is kept",
                rollout_id,
            )

    async def _write_whole(
        self, rollout_id: str, disk: RolloutEvidenceLog, gone: tuple[str, ...]
    ) -> None:
        picture = await asyncio.to_thread(disk.picture)
        await asyncio.to_thread(disk.compact, picture)
        if len(picture) > _PICTURE_BYTES:
            picture = _TOO_LARGE
        whole = Confirmation(
            mark=disk.position,
            folded=disk.book.folded,
            counts=_counts(disk.book),
            picture=picture,
            gone=gone,
        )
        await self._store.confirm(rollout_id, whole)


@dataclass
class _Rollout:
    disk: RolloutEvidenceLog
    entries: Entries
    looking: asyncio.Task[None] | None = None


def _take(
    disk: RolloutEvidenceLog, entries: Entries, contents: dict[str, bytes]
) -> tuple[Read, bytes]:
    """Find what is new and write it to the disk; the book is as it was."""
    read = entries.read(disk.book, contents)
    return read, disk.write(read.added) if read.added else b""


async def _add(book: Book, added: list[Unfolded]) -> None:
    """Add to the book, in this thread because others read it here, and let them in between."""
    for unfolded in added:
        for begin in range(0, len(unfolded.batches), _AT_ONCE):
            batches = unfolded.batches[begin : begin + _AT_ONCE]
            book.add(msgspec.structs.replace(unfolded, batches=batches))
            await asyncio.sleep(0)


def _confirmation(
    disk: RolloutEvidenceLog, read: Read, frame: bytes, silent: list[str]
) -> Confirmation:
    folded = disk.book.folded
    return Confirmation(
        mark=disk.position,
        folded={one.incarnation: folded[one.incarnation] for one in read.added},
        counts=_counts(disk.book),
        frame=frame,
        gone=tuple({*read.ended, *silent}),
    )


def _counts(book: Book) -> bytes:
    # Durations are most of its bytes, and of no use to who looks at the store.
    return msgspec.json.encode(msgspec.structs.replace(book.counts, seconds=([], [])))
