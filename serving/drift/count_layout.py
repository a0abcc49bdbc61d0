"""Where in a vector of counts what is: of columns, of what views served, of the views. Pure."""

from typing import Final

import msgspec
import numpy as np

from feature_cache.status import Status, describe
from serving.drift.bins import Counts
from serving.drift.quality import Traffic, ViewTraffic

__all__ = ["STALE", "STATUSES", "UNSERVED", "CountLayout", "Places"]

UNSERVED: Final = int(
    Status.NOT_FOUND | Status.NULLS | Status.DEFAULTED | Status.TIMEOUT | Status.SCHEMA
)
"""Bits of a status by which a value is not the store's own."""

STALE: Final = int(Status.STALE)
STATUSES: Final = 256
"""Slots of a view for rows by status; behind them rows of known age, and stale ones of those."""

_VIEW_SLOTS: Final = STATUSES + 2


class Places(msgspec.Struct, frozen=True):
    """Slots of each column, of each view's column once more, and where each view's begin."""

    columns: dict[str, slice]
    served: dict[str, slice]
    views: dict[str, int]


class CountLayout(msgspec.Struct, frozen=True):
    """The order in a vector: rows, each column, each view's column once more, each view.

    `columns` are names and numbers of bins; `served` those that come from a view, whose rows are
    counted a second time if the view served them.
    """

    columns: tuple[tuple[str, int], ...]
    served: tuple[tuple[str, int], ...]
    views: tuple[str, ...]

    @property
    def size(self) -> int:
        """Length of a vector."""
        bins = sum(size for _, size in (*self.columns, *self.served))
        return 1 + bins + len(self.views) * _VIEW_SLOTS

    @property
    def places(self) -> Places:
        """Where everything is; worked out anew each time."""
        end = 1
        columns: dict[str, slice] = {}
        served: dict[str, slice] = {}
        for found, sizes in ((columns, self.columns), (served, self.served)):
            for name, size in sizes:
                found[name] = slice(end, end + size)
                end += size
        views = {view: end + at * _VIEW_SLOTS for at, view in enumerate(self.views)}
        return Places(columns, served, views)

    def rows(self, counts: Counts) -> int:
        """Rows counted."""
        return int(counts[0])

    def by_column(self, counts: Counts) -> dict[str, Counts]:
        """Counts [..., bins] of every column; `counts` is [..., size]."""
        return {name: counts[..., where] for name, where in self.places.columns.items()}

    def traffic(self, counts: Counts) -> Traffic:
        """What data quality is judged by; `counts` is [size]."""
        places = self.places
        columns = {name: counts[where] for name, where in (places.columns | places.served).items()}
        views = {}
        for view, start in places.views.items():
            statuses = counts[start : start + STATUSES]
            aged, older = counts[start + STATUSES : start + _VIEW_SLOTS].tolist()
            views[view] = ViewTraffic(
                statuses={
                    describe(int(bits)): int(statuses[bits]) for bits in np.flatnonzero(statuses)
                },
                aged=aged,
                older=older,
            )
        return Traffic(views=views, columns=columns)
