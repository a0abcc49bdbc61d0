"""Counts from rows of the prediction log: for a time before a reference was there. Pure.

What workers count is counted again from rows, with other bins; the result has the same form, so
that the same report can be made of it. Sampled rows stand for themselves: shares are what a
report compares, and sampling keeps those.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_cache.status import Status
from serving.config.frozen_bins import Reference, digest_of
from serving.drift.bins import Bins, Counts, compile_bins
from serving.drift.count_layout import STALE, STATUSES, UNSERVED, CountLayout
from serving.drift.counting import output_column
from serving.drift.counts_file import CountKey
from serving.drift.windows import Part

__all__ = ["COLUMNS", "Recount"]

COLUMNS: Final = ("event_time", "version", "role", "code")
"""What is needed of every row, beside the columns of the reference and `status.<view>`."""

_BIT: Final = {flag.name: int(flag) for flag in Status}


class Recount:
    """Adds up rows of one model, batch by batch.

    Args:
        reference: whose bins to count into.
        view_of: the view of each feature that comes from one.
        part_seconds: length of a part; a thirtieth of the report's window is good.
    """

    def __init__(
        self, reference: Reference, view_of: Mapping[str, str], part_seconds: float
    ) -> None:
        self._reference = reference
        self._bins: dict[str, Bins] = {
            name: compile_bins(column) for name, column in reference.columns.items()
        }
        self._view_of = dict(view_of)
        self._views = tuple(dict.fromkeys(self._view_of.values()))
        self._seconds = part_seconds
        self._digest = digest_of(reference)
        columns = tuple((name, bins.size) for name, bins in self._bins.items())
        served = tuple((name, size) for name, size in columns if name in self._view_of)
        self._layout = CountLayout(columns, served, self._views)
        self._places = self._layout.places
        self._counts: dict[tuple[int, str, str], Counts] = {}

    @property
    def needs(self) -> list[str]:
        """Columns to read, as far as there are such."""
        names = dict.fromkeys(COLUMNS)
        for name in self._bins:
            names[f"feature.{name}"] = None
            names[f"output.{output_column(name)[0]}"] = None
        for view in self._views:
            names[f"status.{view}"] = names[f"age.{view}"] = None
        return list(names)

    def add(self, table: pa.Table) -> None:
        """Count answered rows; others are passed over."""
        table = table.filter(pc.equal(table["code"], "OK"))
        if not table.num_rows:
            return
        micros = table["event_time"].cast(pa.int64()).to_numpy()
        part = (micros // int(self._seconds * 1e6)).astype(np.int64)
        who = pc.binary_join_element_wise(table["version"], table["role"], "~")
        kinds = who.combine_chunks().dictionary_encode()
        names = kinds.dictionary.to_pylist()
        place = part * len(names) + kinds.indices.to_numpy()
        groups, group = np.unique(place, return_inverse=True)
        counts = np.zeros((len(groups), self._layout.size), np.int64)
        counts[:, 0] = np.bincount(group, minlength=len(groups))
        served = self._statuses(table, group, counts)
        self._columns(table, group, served, counts)
        for at, number in enumerate(groups.tolist()):
            version, _, role = names[number % len(names)].partition("~")
            key = number // len(names), version, role
            known = self._counts.get(key)
            self._counts[key] = counts[at] if known is None else known + counts[at]

    def parts(self) -> list[Part]:
        """What was counted, oldest first."""
        found: dict[int, dict[CountKey, Counts]] = {}
        for (number, version, role), counts in self._counts.items():
            key = CountKey(self._reference.model, version, role, self._digest, self._layout)
            found.setdefault(number, {})[key] = counts
        return [
            Part(number * self._seconds, (number + 1) * self._seconds, counts)
            for number, counts in sorted(found.items())
        ]

    def _columns(
        self,
        table: pa.Table,
        group: NDArray[np.intp],
        served: Mapping[str, NDArray[np.bool_]],
        counts: Counts,
    ) -> None:
        for name, bins in self._bins.items():
            values = _values(table, name)
            if values is None:
                continue
            cells = group * bins.size + bins.places(values)
            counts[:, self._places.columns[name]] += _tally(cells, len(counts), bins.size)
            if name in self._places.served:
                good = served.get(self._view_of[name])
                if good is not None:
                    cells = cells[good]
                counts[:, self._places.served[name]] += _tally(cells, len(counts), bins.size)

    def _statuses(
        self, table: pa.Table, group: NDArray[np.intp], counts: Counts
    ) -> dict[str, NDArray[np.bool_]]:
        served: dict[str, NDArray[np.bool_]] = {}
        for view, start in self._places.views.items():
            name = f"status.{view}"
            if name in table.column_names:
                words = table[name].combine_chunks().fill_null("").dictionary_encode()
                of_word = np.array(
                    [
                        sum(_BIT.get(word, 0) for word in each.split("|"))
                        for each in words.dictionary.to_pylist()
                    ],
                    np.int64,
                )
                bits = of_word[words.indices.to_numpy()]
                seen = _tally(group * STATUSES + bits, len(counts), STATUSES)
                seen[:, 0] = 0  # not asked
                counts[:, start : start + STATUSES] += seen
                aged = _known(table, f"age.{view}")
                stale = aged & ((bits & STALE) != 0)
                counts[:, start + STATUSES] += np.bincount(group[aged], minlength=len(counts))
                counts[:, start + STATUSES + 1] += np.bincount(group[stale], minlength=len(counts))
                bad = (bits & UNSERVED) != 0
                if bad.any():
                    served[view] = ~bad
        return served


def _tally(cells: NDArray[Any], groups: int, bins: int) -> Counts:
    return np.bincount(cells, minlength=groups * bins).reshape(groups, bins)


def _known(table: pa.Table, name: str) -> NDArray[np.bool_]:
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.bool_)
    valid: NDArray[np.bool_] = table[name].is_valid().to_numpy()
    return valid


def _values(table: pa.Table, name: str) -> Any:
    """A column's values, for `Bins.places`; None if the log does not have them."""
    if f"feature.{name}" in table.column_names:
        return _plain(table[f"feature.{name}"])
    stem, index = output_column(name)
    if f"output.{stem}" not in table.column_names:
        return None
    column = table[f"output.{stem}"]
    if pa.types.is_list(column.type):
        column = pc.list_element(column, index)
    return _plain(column)


def _plain(column: pa.ChunkedArray) -> Any:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.to_pylist()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.to_numpy()
