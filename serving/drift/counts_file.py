"""Counts that outlive their process: vectors of 64-bit numbers in a memory-mapped file.

Cumulative, as the numbers of `/metrics` are: who reads twice takes the difference, and a killed
process leaves its last counts behind.

Layout (little-endian): 8 bytes magic, u64 bytes used, then entries. An entry is u32 key length,
u32 number of slots, the key (JSON, space-padded so that slots are 8-byte aligned), the slots.
`used` moves after an entry is whole.
"""

import contextlib
import os
import struct
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from serving.drift.bins import Counts
from serving.drift.count_layout import CountLayout
from serving.files import is_held
from serving.mapped import map_file

__all__ = ["CountKey", "CountsFile", "is_alive", "read_counts"]

_MAGIC: Final = b"sluiced1"
_HEADER: Final = struct.Struct("<8sQ")
_ENTRY: Final = struct.Struct("<II")
CAPACITY: Final = 4 << 20


class CountKey(msgspec.Struct, frozen=True):
    """What a vector counts."""

    model: str
    version: str
    role: str
    reference: str
    """Digest of the reference whose bins these are."""

    layout: CountLayout


class CountsFile:
    """The vectors of one process. Not safe for several threads.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY) -> None:
        self._descriptor, self._map = map_file(path, capacity)
        self._capacity = capacity
        self._used = _HEADER.size
        self._vectors: dict[CountKey, Counts] = {}
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, self._used)

    def vector(self, key: CountKey) -> Counts:
        """The vector of a key, int64 [layout.size], to be added to in place.

        When the file is full a new key gets memory that nobody reads.
        """
        found = self._vectors.get(key)
        if found is None:
            found = self._vectors[key] = self._add(key)
        return found

    def close(self) -> None:
        """Let the file go; its numbers stay."""
        self._vectors.clear()
        with contextlib.suppress(BufferError):  # somebody still holds a vector
            self._map.close()  # it has a descriptor of its own, and with it the lock
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _add(self, key: CountKey) -> Counts:
        name = msgspec.json.encode(key)
        name += b" " * (-len(name) % 8)
        size = key.layout.size
        end = self._used + _ENTRY.size + len(name) + 8 * size
        if end > self._capacity:
            return np.zeros(size, np.int64)
        start = self._used + _ENTRY.size
        self._map[self._used : start] = _ENTRY.pack(len(name), size)
        self._map[start : start + len(name)] = name
        vector = np.frombuffer(self._map, np.int64, size, start + len(name))
        self._used = end
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, end)
        return vector


def read_counts(path: Path) -> dict[CountKey, Counts]:
    """Read the vectors of any process, alive or not.

    Raises:
        OSError: there is no such file. ValueError: it is something else.
    """
    data = path.read_bytes()
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError(f"{path} holds no counts")
    _, used = _HEADER.unpack_from(data)
    found: dict[CountKey, Counts] = {}
    at = _HEADER.size
    while at < min(used, len(data)):
        length, size = _ENTRY.unpack_from(data, at)
        start = at + _ENTRY.size
        key = msgspec.json.decode(data[start : start + length], type=CountKey)
        found[key] = np.frombuffer(data, np.int64, size, start + length).copy()
        at = start + length + 8 * size
    return found


def is_alive(path: Path) -> bool:
    """Whether the process that counts into a file still runs. Raises OSError."""
    return is_held(path)
