"""Reads rows by key: from the near cache, from a read that is under way, or from the store.

Every reader has a waiter of its own. A reader that gives up, or runs out of time, leaves the read
alone: it still fills the near cache and answers whoever else waits for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from feature_cache.breaker import Breaker
from feature_cache.keys import HashKey
from feature_cache.near_cache import Entry, HashRow, NearCache
from feature_cache.patience import Patience
from feature_cache.reading import FAILED, Found, Reading
from feature_cache.single import Single
from feature_cache.store import Store

__all__ = ["Reader"]

_FOUND_BYTES: Final = 1024
"""What is kept with a first row of several: lists, and a model's input of some hundred columns."""


class _Waiter:
    """One reader: how many reads it still waits for."""

    __slots__ = ("future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left


class _Single(msgspec.Struct):
    """One entity's rows of all views of a plan, under way, and who waits for them."""

    reader: "Reader"
    single: Single
    value: int
    waiters: list["asyncio.Future[Reading]"] = []
    reading: Reading | None = None

    def landed(self, reply: Any) -> None:
        """A reply was parsed: keep the rows now, before anything behind it is looked at."""
        reader, single = self.reader, self.single
        single.flights.pop(self.value, None)
        if isinstance(reply, list) and len(reply) == single.count:
            near = reader.near
            found = Found(reply, single.no, single.no, 0)
            if near.capacity:
                now = reader.now()
                found.kept = [
                    near.put(key, value, len(value) if value is not None else 0, now)
                    for key, value in zip(single.keys(self.value), reply, strict=True)
                ]
            reading = Reading(1, reader.wall_ms(), found, single.first)
        else:
            reader.complain(reply)
            reading = single.failed
        self.reading = reading
        in_time = False
        for waiter in self.waiters:
            if not waiter.done():  # its caller may have left, or run out of time
                in_time = True
                waiter.set_result(reading)
        if in_time and reading is not single.failed:
            reader.breaker.succeeded()


class _Flight:
    """One MGET under way, and who waits for it."""

    __slots__ = ("keys", "rows", "waiters")

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = keys
        self.rows: dict[bytes, Entry] | None = None
        self.waiters: list[_Waiter] = []


class Reader:
    """Needs a running loop.

    Args:
        store: where rows come from; its announcements are taken over.
        near: rows this process has read.
        timeout: seconds a read may take; the reader's own deadline may shorten it.
        breaker: remembers whether asking has been any use lately.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        near: NearCache,
        *,
        timeout: float = 0.005,
        breaker: Breaker,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self.near = near
        self.breaker = breaker
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.wall = wall
        self._patience = Patience(timeout, self._gave_up)
        self._flights: dict[bytes, _Flight] = {}
        self.hashes = False
        """Whether some keys may be those of hashes (`keys.HashKey`)."""
        self.hits = 0
        self.misses = 0
        self.joined = 0
        self.timeouts = 0
        self.errors = 0
        self.refused = 0
        self.last_error = ""
        store.watch(self._invalidate, near.flush)

    def _invalidate(self, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            self.near.flush()
        else:
            for key in keys:
                self.near.drop(key)

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self.wall() * 1e3)

    # --- one entity by its number ---------------------------------------------------------

    def one(self, single: Single, value: int, deadline: float) -> "Reading | Awaitable[Reading]":
        """Read every view of one entity, by `deadline` (loop seconds) or the reader's timeout.

        What this process holds is given at once. Else it is one command, formatted whole, and one
        flight for all views; its waiter may be cancelled. Raises nothing.
        """
        now = self._loop.time()
        if self.near.capacity:
            found = self._kept(single, value, now)
            if isinstance(found, Found):
                return Reading(1, self.wall_ms(), found, single.first)
            if found is not None:
                return self.several(1, found, single.first, deadline)
        flight: _Single | None = single.flights.get(value)
        if flight is not None:
            self.joined += single.count
        elif self.breaker.allows(now):
            self.misses += single.count
            flight = single.flights[value] = _Single(self, single, value)
            self._store.mget_one(single, value, flight.landed)
            if flight.reading is not None:  # there was no connection
                return flight.reading
        else:
            self.refused += 1
            return single.failed
        waiter: asyncio.Future[Reading] = self._loop.create_future()
        flight.waiters.append(waiter)
        self._patience.limit(waiter, now, deadline, single.failed)
        return waiter

    def _kept(self, single: Single, value: int, now: float) -> Found | list[bytes] | None:
        """All rows of one entity, if they are kept; its keys, if only some are; else None.

        What was found is kept with the first row.
        """
        near, first = self.near, single.key(value)
        found: Found | None = near.founds.get(first)
        if found is not None and now < found.until:
            for entry in found.entries:
                if not entry.alive:
                    break
                entry.used = True
            else:
                self.hits += single.count
                return found
        keys = single.keys(value)
        kept = [near.get(key, now) for key in keys]
        entries = [entry for entry in kept if entry is not None]
        if len(entries) < len(kept):
            return keys if entries else None
        self.hits += single.count
        found = Found([entry.value for entry in entries], single.yes, single.no, 1, entries)
        found.until = near.max_age + min([entry.read_at for entry in entries])
        near.keep(first, found, _FOUND_BYTES)
        return found

    # --- any rows -------------------------------------------------------------------------

    def local(self, keys: Sequence[bytes]) -> Found | None:
        """Answer from the near cache if it holds every row; no waiting."""
        now, near = self._loop.time(), self.near
        entries = []
        for key in keys:
            entry = near.get(key, now)
            if entry is None:
                return None
            entries.append(entry)
        count = len(entries)
        self.hits += count
        values = [entry.value for entry in entries]
        return Found(values, [True] * count, [False] * count, -1, entries)

    async def several(
        self, rows: int, keys: Sequence[bytes], first: Mapping[str, int], deadline: float
    ) -> Reading:
        """`read`, as what the store said about `rows` entities."""
        found = await self.read(keys, deadline)
        return Reading(rows, self.wall_ms(), found, first)

    async def read(self, keys: Sequence[bytes], deadline: float) -> Found:
        """Read rows, by `deadline` (loop seconds) or the reader's timeout, whichever is first.

        Raises nothing but CancelledError: what could not be read is marked so.
        """
        now, get, flights = self._loop.time(), self.near.get, self._flights
        count = len(keys)
        entries: list[Entry] = [FAILED] * count
        cached, failed = [False] * count, [False] * count
        under_way: list[tuple[int, _Flight]] = []
        wanted: list[int] = []
        for at, key in enumerate(keys):
            entry = get(key, now)
            if entry is not None:
                entries[at], cached[at] = entry, True
            elif key in flights:
                under_way.append((at, flights[key]))
            else:
                wanted.append(at)
        self.hits += count - len(under_way) - len(wanted)
        self.joined += len(under_way)
        if wanted and not self._ask(keys, wanted, under_way, now):
            for at in wanted:
                failed[at] = True
        if under_way:
            await self._wait({flight for _, flight in under_way}, now, deadline)
            for at, flight in under_way:
                row = flight.rows.get(keys[at]) if flight.rows is not None else None
                if row is None:
                    failed[at] = True
                else:
                    entries[at] = row
        return Found([entry.value for entry in entries], cached, failed, -1, entries)

    def _ask(
        self,
        keys: Sequence[bytes],
        wanted: list[int],
        under_way: list[tuple[int, _Flight]],
        now: float,
    ) -> bool:
        """Have the store asked for what is wanted, unless that has been no use lately."""
        if not self.breaker.allows(now):
            self.refused += 1
            return False
        self.misses += len(wanted)
        if self.hashes:
            wanted = self._fly_hashes(keys, wanted, under_way)
        if wanted:
            flight = self._fly(dict.fromkeys([keys[at] for at in wanted]))
            under_way += [(at, flight) for at in wanted]
        return True

    def _fly(self, wanted: Iterable[bytes]) -> _Flight:
        keys = list(wanted)
        flight = _Flight(keys)
        for key in keys:
            self._flights[key] = flight
        self._store.mget(keys, lambda reply: self._landed(flight, reply))
        return flight

    def _fly_hashes(
        self, keys: Sequence[bytes], wanted: list[int], under_way: list[tuple[int, _Flight]]
    ) -> list[int]:
        """Ask for each hash by itself; returns what is wanted besides."""
        others = []
        for at in wanted:
            key = keys[at]
            if not isinstance(key, HashKey):
                others.append(at)
                continue
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight([key])
                self._store.hmget(key, partial(self._landed_hash, flight, key))
            under_way.append((at, flight))
        return others

    def _landed_hash(self, flight: _Flight, key: HashKey, reply: Any) -> None:
        """A hash becomes one row, so that it is kept, and changes, as a whole."""
        if isinstance(reply, list) and len(reply) == len(key.fields):
            there = any(value is not None for value in reply)
            reply = [HashRow(key, reply) if there else None]
        self._landed(flight, reply)

    def _landed(self, flight: _Flight, reply: Any) -> None:
        """A reply was parsed: keep the rows now, before anything behind it is looked at."""
        flights = self._flights
        for key in flight.keys:
            flights.pop(key, None)
        if isinstance(reply, list) and len(reply) == len(flight.keys):
            now, put = self._loop.time(), self.near.put
            flight.rows = {
                key: put(key, value, len(value) if value is not None else 0, now)
                for key, value in zip(flight.keys, reply, strict=True)
            }
        else:
            self.complain(reply)
            flight.rows = {}
        in_time = False
        for waiter in flight.waiters:
            waiter.left -= 1
            if not waiter.future.done():  # its caller may have left, or run out of time
                in_time = True
                if waiter.left == 0:
                    waiter.future.set_result(None)
        if in_time and flight.rows:
            self.breaker.succeeded()

    async def _wait(self, flights: set[_Flight], now: float, deadline: float) -> None:
        pending = [flight for flight in flights if flight.rows is None]
        if not pending:
            return
        waiter = _Waiter(self._loop.create_future(), len(pending))
        for flight in pending:
            flight.waiters.append(waiter)
        self._patience.limit(waiter.future, now, deadline, None)
        await waiter.future

    # --- what goes wrong ------------------------------------------------------------------

    def complain(self, reply: Any) -> None:
        """Count what came instead of rows."""
        self.errors += 1
        self.last_error = str(reply)

    def _gave_up(self, now: float) -> None:
        self.timeouts += 1
        self.breaker.failed(now)

    def close(self) -> None:
        """Let everybody go who still waits."""
        self._patience.close()
