"""The counts of one log writer, in memory that is a file: they outlive a killed process.

What was offered is counted by the event loop, what became of it by the writing thread; each
slot has one of them as its only writer. So, at any time and after any death,

    offered = logged + sampled out + dropped by reason + (held, or lost in a crash)

where the rows logged are those found in the segments (`docs/decisions.md`).
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final

from serving.mapped import map_file

__all__ = ["DROPPED", "OUTCOMES", "Ledger", "read_ledger"]

_MAGIC: Final = b"sluicel1"
OUTCOMES: Final = (
    "offered",
    "logged",
    "sampled_out",
    "buffer_full",
    "disk_full",
    "disk_error",
    "unwritable",
)
"""Slots, in their order in the file, 64-bit each; then as many for what `/metrics` was told."""

DROPPED: Final = ("buffer_full", "disk_full", "disk_error", "unwritable")
_LAYOUT: Final = struct.Struct(f"<8s{2 * len(OUTCOMES)}q")


class Ledger:
    """Counts rows by outcome; numbers are cumulative. Without a path, in memory alone.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        self._map: mmap.mmap
        if path is None:
            self._descriptor, self._map = -1, mmap.mmap(-1, _LAYOUT.size)
        else:
            self._descriptor, self._map = map_file(path, _LAYOUT.size)
        self._map[: len(_MAGIC)] = _MAGIC
        self._slots = memoryview(self._map)[len(_MAGIC) :].cast("q")
        self._place = {name: at for at, name in enumerate(OUTCOMES)}

    @property
    def slots(self) -> memoryview:
        """The counts themselves, for who cannot afford a call: `slots[0]` is what was offered."""
        return self._slots

    def add(self, outcome: str, rows: int) -> None:
        """Count rows."""
        self._slots[self._place[outcome]] += rows

    def counts(self) -> dict[str, int]:
        """All counts now."""
        return dict(zip(OUTCOMES, self._slots[: len(OUTCOMES)].tolist(), strict=True))

    def told(self, counts: dict[str, int]) -> None:
        """Remember what `/metrics` was told, so that somebody can tell the rest if we die."""
        for at, name in enumerate(OUTCOMES):
            self._slots[len(OUTCOMES) + at] = counts[name]

    def close(self) -> None:
        """Let the file go; its numbers stay."""
        self._slots.release()
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_ledger(path: Path, *, told: bool = False) -> dict[str, int]:
    """Read the counts of any writer, alive or not; or what it had told `/metrics`.

    Raises:
        OSError: there is no such file. ValueError: it is something else.
    """
    data = path.read_bytes()
    if len(data) < _LAYOUT.size or not data.startswith(_MAGIC):
        raise ValueError(f"{path} is not a writer's ledger")
    slots = _LAYOUT.unpack_from(data)[1:]
    first = len(OUTCOMES) if told else 0
    return dict(zip(OUTCOMES, slots[first : first + len(OUTCOMES)], strict=True))
