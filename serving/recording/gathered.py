"""Requests that are alike, as columns; where they come from does not matter to who reads them.

`Gathered` is the shape, `Walked` has it of offers, `serving.recording.packing.Unpacked` of what was
packed when it was offered.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.recording.offer import Offer, rows_of
from serving.recording.recorder import Entry
from serving.recording.row_plan import STATIONS, RowPlan
from serving.types import Tensor

__all__ = ["Gathered", "Walked", "sent_words"]


class Gathered(Protocol):
    """At least one request, all of one plan, role and kind of outcome; n requests, m rows."""

    @property
    def plan(self) -> RowPlan:
        """Of all."""
        ...

    @property
    def heads(self) -> Sequence[Entry]:
        """Of each request."""
        ...

    @property
    def counts(self) -> NDArray[np.int32]:
        """Rows of each request, at least 1; shape [n]."""
        ...

    @property
    def total(self) -> int:
        """Rows of all: m."""
        ...

    @property
    def fed(self) -> bool:
        """Whether they have what the model was given."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Outputs; none where there was no answer."""
        ...

    @property
    def role(self) -> str:
        """Role of the version that answered; empty if none was picked."""
        ...

    @property
    def fine(self) -> bool:
        """Whether they were answered."""
        ...

    def seconds(self) -> NDArray[np.float32]:
        """Durations, shape [len(STATIONS), n]."""
        ...

    def traceparents(self) -> Sequence[str | None]:
        """Of each request."""
        ...

    def sent(self) -> Sequence[str]:
        """Which features each request brought itself, as the log's column says it."""
        ...

    def keys(self, name: str) -> NDArray[Any] | list[Any]:
        """A key of each row: an array, or a list with None where a request had not one a row."""
        ...

    def table(self, name: str) -> NDArray[Any]:
        """An assembled input, shape [m, k]."""
        ...

    def given(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """An input's values, flat, and how many each request has, shape [n]."""
        ...

    def output(self, at: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """An output's values, flat, and how many each request has, shape [n]."""
        ...

    def view(self, at: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
        """What a view of the plan did: status bits, and ages (milliseconds; -1: none) of each row.

        None where no request asked the store.
        """
        ...


def sent_words(plan: RowPlan, names: Sequence[str]) -> str:
    """How the log says what a request brought: `*` for a whole input, else the features."""
    if any(name in plan.features for name in names):
        return "*"
    keys = {column.name for column in plan.entity}
    return ",".join(name for name in names if name not in keys)


class Walked:
    """Of offers: every figure is one list over all of them, in one expression where that goes."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self._offers = offers
        first = offers[0]
        self.plan = first.plan
        self.heads = [offer.head for offer in offers]
        self.counts = np.array(rows_of(offers), np.int32)
        self.total = int(self.counts.sum())
        self.fed = first.feed is not None
        self.names = first.names if first.outputs is not None else ()
        self.role = first.role
        self.fine = first.fine

    def seconds(self) -> NDArray[np.float32]:
        """See `Gathered`."""
        flat = chain.from_iterable([offer.seconds for offer in self._offers])
        by_offer = np.fromiter(flat, np.float32, len(self._offers) * len(STATIONS))
        return np.ascontiguousarray(by_offer.reshape(len(self._offers), len(STATIONS)).T)

    def traceparents(self) -> Sequence[str | None]:
        """See `Gathered`."""
        return [offer.traceparent for offer in self._offers]

    def sent(self) -> Sequence[str]:
        """See `Gathered`."""
        named = [tuple([tensor.name for tensor in offer.inputs]) for offer in self._offers]
        known = {names: sent_words(self.plan, names) for names in set(named)}
        return [known[names] for names in named]

    def keys(self, name: str) -> NDArray[Any] | list[Any]:
        """See `Gathered`."""
        found = [_named(offer.inputs, name) for offer in self._offers]
        arrays = [array for array in found if array is not None]
        sizes = np.array([array.size for array in arrays], np.int64)
        if len(arrays) == len(found) and bool((sizes == self.counts).all()):
            return np.concatenate(arrays, axis=None)
        listed: list[Any] = []
        for array, count in zip(found, self.counts.tolist(), strict=True):
            if array is None or array.size != count:
                listed += [None] * count
            else:
                listed += array.reshape(-1).tolist()
        return listed

    def table(self, name: str) -> NDArray[Any]:
        """See `Gathered`."""
        return np.concatenate([offer.feed[name] for offer in self._offers])  # type: ignore[index]

    def given(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Gathered`."""
        return _flat([offer.feed[name] for offer in self._offers])  # type: ignore[index]

    def output(self, at: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Gathered`."""
        return _flat([offer.outputs[at] for offer in self._offers])  # type: ignore[index]

    def view(self, at: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
        """See `Gathered`."""
        batches = [offer.batch for offer in self._offers]
        if batches.count(None) == len(batches):
            return None
        # Requests that brought everything themselves: not asked, no age.
        each, flat = list(zip(batches, self.counts.tolist(), strict=True)), chain.from_iterable
        bits = [[0] * rows if batch is None else batch.bits[at] for batch, rows in each]
        ages = [[-1] * rows if batch is None else batch.ages[at] for batch, rows in each]
        return np.fromiter(flat(bits), np.uint8), np.fromiter(flat(ages), np.int64)


def _named(inputs: Sequence[Tensor], name: str) -> NDArray[Any] | None:
    return next((tensor.data for tensor in inputs if tensor.name == name), None)


def _flat(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.concatenate(arrays, axis=None), np.array([array.size for array in arrays])
