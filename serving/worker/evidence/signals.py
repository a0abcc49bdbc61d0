"""Keys of one signal, each once: which were told of, and those of the next batch. Pure."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.rollout.wire import CELLS, Arms, Cells
from serving.worker.evidence.notes import CANARY, PRODUCTION

__all__ = ["NOBODY", "Signal", "Told"]

_BITS: Final = (1 << np.arange(8)).astype(np.uint8)


class Told:
    """Which numbers below `size` have been told of: one bit each."""

    def __init__(self, size: int = CELLS) -> None:
        self._bits = np.zeros(size >> 3, np.uint8)  # pages that nobody touches cost nothing

    def fresh(self, numbers: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Where among these are those not told of, each number once, in order; they are now."""
        byte = numbers >> 3
        bit = _BITS[numbers & 7]
        at = np.flatnonzero((self._bits[byte] & bit) == 0)
        if len(at) > 1:
            order = at[np.argsort(numbers[at], kind="stable")]
            ordered = numbers[order]
            first = np.empty(len(order), np.bool_)
            first[0] = True
            np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
            at = np.sort(order[first])
        if len(at):
            np.bitwise_or.at(self._bits, byte[at], bit[at])
        return at


class Signal:
    """Keys of one signal, until the batch is closed; with bins if a rule has them."""

    __slots__ = ("_arms", "_cells", "_codes", "unkeyed")

    def __init__(self) -> None:
        self._cells: list[NDArray[np.uint32]] = []
        self._arms: list[NDArray[np.uint8]] = []
        self._codes: list[NDArray[np.int64]] = []
        self.unkeyed: dict[int, list[int]] = {}
        """By bin: requests without a key, of the canary and of production."""

    def add(
        self,
        cells: NDArray[np.uint32],
        arms: NDArray[np.uint8],
        codes: NDArray[np.int64] | None = None,
    ) -> None:
        """Take in keys nobody was told of: cell, arm and bin of each, all of shape [n]."""
        self._cells.append(cells)
        self._arms.append(arms)
        self._codes.append(np.zeros(len(cells), np.int64) if codes is None else codes)

    def wire(self) -> dict[int, Arms]:
        """By bin: cells of both arms."""
        keys: dict[int, bytes] = {}
        if self._cells:
            # Sorted by bin and arm, each pair is one stretch.
            kind = np.concatenate(self._codes) * 2 + np.concatenate(self._arms)
            order = np.argsort(kind, kind="stable")
            cells = np.concatenate(self._cells).astype("<u4")[order]
            kinds, starts = np.unique(kind[order], return_index=True)
            ends = [*starts.tolist()[1:], len(cells)]
            for one, start, end in zip(kinds.tolist(), starts.tolist(), ends, strict=True):
                keys[one] = cells[start:end].tobytes()
        codes = dict.fromkeys([one >> 1 for one in keys]) | dict.fromkeys(self.unkeyed)
        found = {}
        for code in codes:
            canary, production = self.unkeyed.get(code, (0, 0))
            found[code] = Arms(
                Cells(keys.get(code * 2 + CANARY, b""), canary),
                Cells(keys.get(code * 2 + PRODUCTION, b""), production),
            )
        return found


NOBODY: Final = Arms(Cells(), Cells())
"""No key of either arm."""
