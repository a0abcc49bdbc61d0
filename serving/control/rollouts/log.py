"""What has happened in every rollout: on this disk first, then in the store, restored from either.

`DATA/rollouts/<model>/<id>/events.jsonl`, one event a line, flushed to the disk before anything
follows from it; in the store a hash for each rollout (`rollout_events_key`), where an event is
written once and stays. An event that is on the disk has happened, whatever dies then.

Of two lines with one revision the later counts: the earlier was another control's turn, or the disk
said that it had not taken it. A line that a crash cut off never happened.
"""

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from serving.control.stores.store import Store
from serving.errors import Conflict, ServingError, StoreUnavailable
from serving.files import append_line, try_lock
from serving.rollout.applied import number_of
from serving.rollout.state import Event, IllegalEvent, RolloutState, after

__all__ = ["EVENTS_FILE", "RolloutLog", "Told", "read_events"]

EVENTS_FILE: Final = "events.jsonl"
_LOCK_FILE: Final = "lock"
_LOG = logging.getLogger("rollouts")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout: its events in order, and what they add up to."""

    state: RolloutState
    events: tuple[Event, ...] = ()


class RolloutLog:
    """Every rollout's events; one process writes them, one caller at a time.

    Args:
        folder: `DATA/rollouts`.
        store: where they are also kept.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._told: dict[str, Told] = {}
        self._lock: int | None = None

    def of(self, model: str) -> list[Told]:
        """A model's rollouts, oldest first."""
        return [told for told in self._told.values() if told.state.model == model]

    def last(self, model: str) -> Told | None:
        """A model's last rollout."""
        found = self.of(model)
        return found[-1] if found else None

    @property
    def models(self) -> list[str]:
        """Models that ever had one."""
        return sorted({told.state.model for told in self._told.values()})

    # --- restoring ----------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is on the disk, and hold it: of two processes one writes.

        Raises:
            Conflict: another process holds it; it is free when that has ended, however.
            OSError: the disk cannot be used.
        """
        if self._lock is None:
            self._lock = await asyncio.to_thread(_hold, self._folder)
        if self._lock is None:
            raise Conflict("another control process moves the rollouts of this data directory", 0)
        found = await asyncio.to_thread(_read_all, self._folder)
        self._told = {}
        for rollout, events in found.items():
            self._keep(rollout, events)

    async def reconcile(self) -> None:
        """Bring disk and store to the same: what only one of them has the other gets.

        Raises:
            StoreUnavailable: the store does not answer. OSError: the disk does not take it.
        """
        there = await self._store.rollouts()
        for rollout in sorted({*there, *self._told}, key=number_of):
            told = self._told.get(rollout)
            mine = len(told.events) if told is not None else 0
            if there.get(rollout, 0) > mine:
                await self._adopt(rollout)
            elif told is not None and there.get(rollout, 0) < mine:
                await self._give(told)

    async def _give(self, told: Told) -> None:
        rollout = told.state.id
        events = {event.revision: _encoded(event) for event in told.events}
        if await self._store.add_rollout_events(rollout, events):
            _LOG.info("%s: the store has its %d events again", rollout, len(events))
        else:
            _LOG.error("%s: the store holds other events than this disk", rollout)

    async def _adopt(self, rollout: str) -> None:
        """Take over what the store has and this disk has not, or has otherwise."""
        if not _is_identifier(rollout):
            return  # the store is not only ours
        stored = _in_order(map(_decoded, (await self._store.rollout_events(rollout)).values()))
        told = self._told.get(rollout)
        mine = told.events if told is not None else ()
        new = [
            event
            for place, event in enumerate(stored)
            if place >= len(mine) or mine[place] != event
        ]
        if len(stored) < len(mine) or not new:
            return
        for event in new:
            await asyncio.to_thread(_append, self._folder, rollout, event)
        _LOG.warning("%s: %d events were found in the store", rollout, len(new))
        self._keep(rollout, stored)

    def close(self) -> None:
        """Let go of the disk."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- writing ------------------------------------------------------------------------------

    async def begin(self, rollout: str, model: str, event: Event) -> RolloutState:
        """Write the first event of a rollout. See `append`."""
        return await self._write(RolloutState(id=rollout, model=model), (), event)

    async def append(self, rollout: str, event: Event) -> RolloutState:
        """Write an event: disk, then store; it has happened once it is on the disk.

        Raises:
            IllegalEvent: it cannot follow; nothing is written.
            Conflict: another control was faster; its events are taken over.
            ServingError: the disk does not take it; nothing has happened.
        """
        told = self._told[rollout]
        return await self._write(told.state, told.events, event)

    async def _write(
        self, state: RolloutState, events: tuple[Event, ...], event: Event
    ) -> RolloutState:
        new = after(state, event)
        await self._refuse_if_behind(state)
        try:
            await asyncio.to_thread(_append, self._folder, state.id, event)
        except OSError as error:
            raise ServingError(
                f"the event of {state.id} cannot be written ({error.strerror}), so nothing was done"
            ) from error
        self._told[state.id] = Told(state=new, events=(*events, event))
        try:
            written = await self._store.add_rollout_events(
                state.id, {event.revision: _encoded(event)}
            )
        except StoreUnavailable as error:
            _LOG.warning("%s: event %d waits for the store: %s", state.id, event.revision, error)
            return new
        if not written:
            await self._adopt(state.id)
            raise Conflict(f"another control moves {state.id}", self._told[state.id].state.revision)
        return new

    async def _refuse_if_behind(self, state: RolloutState) -> None:
        try:
            there = (await self._store.rollouts()).get(state.id, 0)
        except StoreUnavailable:
            return  # an abort does not wait for the store; what was written meanwhile is compared
        if there > state.revision:
            await self._adopt(state.id)
            raise Conflict(f"another control moves {state.id}", there)

    def _keep(self, rollout: str, events: Iterable[Event]) -> None:
        model = rollout.rpartition("-r")[0]
        state, taken = RolloutState(id=rollout, model=model), []
        for event in events:
            try:
                state = after(state, event)
            except IllegalEvent as error:
                _LOG.error(
                    "%s: its events from %d on do not count: %s", rollout, event.revision, error
                )
                break
            taken.append(event)
        if taken:
            self._told[rollout] = Told(state=state, events=tuple(taken))
            self._told = dict(sorted(self._told.items(), key=lambda item: number_of(item[0])))


