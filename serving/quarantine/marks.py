"""Which versions a process is loading or running, in memory that survives it.

One file a process. A version has a place in it from before it is loaded until its session is
gone; around each run two numbers are stored there, and that is all it costs: 0.23 µs a run
(docs/decisions.md has the command).

File layout (little-endian): 256 bytes of head (8 bytes magic), then places of 256 bytes: u64 the
thread that runs it (Python's ident) or 0, u64 1 while it is loaded, u16 length of the name, the
name (JSON `[model, version, sha256]`). A place without a name is free.
"""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Final

import msgspec

from serving.mapped import map_file

__all__ = ["Mark", "Marked", "Marks", "read", "unseen"]

_MAGIC: Final = b"sluiceq1"
_PLACE: Final = 256
_CELL: Final = 16
_LENGTH: Final = struct.Struct("<H")
_NAME_AT: Final = _CELL + _LENGTH.size
_PLACES: Final = 1023


class Mark:
    """One version's place. `cell[0]` is the thread that runs it, 0 between runs.

    Whoever runs it stores both itself, without a call: this is the hot path.
    """

    __slots__ = ("cell", "place")

    def __init__(self, cell: "memoryview[int]", place: int = 0) -> None:
        self.cell = cell
        self.place = place

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Say that this thread loads and tries the version, while the block runs."""
        self.cell[1] = 1
        self.cell[0] = get_ident()
        try:
            yield
        finally:
            self.cell[0] = 0
            self.cell[1] = 0


def unseen() -> Mark:
    """A mark that nobody reads: for a session outside a supervised process."""
    return Mark(memoryview(bytearray(_CELL)).cast("Q"))


class Marks:
    """The file of one process; belongs to the thread that takes and frees places.

    Holds at most 1,023 sessions; past that, and on a full disk, marks are made that nobody sees,
    and a crash is then nobody's fault.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)  # what a predecessor left has been read
        self._descriptor, self._map = map_file(path, (_PLACES + 1) * _PLACE)
        self._view = memoryview(self._map)
        self._map[: len(_MAGIC)] = _MAGIC
        self._free = list(range(_PLACES, 0, -1))

    def take(self, model: str, version: str, sha256: str) -> Mark:
        """Give a version a place, before anything of it is touched."""
        name = json.dumps([model, version, sha256]).encode()
        if not self._free or len(name) > _PLACE - _NAME_AT:
            return unseen()
        place = self._free.pop()
        at = place * _PLACE
        cell = self._view[at : at + _CELL].cast("Q")
        cell[0] = cell[1] = 0
        self._map[at + _NAME_AT : at + _NAME_AT + len(name)] = name
        _LENGTH.pack_into(self._map, at + _CELL, len(name))
        return Mark(cell, place)

    def free(self, mark: Mark) -> None:
        """Take a place back; nothing of its version runs any more."""
        if mark.place:
            _LENGTH.pack_into(self._map, mark.place * _PLACE + _CELL, 0)
            self._free.append(mark.place)
            mark.place = 0

    def close(self) -> None:
        """The process ends in order: there is nothing to be read."""
        self._path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Marked(msgspec.Struct, frozen=True):
    """A version that was being run, or loaded, when its process was last seen."""

    model: str
    version: str
    sha256: str
    thread: int
    loading: bool


def read(path: Path) -> list[Marked]:
    """What a dead process was doing; nothing if it left no file, or a foreign one."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    if not content.startswith(_MAGIC):
        return []
    found = []
    for at in range(_PLACE, len(content) - _PLACE + 1, _PLACE):
        thread, loading = struct.unpack_from("<QQ", content, at)
        (length,) = _LENGTH.unpack_from(content, at + _CELL)
        if thread and 0 < length <= _PLACE - _NAME_AT:
            name = content[at + _NAME_AT : at + _NAME_AT + length]
            model, version, sha256 = json.loads(name)
            found.append(Marked(model, version, sha256, thread, bool(loading)))
    return found
