"""Requests in flight for a rollout, in a file that outlives the process however it ends.

One file a rollout and incarnation of a worker, locked while its worker lives. A slot is two
words: the key's place on the line, and whose request it is (0: nobody's). Whoever finds a file
that nobody holds knows what the dead worker was at.

Layout (little-endian): 8 bytes magic; words of `Word`, u64; at `_WORDS` u32 length and JSON of
`Owner`; at `_RHOS` the probabilities that there were, f8; from `_HEADER` on the slots. `OWNED` is
written last, when the rest is there.
"""

import fcntl
import mmap
import os
import struct
from enum import IntEnum
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.mapped import map_file

__all__ = ["SLOT", "SUFFIX", "Entry", "Found", "InFlight", "Owner", "Word", "find"]

SUFFIX: Final = ".flight"
SLOT: Final = 2
"""Words of a slot."""

_MAGIC: Final = b"sluicef1"
_WORDS: Final = 128
_RHOS: Final = 4096
_HEADER: Final = 8192
_MOST_RHOS: Final = (_HEADER - _RHOS) // 8


class Word(IntEnum):
    """Where each number stands, in words of 8 bytes from the beginning of the file."""

    OWNED = 1
    """1 once the file is whole."""

    NOTED = 2
    """Requests that ended and count."""

    NUMBER = 3
    """The last batch that was given to the store, whether or not it arrived."""

    SENT = 4
    """Requests in that one and all before it."""

    STANDING = 5
    """Requests in batches that have arrived."""

    SPOKEN = 6
    """The number under which somebody speaks for a dead worker; 0: nobody does."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose file it is, and what a request that ends with the worker counts as."""

    worker: str
    incarnation: str
    model: str
    rollout: str
    signals: list[str] = []
    """Signals that a failed request has."""

    step: int = 0


class Entry(msgspec.Struct, frozen=True):
    """One request that was in flight: of arm 0 the canary's, of arm 1 production's."""

    rho: float
    arm: int
    place: int | None
    """None: it has no key."""


class InFlight:
    """A worker's own file. `words` and `free` are for the request's path.

    Without room on the disk the words are memory: requests go on, and die unseen with the worker.
    """

    def __init__(self, path: Path, owner: Owner, slots: int) -> None:
        self.path = path
        capacity = _HEADER + slots * SLOT * 8
        self._descriptor, self._map = map_file(path, capacity)
        self.words: memoryview[int] = memoryview(self._map).cast("Q")
        first = _HEADER // 8
        self.free = list(range(first + (slots - 1) * SLOT, first - 1, -SLOT))
        """Slots that nobody has, by the place of their first word."""
        self._rhos: list[float] = []
        self._map[:8] = _MAGIC
        self.describe(owner)
        self.words[Word.OWNED] = 1

    def describe(self, owner: Owner) -> None:
        """Say anew what a request in flight counts as."""
        content = msgspec.json.encode(owner)
        if len(content) > _RHOS - _WORDS - 4:
            content = msgspec.json.encode(msgspec.structs.replace(owner, signals=[]))
        struct.pack_into("<I", self._map, _WORDS, 0)  # nobody reads half of it
        self._map[_WORDS + 4 : _WORDS + 4 + len(content)] = content
        struct.pack_into("<I", self._map, _WORDS, len(content))

    def code(self, rho: float, arm: int, *, keyed: bool) -> int:
        """What stands in the slot of such a request; 0 if there is no room for its probability."""
        if rho not in self._rhos:
            if len(self._rhos) >= _MOST_RHOS:
                return 0
            struct.pack_into("<d", self._map, _RHOS + 8 * len(self._rhos), rho)
            self._rhos.append(rho)
        return 1 + 4 * self._rhos.index(rho) + 2 * (not keyed) + arm

    def keyed(self) -> dict[float, tuple[NDArray[np.uint64], NDArray[np.uint8]]]:
        """Requests with a key just now, by probability: places and arms."""
        slots = np.frombuffer(self._map, np.uint64, offset=_HEADER).reshape(-1, SLOT)
        held = slots[slots[:, 1] != 0]
        code = held[:, 1] - 1
        found = {}
        for index in np.unique(code >> np.uint64(2)).tolist():
            its = (code >> np.uint64(2) == index) & (code & np.uint64(2) == 0)
            found[self._rhos[index]] = held[its, 0], (code[its] & np.uint64(1)).astype(np.uint8)
        return found

    def close(self) -> None:
        """Leave in order: nothing is in flight, and nobody has to speak for it."""
        self.path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Found:
    """A file whose worker is dead, held as long as this lives."""

    def __init__(self, path: Path, descriptor: int, content: mmap.mmap) -> None:
        self.path = path
        self._descriptor = descriptor
        self._map = content
        (length,) = struct.unpack_from("<I", content, _WORDS)
        self.owner = msgspec.json.decode(content[_WORDS + 4 : _WORDS + 4 + length], type=Owner)

    def word(self, word: Word) -> int:
        """Read a number."""
        return int(struct.unpack_from("<Q", self._map, word * 8)[0])

    def speak(self, number: int) -> None:
        """Settle for good under which number somebody speaks for it."""
        struct.pack_into("<Q", self._map, Word.SPOKEN * 8, number)
        self._map.flush(0, mmap.PAGESIZE)

    def entries(self) -> list[Entry]:
        """What was in flight."""
        rhos = np.frombuffer(self._map[_RHOS:_HEADER], "<f8")
        table: NDArray[np.uint64] = np.frombuffer(self._map[_HEADER:], "<u8").reshape(-1, SLOT)
        found = []
        for place, code in table[table[:, 1] != 0].tolist():
            rho, kind = divmod(code - 1, 4)
            found.append(Entry(float(rhos[rho]), kind & 1, None if kind & 2 else place))
        return found

    def remove(self) -> None:
        """Everything has been said."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let it go."""
        self._map.close()
        os.close(self._descriptor)


def find(path: Path) -> Found | None:
    """Take hold of a file; None if its worker lives, somebody else holds it, or it is not whole."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    content = None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it before may have said everything and removed it.
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:  # noqa: PTH116
            size = os.fstat(descriptor).st_size
            if size > _HEADER:
                content = mmap.mmap(descriptor, size)
                if content[:8] == _MAGIC and content[Word.OWNED * 8] == 1:
                    return Found(path, descriptor, content)
    except (OSError, ValueError, msgspec.MsgspecError):
        pass
    if content is not None:
        content.close()
    os.close(descriptor)
    return None
