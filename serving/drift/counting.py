"""From answered requests to counts: what a worker adds up for drift and data quality. Pure.

One vector of whole numbers a version and role. `CountLayout` says what is where in it; vectors
of one layout are added up over workers, and taken from each other over time. They hold no value
of anybody, only how many rows fell into which bin.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.status import Status, describe
from serving.config.frozen_bins import Reference
from serving.drift.bins import Bins, Counts, compile_bins
from serving.drift.quality import Traffic, ViewTraffic
from serving.recording.offer import Offer
from serving.recording.row_plan import RowPlan

__all__ = ["CountLayout", "Counting", "layout_of", "output_column"]

_UNSERVED: Final = int(
    Status.NOT_FOUND | Status.NULLS | Status.DEFAULTED | Status.TIMEOUT | Status.SCHEMA
)
_STALE: Final = int(Status.STALE)
_STATUSES: Final = 256
_VIEW_SLOTS: Final = _STATUSES + 2


class CountLayout(msgspec.Struct, frozen=True):
    """Places in a vector: rows, each column, each view's column once more, each view.

    `columns` are names and numbers of bins; `served` those that come from a view, whose rows are
    counted a second time if the view served them; `views` have 256 slots for statuses, one for
    rows of known age and one for stale ones.
    """

    columns: tuple[tuple[str, int], ...]
    served: tuple[tuple[str, int], ...]
    views: tuple[str, ...]

    @property
    def size(self) -> int:
        """Length of a vector."""
        bins = sum(size for _, size in (*self.columns, *self.served))
        return 1 + bins + len(self.views) * _VIEW_SLOTS

    def rows(self, counts: Counts) -> int:
        """Rows counted."""
        return int(counts[0])

    def by_column(self, counts: Counts) -> dict[str, Counts]:
        """Counts [..., bins] of every column; `counts` is [..., size]."""
        return self._cut(counts, 1, self.columns)

    def traffic(self, counts: Counts) -> Traffic:
        """What data quality is judged by; `counts` is [size]."""
        start = 1 + sum(size for _, size in self.columns)
        served = self._cut(counts, start, self.served)
        start += sum(size for _, size in self.served)
        views = {}
        for view in self.views:
            statuses = counts[start : start + _STATUSES]
            aged, older = counts[start + _STATUSES : start + _VIEW_SLOTS].tolist()
            views[view] = ViewTraffic(
                statuses={
                    describe(int(bits)): int(statuses[bits]) for bits in np.flatnonzero(statuses)
                },
                aged=aged,
                older=older,
            )
            start += _VIEW_SLOTS
        return Traffic(views=views, columns=self.by_column(counts) | served)

    def _cut(
        self, counts: Counts, start: int, columns: Sequence[tuple[str, int]]
    ) -> dict[str, Counts]:
        found = {}
        for name, size in columns:
            found[name] = counts[..., start : start + size]
            start += size
        return found


def layout_of(reference: Reference, plan: RowPlan) -> CountLayout:
    """What is counted of a version: the reference's columns that its rows have."""
    own = {column.name for columns in plan.features.values() for column in columns}
    outputs = {column.name for column in plan.outputs}
    columns = tuple(
        (name, len(column.counts))
        for name, column in reference.columns.items()
        if name in own or output_column(name)[0] in outputs
    )
    views = tuple(view for view in plan.views)
    served = tuple(
        (name, size) for name, size in columns if name in own and plan.view_of.get(name) in views
    )
    return CountLayout(columns, served, views)


def output_column(name: str) -> tuple[str, int]:
    """`probabilities[1]` is column 1 of the output `probabilities`."""
    stem, bracket, rest = name.partition("[")
    return (stem, int(rest[:-1])) if bracket and rest[:-1].isdigit() else (name, 0)


class Counting:
    """Counts the rows of one version by one reference."""

    def __init__(self, reference: Reference, plan: RowPlan) -> None:
        self.layout = layout_of(reference, plan)
        self._plan = plan
        columns = [name for name, _ in self.layout.columns]
        self._bins = {name: compile_bins(reference.columns[name]) for name in columns}
        self._features = {
            column.name: (source, column.index)
            for source, columns in plan.features.items()
            for column in columns
        }
        starts = np.cumsum([1, *(size for _, size in (*self.layout.columns, *self.layout.served))])
        self._at = dict(zip(columns, starts.tolist(), strict=False))
        rest = starts[len(columns) :].tolist()
        self._served_at = dict(zip((name for name, _ in self.layout.served), rest, strict=False))
        self._views_at = rest[-1]

    def count(self, offers: Sequence[Offer]) -> Counts:
        """Count answered requests of the plan that have the same outputs.

        Returns:
            int64, shape [layout.size].
        """
        counts = np.zeros(self.layout.size, np.int64)
        counts[0] = sum(offer.rows for offer in offers)
        served = self._statuses(offers, counts)
        for source in self._plan.features:
            tables = [offer.feed[source] for offer in offers if offer.feed is not None]
            table = np.concatenate(tables)
            for name, (of, index) in self._features.items():
                if of == source and name in self._bins:
                    self._column(name, table[:, index], served, counts)
        first = offers[0]
        for at, output in enumerate(first.names if first.outputs is not None else ()):
            self._output(output, [offer.outputs[at] for offer in offers], counts)  # type: ignore[index]
        return counts

    def _column(
        self,
        name: str,
        values: NDArray[Any],
        served: Mapping[str, NDArray[np.bool_] | None],
        counts: Counts,
    ) -> None:
        bins: Bins = self._bins[name]
        start = self._at[name]
        places = bins.places(values)
        found = np.bincount(places, minlength=bins.size)
        counts[start : start + bins.size] += found
        if name in self._served_at:
            good = served.get(self._plan.view_of[name])
            if good is not None:
                found = np.bincount(places[good], minlength=bins.size)
            start = self._served_at[name]
            counts[start : start + bins.size] += found

    def _output(self, output: str, arrays: list[NDArray[Any]], counts: Counts) -> None:
        for name in self._at:
            stem, index = output_column(name)
            if stem == output and name not in self._features:
                values = np.concatenate([array.reshape(len(array), -1) for array in arrays])
                start, bins = self._at[name], self._bins[name]
                counts[start : start + bins.size] += bins.count(values[:, index])

    def _statuses(
        self, offers: Sequence[Offer], counts: Counts
    ) -> dict[str, NDArray[np.bool_] | None]:
        """Count what the views did; which rows each served (None: all of them)."""
        served: dict[str, NDArray[np.bool_] | None] = {}
        start = self._views_at
        for at, view in enumerate(self.layout.views):
            bits_of: list[int] = []
            ages_of: list[int] = []
            for offer in offers:
                if offer.batch is None:  # the request brought everything itself
                    bits_of += [0] * offer.rows
                    ages_of += [-1] * offer.rows
                else:
                    bits_of += offer.batch.bits[at]
                    ages_of += offer.batch.ages[at]
            bits, ages = np.array(bits_of, np.uint8), np.array(ages_of)
            seen = np.bincount(bits, minlength=_STATUSES)
            seen[0] = 0  # not asked
            counts[start : start + _STATUSES] += seen
            aged = ages >= 0
            counts[start + _STATUSES] += int(aged.sum())
            counts[start + _STATUSES + 1] += int((aged & ((bits & _STALE) != 0)).sum())
            bad = (bits & _UNSERVED) != 0
            served[view] = ~bad if bad.any() else None
            start += _VIEW_SLOTS
        return served
