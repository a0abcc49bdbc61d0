"""ADWIN: the mean of a stream, since it last changed.

A. Bifet and R. Gavaldà, "Learning from time-changing data with adaptive windowing", SIAM Data
Mining 2007, algorithm ADWIN2. The window grows while its mean is one; when two parts of it differ
by more than chance allows, the older part is dropped. The memory is logarithmic in the window's
length: runs of 1, 2, 4 … values are kept as sum and squared deviation.

Of the detectors tried on the labels of the demo it alone was silent where nothing changed; see
`docs/decisions.md`.
"""

import math
from typing import Final

import msgspec

__all__ = ["Adwin", "AdwinState", "Change"]

_CLOCK: Final = 32
"""Values between two looks; a look costs a pass over all runs."""

_RUNS: Final = 5
"""Runs of one length before the two oldest become one."""

_LEAST: Final = 5
"""Values in either part before the two are compared."""

_Run = tuple[float, float]  # sum, and squared deviation from the run's own mean


class AdwinState(msgspec.Struct, frozen=True):
    """What an `Adwin` knows, to be kept over a restart. `rows[i]` holds runs of 2ⁱ values."""

    delta: float
    ticks: int
    rows: list[list[_Run]]


class Change(msgspec.Struct, frozen=True):
    """A change was seen: the mean before and after it, and of how many values each."""

    before: float
    after: float
    dropped: int
    kept: int

    @property
    def grew(self) -> bool:
        """Whether the mean is larger now."""
        return self.after > self.before


class Adwin:
    """Watches one stream of losses, or of anything else that is bounded.

    Holds about 5 · log₂(window) runs. Not safe for several threads.
    """

    def __init__(self, delta: float = 0.002) -> None:
        """Make one; `delta` bounds the chance of a false alarm at each look."""
        if not 0 < delta < 1:
            raise ValueError("delta must lie between 0 and 1")
        self._delta = delta
        self._ticks = 0
        self._rows: list[list[_Run]] = [[]]  # oldest run of a row first
        self._total = 0.0
        self._deviation = 0.0
        self._width = 0

    @classmethod
    def resume(cls, state: AdwinState) -> "Adwin":
        """Go on from a saved state."""
        one = cls(state.delta)
        one._ticks = state.ticks
        one._rows = [list(row) for row in state.rows] or [[]]
        for power, row in enumerate(one._rows):
            for run in row:
                one._add(run, 1 << power)
        return one

    @property
    def state(self) -> AdwinState:
        """Everything needed to go on later."""
        return AdwinState(self._delta, self._ticks, [list(row) for row in self._rows])

    @property
    def width(self) -> int:
        """Values since the last change."""
        return self._width

    @property
    def mean(self) -> float:
        """Their mean; NaN before the first."""
        return self._total / self._width if self._width else math.nan

    def update(self, value: float) -> Change | None:
        """Take one value; says so if the stream is seen to have changed.

        Raises:
            ValueError: the value is not finite.
        """
        if not math.isfinite(value):
            raise ValueError("a loss must be a finite number")
        self._add((value, 0.0), 1)
        self._rows[0].append((value, 0.0))
        self._merge()
        self._ticks += 1
        return self._look() if self._ticks % _CLOCK == 0 else None

    def _add(self, run: _Run, size: int) -> None:
        """Count a run in; deviations are combined after Chan, Golub and LeVeque."""
        if self._width:
            apart = self._total / self._width - run[0] / size
            self._deviation += apart * apart * self._width * size / (self._width + size)
        self._deviation += run[1]
        self._total += run[0]
        self._width += size

    def _remove(self, run: _Run, size: int) -> None:
        self._width -= size
        self._total -= run[0]
        if self._width:
            apart = self._total / self._width - run[0] / size
            self._deviation -= apart * apart * self._width * size / (self._width + size) + run[1]
            self._deviation = max(0.0, self._deviation)
        else:
            self._total = self._deviation = 0.0

    def _merge(self) -> None:
        for power, row in enumerate(self._rows):
            if len(row) <= _RUNS:
                return
            (one, one_dev), (two, two_dev) = row[:2]
            del row[:2]
            size = 1 << power
            apart = (one - two) / size
            merged = (one + two, one_dev + two_dev + apart * apart * size / 2)
            if power + 1 == len(self._rows):
                self._rows.append([])
            self._rows[power + 1].append(merged)

    def _look(self) -> Change | None:
        """Drop the oldest run for as long as the window differs from itself somewhere."""
        total, width, dropped = self._total, self._width, 0
        while self._differs():
            power = max(i for i, row in enumerate(self._rows) if row)
            run = self._rows[power].pop(0)
            self._remove(run, 1 << power)
            dropped += 1 << power
        if not dropped:
            return None
        before = (total - self._total) / dropped
        return Change(before, self.mean, dropped, width - dropped)

    def _differs(self) -> bool:
        if self._width < 2 * _LEAST:
            return False
        # Looks at n splits of one window, so δ' = δ / ln n (section 4 of the paper).
        confidence = math.log(2 * math.log(self._width) / self._delta)
        variance = self._deviation / self._width
        old, old_total = 0, 0.0
        for power in range(len(self._rows) - 1, -1, -1):
            size = 1 << power
            for run in self._rows[power]:
                old += size
                old_total += run[0]
                new = self._width - old
                if new < _LEAST:
                    return False
                if old < _LEAST:
                    continue
                inverse = 1 / (old - _LEAST + 1) + 1 / (new - _LEAST + 1)
                bound = math.sqrt(2 * inverse * variance * confidence)
                bound += 2 / 3 * inverse * confidence
                if abs(old_total / old - (self._total - old_total) / new) > bound:
                    return True
        return False
