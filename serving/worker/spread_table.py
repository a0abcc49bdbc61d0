"""How many connections each worker of a node has: a small file that all of them have mapped.

Columns of 64-bit integers, a cell a worker: when it last showed a sign of life (monotonic
nanoseconds), its open connections, and how many of those it was given it has taken. Then a row for
each worker: how many it was given, by giver. Each cell has one writer, its worker or the giver. So
nothing is locked, and a worker that is stopped at any place holds nobody up.

What was given to a worker and not taken counts as its own for everybody. Who finds its queue empty
writes down as taken all that was given, so a giver that was killed between counting and giving (or
the other way round) is right again with the next connection or sign of life.

The kernel's boot is part of the file's name: clocks of another boot, or of another machine that
shares the directory, mean nothing here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from serving.clock import Clock
from serving.mapped import map_shared

__all__ = ["WORKERS", "SpreadTable"]

WORKERS: Final = 320
"""Cells: the configuration allows 256 workers, and a roll has some more."""

STALE_SECONDS: Final = 0.8
"""Three signs of life late. A worker in a long run of a model is left alone meanwhile."""

MOST_WAITING: Final = 3
"""Who has taken none of so many is stopped or very busy. This also bounds what a stopped worker
can swallow, and what is moved in vain when a storm reaches one worker before the others."""

_GONE: Final = 1
"""A sign of life that is too old for ever; 0 is of a worker that never was."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class SpreadTable:
    """The table as one worker reads and writes it.

    Args:
        run: the folder of the file.
        me: this worker's number, below `WORKERS`.
        clock: everybody's monotonic one.

    Raises:
        OSError: the file cannot be made, as on a full disk.
    """

    def __init__(self, run: Path, me: int, clock: Clock) -> None:
        boot = _BOOT.read_text()[:8] if _BOOT.exists() else "any"
        memory = map_shared(run / f"spread-{boot}.table", 8 * WORKERS * (3 + WORKERS))
        cells = memoryview(memory).cast("q")
        self._me = me
        self._clock = clock
        self._beats, self._opens, self._taken, self._given = (
            cells[:WORKERS],
            cells[WORKERS : 2 * WORKERS],
            cells[2 * WORKERS : 3 * WORKERS],
            cells[3 * WORKERS :],
        )
        self._top = WORKERS
        """As of our last beat there was nobody with this number or a higher one, ever."""

    def beat(self) -> list[int]:
        """Show a sign of life: give to me.

        Returns:
            The others that show one, those with higher numbers than mine first.
        """
        now, me = self._now(), self._me
        self._beats[me] = now
        beats, since = self._beats.tolist(), _since(now)
        self._top = 1 + max(number for number, beat in enumerate(beats) if beat)
        alive = [number for number, beat in enumerate(beats) if beat > since]
        return [one for one in alive if one > me] + [one for one in alive if one < me]

    def leave(self) -> None:
        """Be given nothing from now on."""
        self._beats[self._me] = _GONE

    def count(self, connections: int) -> None:
        """Say how many connections I have."""
        self._opens[self._me] = connections

    def took_all(self) -> None:
        """Say that nothing waits for me."""
        self._taken[self._me] = self._given_to(self._me)

    def giving(self, receiver: int, number: int = 1) -> None:
        """Count a connection as given to `receiver`; -1 if that came to nothing."""
        self._given[receiver * WORKERS + self._me] += number

    def opens(self, workers: Sequence[int]) -> list[int]:
        """How many connections these workers have, what waits for them not counted."""
        opens = self._opens
        return [opens[worker] for worker in workers]

    def ready(self, workers: Sequence[int]) -> dict[int, int]:
        """Those of these workers that can be given one, and how many connections they have."""
        beats, opens, taken = self._beats, self._opens, self._taken
        since = _since(self._now())
        return {
            worker: opens[worker] + max(0, waiting)
            for worker in workers
            if beats[worker] > since
            and (waiting := self._given_to(worker) - taken[worker]) < MOST_WAITING
        }

    def _now(self) -> int:
        return int(self._clock.monotonic() * 1e9)

    def _given_to(self, worker: int) -> int:
        start = worker * WORKERS
        return sum(self._given[start : start + self._top])


def _since(now: int) -> int:
    """The sign of life, at monotonic nanoseconds `now`, that is just too old."""
    return max(_GONE, now - int(STALE_SECONDS * 1e9))
