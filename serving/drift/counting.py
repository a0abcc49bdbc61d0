"""From answered requests to counts: what a worker adds up for drift and data quality. Pure.

One vector of whole numbers a version and role. `CountLayout` says what is where in it; vectors
of one layout are added up over workers, and taken from each other over time. They hold no value
of anybody, only how many rows fell into which bin.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.config.frozen_bins import Reference
from serving.drift.bins import Bins, Counts, compile_bins
from serving.drift.count_layout import STALE, STATUSES, UNSERVED, CountLayout
from serving.recording.gathered import Gathered
from serving.recording.row_plan import RowPlan

__all__ = ["Counting", "layout_of", "output_column"]


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
    """Counts the rows of one version by one reference. Does not keep the plan."""

    def __init__(self, reference: Reference, plan: RowPlan) -> None:
        self.layout = layout_of(reference, plan)
        self._inputs = tuple(plan.features)
        self._view_of = plan.view_of
        columns = [name for name, _ in self.layout.columns]
        self._bins = {name: compile_bins(reference.columns[name]) for name in columns}
        self._features = {
            column.name: (source, column.index)
            for source, columns in plan.features.items()
            for column in columns
        }
        self._places = self.layout.places

    def count(self, gathered: Gathered) -> Counts:
        """Count answered requests of the plan.

        Returns:
            int64, shape [layout.size].
        """
        counts = np.zeros(self.layout.size, np.int64)
        counts[0] = gathered.total
        served = self._statuses(gathered, counts)
        for source in self._inputs if gathered.fed else ():
            turned = np.ascontiguousarray(gathered.table(source).T)
            for name, (of, index) in self._features.items():
                if of == source and name in self._bins:
                    self._column(name, turned[index], served, counts)
        for at, output in enumerate(gathered.names):
            self._output(output, at, gathered, counts)
        return counts

    def _column(
        self,
        name: str,
        values: NDArray[Any],
        served: Mapping[str, NDArray[np.bool_] | None],
        counts: Counts,
    ) -> None:
        bins: Bins = self._bins[name]
        where = bins.places(values)
        counts[self._places.columns[name]] += np.bincount(where, minlength=bins.size)
        if name in self._places.served:
            good = served.get(self._view_of[name])
            if good is not None:
                where = where[good]
            counts[self._places.served[name]] += np.bincount(where, minlength=bins.size)

    def _output(self, output: str, at: int, gathered: Gathered, counts: Counts) -> None:
        watched = [
            (name, where, index)
            for name, where in self._places.columns.items()
            for stem, index in [output_column(name)]
            if stem == output and name not in self._features
        ]
        if not watched:
            return
        flat, _ = gathered.output(at)
        values = flat.reshape(gathered.total, -1)
        for name, where, index in watched:
            counts[where] += self._bins[name].count(values[:, index])

    def _statuses(self, gathered: Gathered, counts: Counts) -> dict[str, NDArray[np.bool_] | None]:
        """Count what the views did; which rows each served (None: all of them)."""
        served: dict[str, NDArray[np.bool_] | None] = {}
        for at, (view, start) in enumerate(self._places.views.items()):
            found = gathered.view(at)
            if found is None:  # the requests brought everything themselves
                bits = np.zeros(gathered.total, np.uint8)
                ages = np.full(gathered.total, -1, np.int64)
            else:
                bits, ages = found
            seen = np.bincount(bits, minlength=STATUSES)
            seen[0] = 0  # not asked
            counts[start : start + STATUSES] += seen
            aged = ages >= 0
            counts[start + STATUSES] += int(aged.sum())
            counts[start + STATUSES + 1] += int((aged & ((bits & STALE) != 0)).sum())
            bad = (bits & UNSERVED) != 0
            served[view] = ~bad if bad.any() else None
        return served
