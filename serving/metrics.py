"""Counters in a memory-mapped file: written by one process for nanoseconds, read by any.

Every worker incarnation owns one file; its numbers are cumulative and never reset, so
adding files gives totals, and a killed process leaves its last numbers behind. `FAMILIES`
is the one table of what exists; label values come from configuration, never from requests.

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
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.mapped import map_file

__all__ = [
    "FAMILIES",
    "Counter",
    "Family",
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

LATENCY_SECONDS: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_ROWS_PAY: Final = 5
"""From here on a matrix costs less than its rows one by one (11 µs against 2.7 a row)."""

AGE_SECONDS: Final = (
    0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0,
    90 * 86400.0,
)  # fmt: skip
BATCH_ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Family(msgspec.Struct, frozen=True):
    """One metric: its kind, help text, label names and, for a histogram, bucket bounds.

    `merge` says how several processes' gauges become one number.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Literal["sum", "max"] = "sum"


_VERSION = ("model", "version")
FAMILIES: Final[dict[str, Family]] = {
    "sluice_requests_total": Family(
        "counter",
        "Requests answered, by the code they were answered with (gRPC's word for it).",
        ("model", "version", "role", "protocol", "code"),
    ),
    "sluice_request_duration_seconds": Family(
        "histogram",
        "Time from the first byte of a request to its answer being ready to be encoded.",
        ("model", "version", "role"),
        LATENCY_SECONDS,
    ),
    "sluice_station_duration_seconds": Family(
        "histogram",
        "Time spent in one station of the pipeline.",
        ("model", "version", "station"),
        LATENCY_SECONDS,
    ),
    "sluice_rejected_total": Family(
        "counter",
        "Requests refused before they reached a model, by reason.",
        ("model", "reason"),
    ),
    "sluice_in_flight_requests": Family("gauge", "Requests being worked on."),
    "sluice_connections": Family("gauge", "Open client connections.", ("protocol",)),
    "sluice_connections_handed_over_total": Family(
        "counter",
        "Fresh HTTP connections that a worker gave to a sibling that had fewer.",
    ),
    "sluice_queue_requests": Family("gauge", "Requests waiting for a session.", _VERSION),
    "sluice_batch_rows": Family("histogram", "Rows in one session run.", _VERSION, BATCH_ROWS),
    "sluice_inference_rows_total": Family("counter", "Rows answered by a version.", _VERSION),
    "sluice_inference_seconds_total": Family(
        "counter",
        "Time requests of one version spent, by phase (success, fail, queue, compute_input, "
        "compute_infer, compute_output).",
        (*_VERSION, "phase"),
    ),
    "sluice_inference_phase_total": Family(
        "counter", "Requests that went through a phase of one version.", (*_VERSION, "phase")
    ),
    "sluice_batches_total": Family(
        "counter", "Session runs, by batch size (rows).", (*_VERSION, "size")
    ),
    "sluice_batch_seconds_total": Family(
        "counter", "Time of session runs, by batch size (rows).", (*_VERSION, "size")
    ),
    "sluice_last_inference_timestamp_seconds": Family(
        "gauge", "Wall-clock time of the last answer.", _VERSION, merge="max"
    ),
    "sluice_log_rows_total": Family(
        "counter",
        "Rows offered to the prediction log, and what became of them: logged, sampled_out, or "
        "dropped (buffer_full, disk_full, disk_error, unwritable, crash).",
        ("outcome",),
    ),
    "sluice_log_held_bytes": Family("gauge", "What the prediction log holds and has not written."),
    "sluice_log_bytes": Family("gauge", "What the prediction log takes on the disk.", merge="max"),
    "sluice_log_files_total": Family(
        "counter",
        "Files of the prediction log by what became of them: segments converted to Parquet or "
        "found damaged, Parquet files merged, expired, or removed over max_size.",
        ("outcome",),
    ),
    "sluice_fallback_total": Family(
        "counter",
        "Requests that the canary failed, by what became of them: asked of production (answered, "
        "failed, abandoned by the client) or not (no_budget, no_time).",
        ("model", "outcome"),
    ),
    "sluice_mirrored_total": Family(
        "counter", "Shadow copies, by outcome (answered, failed, dropped).", (*_VERSION, "outcome")
    ),
    "sluice_shadow_agreement_total": Family(
        "counter",
        "Shadow answers compared with production's: equal (within 1e-5) or different.",
        (*_VERSION, "outcome"),
    ),
    "sluice_evidence_lost_total": Family(
        "counter",
        "Requests that a rollout should have counted and never will, by reason: killed (ended in a "
        "worker that died before it told), too_old, too_many (the store or control was away).",
        ("model", "reason"),
    ),
    "sluice_evidence_held_bytes": Family(
        "gauge", "What workers have counted for rollouts and control has not confirmed."
    ),
    "sluice_hard_stops_total": Family(
        "counter", "Times that a worker stopped giving a canary requests by itself.", _VERSION
    ),
    "sluice_records_total": Family(
        "counter", "Prediction records, by outcome (kept, replaced by newer ones).", ("outcome",)
    ),
    "sluice_feature_rows_total": Family(
        "counter",
        "Rows of feature views read for requests, by what became of them.",
        ("view", "status"),
    ),
    "sluice_feature_age_seconds": Family(
        "histogram",
        "Age of feature values as requests saw them: now less event time.",
        ("view",),
        AGE_SECONDS,
    ),
    "sluice_feature_reads_total": Family(
        "counter",
        "Keys read, by outcome (hit: near cache, miss: store, joined: a read under way, "
        "refused: breaker open).",
        ("outcome",),
    ),
    "sluice_feature_store_failures_total": Family(
        "counter", "Reads of the feature store that came to nothing.", ("reason",)
    ),
    "sluice_feature_cache_bytes": Family("gauge", "Size of the near caches of features."),
    "sluice_feature_store_connected": Family(
        "gauge", "Workers that are connected to the feature store."
    ),
    "sluice_route_revision": Family(
        "gauge", "Revision of the route table being served.", merge="max"
    ),
    "sluice_upstream_hosts": Family(
        "gauge",
        "Processes or servers that a version elsewhere can be asked at.",
        ("model", "version"),
        merge="max",
    ),
    "sluice_upstream_retries_total": Family(
        "counter", "Requests sent once more, to another host.", ("model", "version")
    ),
    "sluice_upstream_ejections_total": Family(
        "counter", "Times that a host was left alone for a while.", ("model", "version")
    ),
    "sluice_loop_lag_seconds": Family(
        "gauge", "How late the event loop ran its last timer.", merge="max"
    ),
    "sluice_busy_seconds_total": Family("counter", "CPU time of workers and model hosts."),
    "sluice_resident_memory_bytes": Family("gauge", "Resident memory of workers and model hosts."),
    "sluice_spans_total": Family(
        "counter", "Trace spans, by outcome (exported, dropped).", ("outcome",)
    ),
}


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
        # Children beyond a full file's capacity count into nowhere, one by one.
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
