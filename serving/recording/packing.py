"""An offer of one row in one piece of bytes: what most requests are, kept small until written.

An offer refers to some thirty objects. Kept until the log's thread comes, they take room that the
next requests' objects would have had, warm; so the loop writes their numbers down and lets them go.
The layout is that of the first offer of a plan; what does not fit it stays an offer.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.recording import record
from serving.recording.gathered import sent_words
from serving.recording.offer import Offer
from serving.recording.recorder import Entry
from serving.recording.row_plan import STATIONS, RowPlan

__all__ = ["Packed", "Packing", "Unpacked", "packed"]

_OBJECTS_BYTES: Final = 560
"""The head, its texts and numbers, and what holds them (measured: 515 with short ids)."""

_RELEARN: Final = 256
"""After so many offers that did not fit, the next one says what fits."""

_FLAT: Final = "biuf"
"""Kinds of numpy types whose bytes are their values."""


class Packed(msgspec.Struct, gc=False):
    """One answered request of one row."""

    plan: RowPlan
    packing: "Packing"
    head: Entry
    traceparent: str | None
    numbers: bytes
    size: int
    """About how many bytes this keeps in memory."""

    @property
    def role(self) -> str:
        """Role of the version that answered."""
        return self.head[record.ROLE]  # type: ignore[return-value]

    @property
    def fine(self) -> bool:
        """It was answered."""
        return True


class Packing:
    """How the numbers of one plan's requests stand in bytes.

    Kept by its plan, and does not keep it. In this order, without gaps: durations (FP32), status
    bits (UINT8) and ages (INT64) of every view, the keys, what the model was given, the outputs.
    """

    def __init__(self, offer: Offer) -> None:
        plan = offer.plan
        self.outputs = offer.names
        self._names = [tensor.name for tensor in offer.inputs]
        self.sent = sent_words(plan, self._names)
        self.views = len(offer.batch.bits) if offer.batch is not None else -1
        self._head = struct.Struct(f"<{len(STATIONS)}f{max(self.views, 0)}B{max(self.views, 0)}q")
        keys = [one.name for one in plan.entity if self._names.count(one.name) == 1]
        self._keys = [self._names.index(name) for name in keys]
        self._feed = [*plan.features, *(column.name for column in plan.direct)]
        arrays = self._arrays(offer)
        self._sizes = [array.nbytes for array in arrays]
        # Where only one thing can have another size, the sum tells. Clients may send keys of any.
        tensors = (*plan.direct, *plan.outputs)
        self._several = sum(column.varies for column in tensors) + len(keys) > 1
        self._key_types = [array.dtype for array in arrays[: len(keys)]]
        views = max(self.views, 0)
        named = [f"key:{name}" for name in keys]
        named += [f"feed:{name}" for name in self._feed]
        named += [f"output:{at}" for at in range(len(self.outputs))]
        self.layout = np.dtype(
            [
                ("seconds", "<f4", (len(STATIONS),)),
                ("bits", "u1", (views,)),
                ("ages", "<i8", (views,)),
                *(
                    (name, array.dtype, (array.size,))
                    for name, array in zip(named, arrays, strict=True)
                ),
            ]
        )
        self.misses = 0
        """Offers that did not fit."""
        self._length = self.layout.itemsize
        self._size = _OBJECTS_BYTES + self._length
        self.possible = (
            all(array.dtype.kind in _FLAT and array.flags.c_contiguous for array in arrays)
            and all(self._names.count(one.name) <= 1 for one in plan.entity)
            and all(arrays[at].size == 1 for at in range(len(keys)))
            and (offer.batch is None or len(offer.batch.bits) == len(plan.views))
        )
        """Whether it can be done at all: texts have no place in it."""

    @classmethod
    def of(cls, offer: Offer) -> Self | None:
        """What is learned from an offer; None from one that was not answered, or has several rows.

        Its `possible` says whether others like this one can be packed.
        """
        if offer.feed is None or offer.outputs is None or offer.head[record.ROWS] != 1:
            return None
        return cls(offer) if offer.fine else None

    def _arrays(self, offer: Offer) -> list[Any]:
        """Keys, what the model was given, outputs: arrays; of an answered request."""
        inputs, feed = offer.inputs, offer.feed
        arrays: list[Any] = [inputs[at].data for at in self._keys]
        for name in self._feed:
            arrays.append(feed[name])  # type: ignore[index]  # noqa: PERF401 - mostly one
        arrays += offer.outputs  # type: ignore[arg-type]
        return arrays

    def pack(self, offer: Offer) -> Packed | None:
        """Write an answered request of one row down; None if it is not of this layout."""
        batch = offer.batch
        if offer.feed is None or offer.outputs is None or offer.names != self.outputs:
            return None
        if [tensor.name for tensor in offer.inputs] != self._names:
            return None
        try:
            arrays = self._arrays(offer)
            # A model has one type for each of its tensors; clients may send a key as they like.
            types = [one.dtype for one in arrays[: len(self._keys)]]
            if types != self._key_types or (
                self._several and [array.nbytes for array in arrays] != self._sizes
            ):
                return None
            if batch is None:
                start = self._head.pack(*offer.seconds)
            else:
                bits, ages = [one for (one,) in batch.bits], [one for (one,) in batch.ages]
                start = self._head.pack(*offer.seconds, *bits, *ages)
            numbers = b"".join([start, *arrays])
        except (struct.error, ValueError, TypeError, KeyError):  # other views, an array with gaps
            return None
        if len(numbers) != self._length:
            return None
        return Packed(offer.plan, self, offer.head, offer.traceparent, numbers, self._size)


def packed(offer: Offer) -> Packed | Offer:
    """An answered request of one row in little room, if it fits what was learned of its plan.

    For the event loop.
    """
    packing: Packing | None = offer.plan.packing
    if packing is not None and packing.possible:
        found = packing.pack(offer)
        if found is not None:
            return found
    return _unusual(offer, packing)


def _unusual(offer: Offer, packing: Packing | None) -> Packed | Offer:
    """Learn from the first offer of a plan, and again when too many have not fitted."""
    if packing is not None:
        packing.misses += 1
        if packing.misses % _RELEARN:
            return offer
    try:
        packing = Packing.of(offer)
    except (KeyError, ValueError, TypeError):
        return offer
    if packing is None:
        return offer
    offer.plan.packing = packing
    return (packing.pack(offer) if packing.possible else None) or offer


class Unpacked:
    """`Gathered` of what was packed by one packing."""

    fed = True
    fine = True

    def __init__(self, packed: Sequence[Packed]) -> None:
        first = packed[0]
        self._packing = first.packing
        self._packed = packed
        self.plan = first.plan
        self.heads = [one.head for one in packed]
        self.total = len(packed)
        self.counts = np.ones(self.total, np.int32)
        self.names = first.packing.outputs
        self.role = first.role
        self._numbers = np.frombuffer(
            b"".join([one.numbers for one in packed]), first.packing.layout
        )

    def _flat(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        values = np.ascontiguousarray(self._numbers[name])
        return values.reshape(-1), np.full(self.total, values.shape[1])

    def seconds(self) -> NDArray[np.float32]:
        """See `Gathered`."""
        return np.ascontiguousarray(self._numbers["seconds"].T)

    def traceparents(self) -> Sequence[str | None]:
        """See `Gathered`."""
        return [one.traceparent for one in self._packed]

    def sent(self) -> Sequence[str]:
        """See `Gathered`."""
        return [self._packing.sent] * self.total

    def keys(self, name: str) -> NDArray[Any] | list[Any]:
        """See `Gathered`."""
        names = self._packing.layout.names or ()
        return self._flat(f"key:{name}")[0] if f"key:{name}" in names else [None] * self.total

    def table(self, name: str) -> NDArray[Any]:
        """See `Gathered`."""
        return self._numbers[f"feed:{name}"]

    def given(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Gathered`."""
        return self._flat(f"feed:{name}")

    def output(self, at: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Gathered`."""
        return self._flat(f"output:{at}")

    def view(self, at: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
        """See `Gathered`."""
        if self._packing.views < 0:
            return None
        bits, ages = self._numbers["bits"][:, at], self._numbers["ages"][:, at]
        return np.ascontiguousarray(bits), np.ascontiguousarray(ages)
