"""Rows this process has read, for as long as the store has not said that they changed.

The connection that reads a row is the one on which the store announces its change, and the row is
kept while the reply is parsed, so an announcement always finds the row it is about.
"""

from collections.abc import Sequence
from typing import Any, Final

from feature_cache.keys import HashKey

__all__ = ["Entry", "HashRow", "NearCache"]

_OVERHEAD_BYTES: Final = 280
"""What an entry costs beside its key and value: two dictionary slots, objects, counts
(`sys.getsizeof` of each, CPython 3.11)."""


class Entry:
    """One row as it was read: `value` is None for an entity that is not there.

    `decoded` is whatever a reader has made of the value; it goes when the entry goes.
    """

    __slots__ = ("decoded", "read_at", "size", "value")

    def __init__(self, value: Any, read_at: float, size: int) -> None:
        self.value = value
        self.read_at = read_at
        self.size = size
        self.decoded: Any = None


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
    """Hold at most `capacity` bytes; past that the row used longest ago goes.

    Args:
        capacity: bytes; 0 keeps nothing.
        max_local_age: seconds an entry is good for though nothing was announced: the bound if
            an announcement is lost.
    """

    __slots__ = ("_entries", "_max_age", "bytes", "capacity", "evicted", "invalidated")

    def __init__(self, capacity: int, max_local_age: float) -> None:
        self.capacity = capacity
        self._max_age = max_local_age
        self._entries: dict[bytes, Entry] = {}
        self.bytes = 0
        self.evicted = 0
        self.invalidated = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Entry | None:
        """Find a row that is good now (monotonic seconds), and make it the last to go."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        if now - entry.read_at >= self._max_age:
            self.bytes -= entry.size
            return None
        self._entries[key] = entry
        return entry

    def put(self, key: bytes, value: Any, length: int, now: float) -> Entry:
        """Keep what was read at `now`; `length` is the bytes of `value`."""
        entry = Entry(value, now, len(key) + length + _OVERHEAD_BYTES)
        old = self._entries.pop(key, None)
        if old is not None:
            self.bytes -= old.size
        if entry.size <= self.capacity:
            self._entries[key] = entry
            self.bytes += entry.size
            while self.bytes > self.capacity:
                self.bytes -= self._entries.pop(next(iter(self._entries))).size
                self.evicted += 1
        return entry

    def drop(self, key: bytes) -> None:
        """The store says that this row changed."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size
            self.invalidated += 1

    def flush(self) -> None:
        """Nothing that was read before now may be served: a new connection, or FLUSHALL."""
        self.invalidated += len(self._entries)
        self._entries = {}
        self.bytes = 0
