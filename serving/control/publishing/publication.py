"""What is served now: written down first, then told to workers, and repaired where it is lost.

A change goes journal (flushed to disk) → model hosts, engine → store → workers, in that order.
Whatever dies in between, the journal says what was decided, and `reconcile` brings the store
back to it. The revision only grows; a store that is ahead of the journal wins, because workers
follow it. One caller at a time.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from serving.clock import Clock
from serving.config.applied import Applied
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.control.fleet.host_list import HostList
from serving.control.fleet.rolls import Rolls
from serving.control.publishing.journal import Action, Entry, Journal
from serving.control.publishing.origin import Origin
from serving.control.publishing.plan import without_secrets
from serving.control.stores.store import Store
from serving.errors import Conflict, InvalidConfig, ServingError, StoreUnavailable
from serving.files import write_whole

__all__ = ["Publication"]

_FROM_A_DIRECTORY: Final[frozenset[Action]] = frozenset({"start", "apply", "adopt"})


class Publication:
    """The current snapshot and settings, on disk and in the store.

    Args:
        store: where workers read.
        journal: what was published before.
        running: the settings that processes go by.
        rolls: has the engine follow others; None: nobody follows.
        data: the data directory.
        clock: wall-clock time of entries.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        running: Applied,
        *,
        rolls: Rolls | None,
        data: Path,
        clock: Clock,
        log: logging.Logger,
    ) -> None:
        self._store = store
        self.journal = journal
        self.running = running
        self._rolls = rolls
        self._data = data
        self._clock = clock
        self._log = log
        self.hosts = HostList(data, log)

    @property
    def current(self) -> Snapshot | None:
        """What workers should serve; None before the first configuration."""
        return self.journal.last.snapshot if self.journal.last else None

    @property
    def revision(self) -> int:
        """Of `current`, 0 before the first."""
        return self.current.revision if self.current else 0

    @property
    def generation(self) -> int:
        """Of the settings that were journaled last, 0 before the first."""
        return self.journal.last.generation if self.journal.last else 0

    async def adopt_if_ahead(self) -> None:
        """Go on from what is in the store, if that is later than the journal."""
        stored = await self._store.snapshot()
        if stored is not None and stored.revision > self.revision:
            await self._adopt(stored)

    async def adopt_from_disk(self) -> None:
        """Count on from what workers last served, where journal and store have been lost.

        Workers ignore a revision that is not higher than their own, so beginning at 1 again
        would leave them with the old plan while everything seems in order.
        """
        served = await asyncio.to_thread(_last_served, self._data / "snapshot.json")
        if served is not None and served.revision > self.revision:
            await self._adopt(served, "a worker's disk")

    async def _adopt(self, stored: Snapshot, where: str = "the store") -> None:
        self._log.warning(
            "%s holds revision %d, the journal %d; going on from there",
            where,
            stored.revision,
            self.revision,
        )
        await self._record(stored, "adopt", reason=f"found in {where}")

    async def reconcile(self) -> None:
        """Follow a store that is ahead; fill one that has lost the current snapshot."""
        stored = await self._store.snapshot()
        current = self.current
        if stored is not None and stored.revision > self.revision:
            await self._adopt(stored)
        elif (
            current is not None
            and (stored is None or stored.revision < current.revision)
            and await self._store.publish(current)
        ):
            was = "nothing" if stored is None else f"revision {stored.revision}"
            self._log.info("published revision %d (the store held %s)", current.revision, was)

    async def commit(
        self,
        snapshot: Snapshot,
        action: Action,
        *,
        reason: str = "",
        directory: str = "",
        must_reach: bool,
        settings: Applied | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Journal, then publish. With `must_reach` nothing happens while the store is away.

        `settings` are what the engine is to follow from now on, once that is journaled.

        Raises:
            Conflict: another writer was faster.
            StoreUnavailable: the store does not answer, and must be reached.
            ServingError: the journal cannot be written.
        """
        # What workers could not read must neither reach them nor be journaled.
        decode_snapshot(encode_snapshot(snapshot))
        if must_reach:
            before = await self._store.snapshot()
            if before is not None and before.revision >= snapshot.revision:
                await self.adopt_if_ahead()
                raise Conflict(
                    f"another writer has published revision {before.revision}; plan again",
                    before.revision,
                )
        await self._record(
            snapshot,
            action,
            reason=reason,
            directory=directory,
            settings=settings,
            origin=origin,
        )
        try:
            published = await self._store.publish(snapshot)
        except StoreUnavailable as error:
            # It was there a moment ago. The decision is on disk; `keep` carries it out.
            self._log.warning("revision %d waits for the store: %s", snapshot.revision, error)
            return
        if not published:
            stored = await self._store.snapshot()
            if stored is not None:
                await self._record(stored, "adopt", reason="another writer was faster")
                raise Conflict("another writer was faster; plan again", stored.revision)
        self._log.info("published revision %d (%s)", snapshot.revision, action)

    async def _record(
        self,
        snapshot: Snapshot,
        action: Action,
        *,
        reason: str = "",
        directory: str = "",
        settings: Applied | None = None,
        origin: Origin | None = None,
    ) -> None:
        generation = self.generation
        if action not in _FROM_A_DIRECTORY and self.journal.last is not None:
            origin = self.journal.last.origin  # the same files, served another way
        try:
            if settings is not None and self._rolls is not None:
                generation = await asyncio.to_thread(self._rolls.prepare, settings, generation)
            entry = Entry(
                snapshot=snapshot,
                gateway=without_secrets((settings or self.running).gateway),
                author=snapshot.author,
                at=self._clock.wall(),
                action=action,
                reason=reason,
                directory=directory,
                generation=generation,
                origin=origin,
            )
            await asyncio.to_thread(self.journal.append, entry)
        except OSError as error:
            raise ServingError(
                f"the journal cannot be written ({error.strerror}), so nothing was changed"
            ) from error
        await self.hosts.announce(snapshot)
        if settings is not None:
            before, self.running = self.running, settings
            if self._rolls is not None:
                await asyncio.to_thread(self._rolls.follow, before, settings, generation)
        try:
            await asyncio.to_thread(
                write_whole, self._data / "snapshot.json", encode_snapshot(snapshot)
            )
        except OSError as error:
            self._log.warning("the last good snapshot could not be written: %s", error.strerror)


def _last_served(file: Path) -> Snapshot | None:
    try:
        return decode_snapshot(file.read_bytes())
    except (OSError, InvalidConfig):
        return None
