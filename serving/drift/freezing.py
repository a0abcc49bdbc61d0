"""Freeze bins: look at a reference once and decide how each of its columns is cut."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from serving.config.frozen_bins import SPECIAL, ColumnKind, FrozenColumn, ValueType
from serving.drift.bins import BINS, CATEGORIES, compile_bins
from serving.drift.statistics import dispersion, reference_counts

__all__ = ["LEAST_ROWS", "freeze", "freeze_column"]

LEAST_ROWS: Final = 100
"""Fewer rows say too little about what is usual to call anything else unusual."""

_TYPES: Final[dict[str, ValueType]] = {"b": "bool", "i": "integer", "u": "integer", "f": "float"}


def freeze(
    columns: Mapping[str, Any], parts: NDArray[np.int64] | None = None
) -> dict[str, FrozenColumn]:
    """Freeze every column of a reference.

    Args:
        columns: arrays of shape [rows] by name: numbers (NaN where missing) or texts (None where
            missing).
        parts: shape [rows], the number of the stretch of time (an hour) in which each row was
            asked. With eight or more it is measured how much their shares vary.

    Raises:
        ValueError: a column that is too short or of no usable type; the message names it.
    """
    frozen = {}
    for name, values in columns.items():
        try:
            column = freeze_column(values)
            frozen[name] = column if parts is None else _seasoned(column, values, parts)
        except (TypeError, ValueError) as error:
            raise ValueError(f"column `{name}`: {error}") from error
    return frozen


def freeze_column(values: Any) -> FrozenColumn:
    """Freeze one column; see `freeze`.

    A column of at most 50 different values is categorical, also when they are numbers: the codes
    of a survey have no order, and of a count with so few values each deserves a bin.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"one value a row is expected, not an array of {array.ndim} dimensions")
    if len(array) < LEAST_ROWS:
        raise ValueError(f"{len(array)} rows are too few; a reference needs {LEAST_ROWS}")
    if array.dtype.kind in "OUS":
        return _freeze_texts(array)
    kind = _TYPES.get(array.dtype.kind)
    if kind is None:
        raise ValueError(f"values of type {array.dtype} cannot be binned; use numbers or text")
    return _freeze_numbers(array.astype(np.float64), kind)


def _freeze_numbers(numbers: NDArray[np.float64], value_type: ValueType) -> FrozenColumn:
    finite = numbers[np.isfinite(numbers)]
    values, repeats = np.unique(finite, return_counts=True)
    if len(values) <= CATEGORIES:
        column = _categories(values.tolist(), repeats.tolist(), value_type, "categorical")
    else:
        # `lower` gives values of the reference itself; a value of many rows makes equal
        # quantiles, which leave one edge.
        cuts = np.quantile(finite, np.linspace(0, 1, BINS + 1), method="lower")
        edges = np.unique(cuts).tolist()
        empty = [0] * (len(SPECIAL["numeric"]) + len(edges) - 1)
        column = FrozenColumn(type=value_type, kind="numeric", edges=edges, counts=empty)
    return _counted(column, numbers, int(np.count_nonzero(repeats == 1)))


def _freeze_texts(texts: NDArray[Any]) -> FrozenColumn:
    plain = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in texts]
    found = Counter(one for one in plain if one is not None and one == one)  # noqa: PLR0124
    if odd := next((one for one in found if not isinstance(one, str)), None):
        raise ValueError(f"holds {odd!r} among texts; give every row the same type")
    ranked = sorted(found, key=lambda one: (-found[one], one))
    kind: ColumnKind = "categorical" if len(ranked) <= CATEGORIES else "frequent"
    chosen = ranked[:CATEGORIES]
    column = _categories(chosen, [found[one] for one in chosen], "string", kind)
    return _counted(column, plain, list(found.values()).count(1))


def _categories(
    values: list[Any], repeats: list[int], value_type: ValueType, kind: ColumnKind
) -> FrozenColumn:
    ranked = [value for _, value in sorted(zip(repeats, values, strict=True), key=_rank)]
    empty = [0] * (len(SPECIAL[kind]) + len(ranked))
    return FrozenColumn(type=value_type, kind=kind, values=ranked, counts=empty)


def _rank(pair: tuple[int, Any]) -> tuple[int, Any]:
    return -pair[0], pair[1]


def _counted(column: FrozenColumn, values: Any, alone: int) -> FrozenColumn:
    counts = compile_bins(column).count(values).tolist()
    seen_once = alone if column.kind == "categorical" else 0
    return replace(column, counts=counts, seen_once=seen_once)


def _seasoned(column: FrozenColumn, values: Any, parts: NDArray[np.int64]) -> FrozenColumn:
    """The column with the overdispersion that its parts show among themselves."""
    _, part = np.unique(parts, return_inverse=True)
    places = compile_bins(column).places(values)
    size, number = len(column.counts), int(part.max()) + 1
    windows = np.bincount(part * size + places, minlength=number * size).reshape(number, size)
    return replace(column, overdispersion=dispersion(windows, reference_counts(column)))
