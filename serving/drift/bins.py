"""Count values into frozen bins: what every worker does with every row it answers.

The bins are those of the model's reference (`serving.config.frozen_bins`). Counts are whole
numbers: those of several workers, minutes or hours are added up.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.config.frozen_bins import FrozenColumn

__all__ = ["BINS", "CATEGORIES", "Bins", "Counts", "compile_bins"]

Counts = NDArray[np.int64]
"""Rows in each bin, shape [bins] in the order of `FrozenColumn.names`, or [blocks, bins]."""

BINS: Final = 16
"""Quantile bins of a numeric column. Of 100 rows six are expected in each; in more bins too few
would be, and they would be pooled again."""

CATEGORIES: Final = 50
"""Most values that each get a bin of their own."""

_MISSING, _NONFINITE, _BELOW, _ABOVE = 0, 1, 2, 3
_NEW = 2


def compile_bins(column: FrozenColumn) -> "Bins":
    """Make what counts a column: once a configuration, not once a batch."""
    return _Texts(column) if column.type == "string" else _Numbers(column)


class Bins:
    """Sorts values into a frozen column's bins. Adds nothing up: the caller does."""

    def __init__(self, column: FrozenColumn) -> None:
        self.size = len(column.counts)

    def count(self, values: Any) -> Counts:
        """How many of these values fall into each bin.

        Args:
            values: shape [rows]. For text a sequence of `str`, `bytes` or None; else an array of
                numbers, or of objects that are numbers or None.

        Returns:
            int64, shape [bins]; its sum is the number of rows.

        Raises:
            TypeError, ValueError: a value that is no number where numbers are expected.
        """
        return np.bincount(self.places(values), minlength=self.size)

    def places(self, values: Any) -> NDArray[np.intp]:
        """Which bin each value falls into, shape [rows]; see `count`."""
        raise NotImplementedError


class _Numbers(Bins):
    """One binary search a value: the ends of all bins are cuts, and each gap belongs to a bin."""

    def __init__(self, column: FrozenColumn) -> None:
        super().__init__(column)
        special = len(column.special)
        lowest = float(np.finfo(np.float64).min)
        # Slot s holds cuts[s - 1] ≤ value < cuts[s]. Slot 0 is -∞; +∞ and NaN come last of all.
        if column.kind == "numeric":
            *inner, end = column.edges
            cuts = [lowest, *inner, math.nextafter(end, math.inf), math.inf]
            owners = [_NONFINITE, _BELOW, *range(special, self.size), _ABOVE, _NONFINITE]
        else:
            cuts, owners = [lowest], [_NONFINITE, _NEW]
            places = {float(value): special + i for i, value in enumerate(column.values)}
            for value in sorted(places):
                cuts += [value, math.nextafter(value, math.inf)]
                owners += [places[value], _NEW]
            cuts.append(math.inf)
            owners.append(_NONFINITE)
        self._cuts = np.array(cuts)
        self._owners = np.array(owners, np.intp)

    def places(self, values: Any) -> NDArray[np.intp]:
        numbers = np.asarray(values)
        if numbers.dtype != np.float64:
            numbers = numbers.astype(np.float64)
        found = self._owners[self._cuts.searchsorted(numbers, "right")]
        missing = np.isnan(numbers)
        if missing.any():
            found[missing] = _MISSING
        return found


class _Texts(Bins):
    def __init__(self, column: FrozenColumn) -> None:
        super().__init__(column)
        special = len(column.special)
        self._places = {value: special + i for i, value in enumerate(column.values)}

    def places(self, values: Iterable[str | bytes | None]) -> NDArray[np.intp]:
        return np.array([self._place(value) for value in values], np.intp)

    def _place(self, value: str | bytes | None) -> int:
        if value is None or value != value:  # noqa: PLR0124 - a NaN among texts is a null
            return _MISSING
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return self._places.get(text, _NEW)
