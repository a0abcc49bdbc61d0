"""Rows this process has read, for as long as the store has not said that they changed.

The connection that reads a row is the one on which the store announces its change, and the row is
kept while the reply is parsed, so an announcement always finds the row it is about.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from feature_cache.keys import HashKey

__all__ = ["Entry", "HashRow", "NearCache"]

_OVERHEAD_BYTES: Final = 280
"""What an entry costs beside its key and value: two dictionary slots, objects, counts
(`sys.getsizeof` of each, CPython 3.11)."""


class Entry(msgspec.Struct, gc=False):
    """One row as it was read: `value` is None for an entity that is not there.

    `decoded` is whatever a reader has made of the value; it goes when the entry goes, and does not
    lead back to it. `alive`: it is what would be served.
    """

    value: Any
    read_at: float
    size: int
    alive: bool = True
    used: bool = False
    decoded: Any = None


class HashRow:
    """What a hash held, by field; and what each plan's view has made of it."""

    __slots__ = ("_size", "decoded", "values")

    def __init__(self, key: HashKey, reply: Sequence[bytes | None]) -> None:
        self.values: dict[bytes, bytes | None] = dict(zip(key.fields, reply, strict=True))
        self._size = sum(len(value) for value in reply if value is not None)
        self.decoded: dict[Any, Any] = {}

    def __len__(self) -> int:
        """Bytes of its values."""
        return self._size


class NearCache:
    """Hold at most `capacity` bytes; past that rows go that were not used since they were last due.

    That is CLOCK, a cheap stand-in for "used longest ago": a hit sets a mark and moves nothing.

    Args:
        capacity: bytes; 0 keeps nothing.
        max_local_age: seconds an entry is good for though nothing was announced: the bound if
            an announcement is lost.
    """

    __slots__ = ("_entries", "bytes", "capacity", "evicted", "founds", "invalidated", "max_age")

    def __init__(self, capacity: int, max_local_age: float) -> None:
        self.capacity = capacity
        self.max_age = max_local_age
        self._entries: dict[bytes, Entry] = {}
        self.founds: dict[bytes, Any] = {}
        """What a reader has put together of several rows, by the first one's key; `keep` adds."""
        self.bytes = 0
        self.evicted = 0
        self.invalidated = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Entry | None:
        """Find a row that is good now (monotonic seconds), and mark it as used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now - entry.read_at >= self.max_age:
            self._remove(key)
            return None
        entry.used = True
        return entry

    def put(self, key: bytes, value: Any, length: int, now: float) -> Entry:
        """Keep what was read at `now`; `length` is the bytes of `value`."""
        entry = Entry(value, now, len(key) + length + _OVERHEAD_BYTES)
        if key in self._entries:
            self._remove(key)
        if entry.size <= self.capacity:
            self._entries[key] = entry
            self.bytes += entry.size
            if self.bytes > self.capacity:
                self._make_room()
        return entry

    def keep(self, key: bytes, found: Any, size: int) -> None:
        """Keep something of `size` bytes for as long as the row under `key` is kept."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if key not in self.founds:
            entry.size += size
            self.bytes += size
        self.founds[key] = found
        if self.bytes > self.capacity:
            self._make_room()

    def _make_room(self) -> None:
        entries = self._entries
        while self.bytes > self.capacity:
            key = next(iter(entries))
            entry = entries[key]
            if entry.used:  # another round for it
                entry.used = False
                del entries[key]
                entries[key] = entry
            else:
                self._remove(key)
                self.evicted += 1

    def _remove(self, key: bytes) -> Entry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.alive = False
            self.bytes -= entry.size
            if self.founds:
                self.founds.pop(key, None)
        return entry

    def drop(self, key: bytes) -> None:
        """The store says that this row changed."""
        if self._remove(key) is not None:
            self.invalidated += 1

    def flush(self) -> None:
        """Nothing that was read before now may be served: a new connection, or FLUSHALL."""
        self.invalidated += len(self._entries)
        self._entries = {}
        self.founds = {}
        self.bytes = 0
