"""How many connections each worker of a node has: a small file that all of them have mapped.

One row of 64-bit integers a worker: when it last showed a sign of life (monotonic nanoseconds; 0
while it takes nothing), its open connections, how many it has taken, and then, by giver, how many
were handed to it. Each cell has one writer: a row's first three its worker, the others their giver.
So nothing is locked, and a worker that is stopped at any place holds nobody up.

What waits for a worker is the sum of what it was given less what it has taken. Having found its
queue empty it writes that sum down as taken, so a giver that was killed between counting and giving
(or the other way round) is right again with the next connection or sign of life.

The kernel's boot is part of the file's name: clocks of another boot, or of another machine that
shares the directory, mean nothing here.
"""

import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.mapped import map_shared
from serving.worker.spread_choice import Load

__all__ = ["WORKERS", "SpreadTable"]

WORKERS: Final = 320
"""Rows: the configuration allows 256 workers, and a roll has some more."""

STALE_SECONDS: Final = 0.8
"""Three signs of life late. A worker in a long run of a model is left alone meanwhile."""

_BEAT, _OPEN, _TAKEN, _GIVEN = range(4)
_WIDTH: Final = _GIVEN + WORKERS
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class SpreadTable:
    """The table as one worker reads and writes it.

    Args:
        run: the folder of the file.
        me: this worker's number, below `WORKERS`.

    Raises:
        OSError: the file cannot be made, as on a full disk.
    """

    def __init__(self, run: Path, me: int) -> None:
        boot = _BOOT.read_text()[:8] if _BOOT.exists() else "any"
        memory = map_shared(run / f"spread-{boot}.table", 8 * WORKERS * _WIDTH)
        self._me = me
        self._rows = np.frombuffer(memory, np.int64).reshape(WORKERS, _WIDTH)
        self._mine = memoryview(memory).cast("q")[me * _WIDTH : (me + 1) * _WIDTH]
        self._cells = memoryview(memory).cast("q")
        self._top = me + 1

    def beat(self) -> bool:
        """Show a sign of life: give to me. Returns whether anybody else shows one."""
        now = time.monotonic_ns()
        self._mine[_BEAT] = now
        alive = _fresh(self._rows[:, _BEAT], now)
        self._top = int(alive[-1]) + 1
        return len(alive) > 1

    def leave(self) -> None:
        """Be given nothing from now on."""
        self._mine[_BEAT] = 0

    def count(self, connections: int) -> None:
        """Say how many connections I have."""
        self._mine[_OPEN] = connections

    def took_all(self) -> None:
        """Say that nothing waits for me."""
        self._mine[_TAKEN] = int(self._rows[self._me, _GIVEN:].sum())

    def giving(self, receiver: int, number: int = 1) -> None:
        """Count a connection as handed to `receiver`; -1 if that came to nothing."""
        self._cells[receiver * _WIDTH + _GIVEN + self._me] += number

    def loads(self) -> list[Load]:
        """Everybody who shows signs of life and takes connections, by number; me among them."""
        rows = self._rows[: self._top]
        numbers = _fresh(rows[:, _BEAT], time.monotonic_ns())
        rows = rows[numbers]
        waiting = rows[:, _GIVEN:].sum(axis=1) - rows[:, _TAKEN]
        return [
            Load(number, count, max(0, wait))
            for number, count, wait in zip(
                numbers.tolist(), rows[:, _OPEN].tolist(), waiting.tolist(), strict=True
            )
        ]


def _fresh(beats: NDArray[np.int64], now: int) -> NDArray[np.intp]:
    """Where signs of life are young enough; `now` in monotonic nanoseconds."""
    return np.flatnonzero((beats > 0) & (beats > now - int(STALE_SECONDS * 1e9)))
