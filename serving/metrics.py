"""Counters in a memory-mapped file: written by one process for nanoseconds, read by any.

Every process owns a file, and another when that is full; its numbers are cumulative and never
reset, so adding files gives totals, and a killed process leaves its last numbers behind. What
exists is in one table, `serving.metric_families`.

File layout (little-endian): 8 bytes magic, u64 bytes used, then entries. An entry is
u32 key length, u32 number of slots, the key (JSON `[family, [label values]]`, space-padded so
that slots are 8-byte aligned), then that many float64 slots. `used` moves after an entry is
whole, so a reader never sees half of one. A histogram's slots are its buckets (not
cumulative, the last is +Inf), then the sum.
"""

import contextlib
import json
import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.mapped import map_file
from serving.metric_families import FAMILIES, Family

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "HistogramRow",
    "MetricsFile",
    "read",
    "total",
]

MAGIC: Final = b"sluicem1"
_HEADER: Final = struct.Struct("<8sQ")
_ENTRY: Final = struct.Struct("<II")

_ROWS_PAY: Final = 5
"""From here on a matrix costs less than its rows one by one (11 µs against 2.7 a row)."""


class Counter:
    """A number that only grows."""

    __slots__ = ("_index", "_slots")

    def __init__(self, slots: "memoryview[float]", index: int) -> None:
        self._slots = slots
        self._index = index

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`, at least 0."""
        self._slots[self._index] += amount

    @property
    def value(self) -> float:
        """What this process has counted."""
        return self._slots[self._index]


class Gauge(Counter):
    """A number that goes up and down."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Replace the value."""
        self._slots[self._index] = value

    def dec(self, amount: float = 1.0) -> None:
        """Subtract `amount`."""
        self._slots[self._index] -= amount


class Histogram:
    """Counts per bucket, and the sum."""

    __slots__ = ("_sum", "bounds", "index", "slots")

    def __init__(self, slots: "memoryview[float]", index: int, bounds: tuple[float, ...]) -> None:
        self.slots = slots
        self.index = index
        self.bounds = bounds
        self._sum = index + len(bounds) + 1

    def observe(self, value: float) -> None:
        """Count one value, in the family's unit."""
        slots = self.slots
        slots[self.index + bisect_left(self.bounds, value)] += 1.0
        slots[self._sum] += value

    def observe_many(self, values: NDArray[np.float64]) -> None:
        """Count values, shape [n], in the family's unit."""
        slots, index = self.slots, self.index
        cells = np.searchsorted(np.array(self.bounds), values)
        for cell, count in enumerate(np.bincount(cells).tolist()):
            if count:
                slots[index + cell] += count
        slots[self._sum] += float(values.sum())


class HistogramRow:
    """Several histograms with the same bounds, observed many values at a time.

    What one observation costs in Python (0.3 µs) is paid once a batch here.
    """

    def __init__(self, histograms: Sequence[Histogram]) -> None:
        self._histograms = histograms
        first = histograms[0]
        width = len(first.bounds) + 2
        # Those that the end of a file parts from each other are counted one by one.
        self._together = all(one.slots is first.slots for one in histograms)
        self._bounds = np.array(first.bounds)
        self._slots = np.asarray(first.slots)
        self._at = np.array([range(one.index, one.index + width) for one in histograms])
        self._offsets = np.arange(len(histograms)) * (width - 1)
        self._buckets = len(histograms) * (width - 1)

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count a matrix with one column per histogram."""
        if len(values) < _ROWS_PAY or not self._together:
            for row in values.tolist():
                for histogram, value in zip(self._histograms, row, strict=True):
                    histogram.observe(value)
            return
        cells = self._bounds.searchsorted(values) + self._offsets
        counts = np.bincount(cells.ravel(), minlength=self._buckets)
        at = self._at
        self._slots[at[:, :-1]] += counts.reshape(len(at), -1)
        self._slots[at[:, -1]] += values.sum(axis=0)


class _Page:
    """One file: its mapping, and how much of it is used."""

    def __init__(self, path: Path, capacity: int) -> None:
        self.descriptor, self._map = map_file(path, capacity)
        self.slots: memoryview[float] = memoryview(self._map).cast("d")
        self._capacity = capacity
        self._used = _HEADER.size
        _HEADER.pack_into(self._map, 0, MAGIC, self._used)

    def add(self, key: bytes, count: int) -> int | None:
        """Make an entry with `count` slots; where the first is, None if there is no room."""
        size = _ENTRY.size + len(key) + 8 * count
        if self._used + size > self._capacity:
            return None
        start = self._used + _ENTRY.size
        _ENTRY.pack_into(self._map, self._used, len(key), count)
        self._map[start : start + len(key)] = key
        self._used += size
        _HEADER.pack_into(self._map, 0, MAGIC, self._used)
        return (start + len(key)) // 8


class MetricsFile:
    """One process's numbers. Not thread-safe for creating children; call from one thread.

    What no longer fits into a file of `capacity` bytes goes into another beside it,
    `NAME-2.metrics` and so on: a version has about 5 KB of children and keeps them when it is gone,
    because totals never go back. There are at most `files`; past that new children go to one
    shared, unexported slot, so a huge configuration costs detail and never a request. On a full
    disk the numbers are kept in memory, where nobody else sees them.
    """

    def __init__(self, path: Path, capacity: int = 2 << 20, files: int = 16) -> None:
        self.path = path
        self._capacity = capacity
        self._files = files
        self._pages = [_Page(path, capacity)]
        self._children: dict[tuple[str, tuple[str, ...]], tuple[memoryview[float], int]] = {}
        self._overflow = memoryview(bytearray(8 * 64)).cast("d")

    def _slot(self, name: str, labels: dict[str, str]) -> tuple["memoryview[float]", int, Family]:
        family = FAMILIES[name]
        values = tuple(labels[label] for label in family.labels)
        if len(labels) != len(family.labels):
            raise ValueError(f"{name} takes the labels {family.labels}, not {tuple(labels)}")
        found = self._children.get((name, values))
        if found is None:
            count = len(family.buckets) + 2 if family.kind == "histogram" else 1
            key = json.dumps([name, values], ensure_ascii=False).encode()
            key += b" " * (-len(key) % 8)
            found = self._added(key, count)
            if found is None:
                return self._overflow, 0, family
            self._children[(name, values)] = found
        return *found, family

    def _added(self, key: bytes, count: int) -> tuple["memoryview[float]", int] | None:
        """The slots of a new entry and where they begin; None if there is no room for it."""
        page = self._pages[-1]
        index = page.add(key, count)
        if index is None and len(self._pages) < self._files:
            number = len(self._pages) + 1
            name = f"{self.path.stem}-{number}{self.path.suffix}"
            with contextlib.suppress(OSError):
                page = _Page(self.path.with_name(name), self._capacity)
                self._pages.append(page)
                index = page.add(key, count)
        return None if index is None else (page.slots, index)

    def counter(self, name: str, **labels: str) -> Counter:
        """Find or make one child of a counter family."""
        slots, index, _ = self._slot(name, labels)
        return Counter(slots, index)

    def gauge(self, name: str, **labels: str) -> Gauge:
        """Find or make one child of a gauge family."""
        slots, index, _ = self._slot(name, labels)
        return Gauge(slots, index)

    def histogram(self, name: str, **labels: str) -> Histogram:
        """Find or make one child of a histogram family."""
        slots, index, family = self._slot(name, labels)
        return Histogram(slots, index, family.buckets)

    def close(self) -> None:
        """Let go of the files; they stay for whoever adds them up.

        A mapping goes with the last child that counts into it.
        """
        for page in self._pages:
            if page.descriptor >= 0:
                os.close(page.descriptor)
                page.descriptor = -1


Samples = dict[tuple[str, tuple[str, ...]], list[float]]


def _entries(data: bytes) -> Iterator[tuple[tuple[str, tuple[str, ...]], list[float]]]:
    position = 0
    while position + _ENTRY.size <= len(data):
        key_length, count = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        name, values = json.loads(data[position : position + key_length])
        position += key_length
        yield (name, tuple(values)), list(struct.unpack_from(f"<{count}d", data, position))
        position += 8 * count


def read(path: Path) -> Samples:
    """Read one process's numbers; an empty or foreign file gives none."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(MAGIC):
            return {}
        used = _HEADER.unpack(head)[1]
        return dict(_entries(file.read(used - _HEADER.size)))


def total(samples: Iterable[Samples]) -> Samples:
    """Add several processes' numbers; gauges with `merge="max"` keep the largest."""
    result: Samples = {}
    for one in samples:
        for key, values in one.items():
            known = result.get(key)
            if known is None:
                result[key] = list(values)
            elif FAMILIES[key[0]].merge == "max":
                known[:] = [max(a, b) for a, b in zip(known, values, strict=True)]
            else:
                known[:] = [a + b for a, b in zip(known, values, strict=True)]
    return result