def read_events(path: Path) -> list[Event]:
    """The events of one file in order, as far as they have no gap. Raises OSError."""
    return _in_order(map(_decoded, path.read_bytes().split(b"\n")))


def _hold(folder: Path) -> int | None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return try_lock(folder / _LOCK_FILE)


def _read_all(folder: Path) -> Mapping[str, list[Event]]:
    return {
        path.parent.name: read_events(path)
        for path in folder.glob(f"*/*/{EVENTS_FILE}")
        if _is_identifier(path.parent.name)
    }


def _is_identifier(rollout: str) -> bool:
    model = rollout.rpartition("-r")[0]
    return bool(model) and number_of(rollout) > 0 and "/" not in rollout and model[0] != "."


def _append(folder: Path, rollout: str, event: Event) -> None:
    place = folder / rollout.rpartition("-r")[0] / rollout
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    append_line(place / EVENTS_FILE, _encoded(event))


def _in_order(events: Iterable[Event | None]) -> list[Event]:
    by_revision = {event.revision: event for event in events if event is not None}
    found: list[Event] = []
    while (event := by_revision.get(len(found) + 1)) is not None:
        found.append(event)
    return found


def _encoded(event: Event) -> bytes:
    return msgspec.json.encode(event)


def _decoded(line: bytes) -> Event | None:
    try:
        return msgspec.json.decode(line, type=Event)
    except msgspec.MsgspecError:
        return None
