"""Reads rows by key: from the near cache, from a read that is under way, or from the store.

Every reader has a waiter of its own. A reader that gives up, or runs out of time, leaves the read
alone: it still fills the near cache and answers whoever else waits for it.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from feature_cache.breaker import Breaker
from feature_cache.keys import HashKey
from feature_cache.near_cache import Entry, HashRow, NearCache
from feature_cache.single import Single
from feature_cache.store import Store

__all__ = ["Found", "Reader"]

_FOUND_BYTES: Final = 1024
"""What is kept with a first row of several: lists, and a model's input of some hundred columns."""

MISSING: Final = Entry(None, 0.0, 0)
"""Stands where a row could not be read."""


class Found(msgspec.Struct, gc=False):
    """Rows in the order of the keys asked for.

    `entries[i].value` is the row, None if there is none. `cached[i]`: it was in the near cache.
    `failed[i]`: the store could not be asked in time, and the entry is `MISSING`.

    `whole` says that all of them are one entity's and have one origin: all read just now (0) or
    all cached (1); -1 where that is not known. Such a one is kept beside its rows, good until
    `until` (monotonic), and `made` is what was made of it.
    """

    entries: list[Entry]
    cached: list[bool]
    failed: list[bool]
    whole: int = -1
    until: float = 0.0
    made: Any = None


class _Waiter:
    """One reader: how many reads it still waits for."""

    __slots__ = ("future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left


class _Single(msgspec.Struct):
    """One entity's rows of all views of a plan, under way, and who waits for them."""

    reader: "Reader"
    keys: list[bytes]
    waiters: list["asyncio.Future[None]"] = []
    found: Found | None = None

    def landed(self, reply: Any) -> None:
        """A reply was parsed: keep the rows now, before anything behind it is looked at."""
        reader, keys = self.reader, self.keys
        singles = reader.singles
        if singles.get(keys[0]) is self:
            del singles[keys[0]]
        count = len(keys)
        if isinstance(reply, list) and len(reply) == count:
            now, near, no = reader.now(), reader.near, reader.no[count]
            if near.capacity:
                put = near.put
                entries = [
                    put(key, value, len(value) if value is not None else 0, now)
                    for key, value in zip(keys, reply, strict=True)
                ]
            else:
                entries = [Entry(value, now, 0) for value in reply]
            self.found = Found(entries, no, no, 0)
        else:
            reader.complain(reply)
        in_time = False
        for waiter in self.waiters:
            if not waiter.done():
                in_time = True
                waiter.set_result(None)
        if in_time and self.found is not None:
            reader.breaker.succeeded()


class _Flags(dict[int, list[bool]]):
    """`flags[n]` is a list of n times the same flag; shared, so nobody changes it."""

    def __init__(self, flag: bool) -> None:
        super().__init__()
        self._flag = flag

    def __missing__(self, count: int) -> list[bool]:
        made = self[count] = [self._flag] * count
        return made


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
    """

    def __init__(
        self, store: Store, near: NearCache, *, timeout: float = 0.005, breaker: Breaker
    ) -> None:
        self._store = store
        self.near = near
        self.breaker = breaker
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.no, self.yes = _Flags(False), _Flags(True)
        self.singles: dict[bytes, _Single] = {}
        self._flights: dict[bytes, _Flight] = {}
        self._due: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
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
        return Found(entries, [True] * count, [False] * count)

    def local_one(self, single: Single, value: int) -> Found | None:
        """`local` for one entity; what was found is kept with its first row."""
        near = self.near
        if not near.capacity:
            return None
        first = single.first(value)
        found: Found | None = near.founds.get(first)
        if found is not None and self._loop.time() < found.until:
            for entry in found.entries:
                if not entry.alive:
                    break
                entry.used = True
            else:
                self.hits += len(found.entries)
                return found
        found = self.local(single.keys(value))
        if found is not None:
            found.whole = 1
            found.until = near.max_age + min(entry.read_at for entry in found.entries)
            near.keep(first, found, _FOUND_BYTES)
        return found

    async def read_one(self, single: Single, value: int, deadline: float) -> Found:
        """`read` for one entity: one command that is formatted whole, one flight for all views."""
        keys, near = single.keys(value), self.near
        now, first, count = self._loop.time(), keys[0], len(keys)
        if near.capacity and any(near.get(key, now) is not None for key in keys):
            return await self.read(keys, deadline)
        singles = self.singles
        flight = singles.get(first)
        if flight is not None and flight.keys == keys:
            self.joined += count
        elif self.breaker.allows(now):
            self.misses += count
            flight = singles[first] = _Single(self, keys)
            self._store.mget(keys, flight.landed, single.command(value))
        else:
            self.refused += 1
            return self._failed(count)
        if flight.found is None and singles.get(first) is flight:
            waiter = self._loop.create_future()
            flight.waiters.append(waiter)
            self._limit(waiter, now, deadline)
            await waiter
        return flight.found or self._failed(count)

    def _failed(self, count: int) -> Found:
        return Found([MISSING] * count, self.no[count], self.yes[count])

    def complain(self, reply: Any) -> None:
        """Count what came instead of rows."""
        self.errors += 1
        self.last_error = str(reply)

    async def read(self, keys: Sequence[bytes], deadline: float) -> Found:
        """Read rows, by `deadline` (loop seconds) or the reader's timeout, whichever is first.

        Raises nothing but CancelledError: what could not be read is marked so.
        """
        now, get, flights = self._loop.time(), self.near.get, self._flights
        count = len(keys)
        entries: list[Entry] = [MISSING] * count
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
        return Found(entries, cached, failed)

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
        self._limit(waiter.future, now, deadline)
        await waiter.future

    def _limit(self, future: "asyncio.Future[None]", now: float, deadline: float) -> None:
        """Have a wait end at `deadline` or after the reader's own timeout."""
        usual = now + self.timeout
        if deadline < usual:
            handle = self._loop.call_at(deadline, self._give_up, future)
            future.add_done_callback(lambda _: handle.cancel())
            return
        due = self._due
        while due and due[0][1].done():  # or a long timeout would keep all futures until then
            due.popleft()
        due.append((usual, future))
        if self._timer is None:
            self._timer = self._loop.call_at(usual, self._overdue)

    def _overdue(self) -> None:
        """One timer for all: with one timeout, waiters run out in the order they came."""
        now, due = self._loop.time(), self._due
        self._timer = None
        while due and (due[0][0] <= now or due[0][1].done()):
            future = due.popleft()[1]
            if not future.done():
                # A busy loop is late everywhere: what has come meanwhile is read first.
                self._loop.call_soon(self._give_up, future)
        if due:
            self._timer = self._loop.call_at(due[0][0], self._overdue)

    def _give_up(self, future: "asyncio.Future[None]") -> None:
        if not future.done():
            self.timeouts += 1
            self.breaker.failed(self._loop.time())
            future.set_result(None)

    def close(self) -> None:
        """Let everybody go who still waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._due:
            future = self._due.popleft()[1]
            if not future.done():
                future.set_result(None)
