"""Many records of one version to one Arrow batch: column by column, never row by row.

A row costs what its Python objects cost to walk past; the values themselves are moved by numpy.
So every walk is one list in one expression, and what is the same in all rows, as most is, is said
once.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_cache.status import describe
from serving.recording import record
from serving.recording.arrow_arrays import mostly_same, numbers, repeated_text, texts
from serving.recording.gathered import Gathered
from serving.recording.row_plan import STATIONS, Column
from serving.recording.schema import HEAD, arrow_type

__all__ = ["digest_with", "record_batch"]


_TRACE_ID: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")
Digest = Callable[[Any], str]

_SHARED: Final = {
    "role": record.ROLE,
    "assignment_reason": record.REASON,
    "assignment_probability": record.PROBABILITY,
    "route_revision": record.REVISION,
    "code": record.CODE,
}
"""Columns of the head that hardly differ within a batch."""


def digest_with(key: bytes) -> Digest:
    """Make the function that stands in for values whose policy is `hash`.

    Equal values give equal digests under one key; without the key they cannot be tried out.
    """

    def digest(value: Any) -> str:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 42 sent as INT64 and read back as FP32 is the same subject
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(raw, key=key, digest_size=16).hexdigest()

    return digest


def record_batch(
    gathered: Gathered, schema: pa.Schema, weight: float, digest: Digest
) -> pa.RecordBatch:
    """Turn requests of one plan into rows, one per instance, in the plan's schema.

    Args:
        gathered: the requests.
        schema: `schema_of` their plan.
        weight: rows that each stands for, 1/share.
        digest: for values with the policy `hash`.
    """
    plan, total = gathered.plan, gathered.total
    columns = list(zip(*gathered.heads, strict=True))
    spread = _Spread(gathered.counts, total)
    values: dict[str, pa.Array] = {}
    values["prediction_id"] = spread(texts(columns[record.PREDICTION_ID]))
    values["row"] = numbers(spread.within())
    values["rows"] = spread(numbers(np.array(columns[record.ROWS], np.int32)))
    values["request_id"] = spread(texts(columns[record.REQUEST_ID]))
    values["trace_id"] = spread(mostly_same(_trace_ids(gathered.traceparents()), pa.string()))
    micros = (np.array(columns[record.TIME], np.float64) * 1e6).astype(np.int64)
    values["event_time"] = spread(numbers(micros, pa.timestamp("us", "UTC")))
    values["model"] = repeated_text(plan.model, total)
    values["version"] = repeated_text(plan.version, total)
    values["digest"] = repeated_text(plan.digest, total)
    for name, place in _SHARED.items():
        values[name] = spread(mostly_same(columns[place], HEAD.field(name).type))
    values["sample_weight"] = numbers(np.full(total, weight, np.float64))
    values["batch_rows"] = spread(numbers(np.array(columns[record.BATCH_ROWS], np.int32)))
    for station, seconds in zip(STATIONS, gathered.seconds(), strict=True):
        values[f"{station}_seconds"] = spread(numbers(seconds))
    values["sent"] = spread(mostly_same(gathered.sent(), pa.string()))
    _entities(gathered, values, digest)
    if gathered.fed:
        _inputs(gathered, spread, values, digest)
    place_of = {name: at for at, name in enumerate(gathered.names)}
    for column in plan.outputs:
        if column.name in place_of and column.policy != "drop":
            flat, sizes = gathered.output(place_of[column.name])
            values[column.column] = _tensor(column, flat, spread.lengths(sizes), digest)
    _statuses(gathered, values)
    arrays = [
        values[field.name] if field.name in values else pa.nulls(total, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Spread:
    """From one value a request to one a row."""

    def __init__(self, counts: NDArray[np.int32], total: int) -> None:
        self._counts = counts
        self._single = total == len(counts)
        self._index = None if self._single else pa.array(np.repeat(np.arange(len(counts)), counts))

    def __call__(self, array: pa.Array) -> pa.Array:
        return array if self._index is None else array.take(self._index)

    def lengths(self, sizes: NDArray[Any]) -> NDArray[Any]:
        """From values a request to values a row."""
        return np.repeat(sizes // self._counts, self._counts)

    def within(self) -> NDArray[np.int32]:
        """The place of each row in its request."""
        if self._single:
            return np.zeros(len(self._counts), np.int32)
        starts = np.repeat(np.cumsum(self._counts) - self._counts, self._counts)
        return (np.arange(len(starts)) - starts).astype(np.int32)


def _trace_ids(parents: Sequence[str | None]) -> list[str]:
    if parents.count(None) == len(parents):
        return [""] * len(parents)
    found = [_TRACE_ID.match(parent) if parent else None for parent in parents]
    return [one[1] if one is not None else "" for one in found]


def _entities(gathered: Gathered, values: dict[str, pa.Array], digest: Digest) -> None:
    for column in gathered.plan.entity:
        if column.policy == "drop":
            continue
        found = gathered.keys(column.name)
        if isinstance(found, np.ndarray):
            if column.policy == "keep" and column.datatype != "BYTES":
                values[column.column] = numbers(found)
                continue
            found = found.tolist()
        if column.policy == "hash":
            listed = [None if value is None else digest(value) for value in found]
            values[column.column] = texts(listed)
        else:
            values[column.column] = pa.array(_texts(found, column.datatype), arrow_type(column))


def _inputs(
    gathered: Gathered, spread: "_Spread", values: dict[str, pa.Array], digest: Digest
) -> None:
    for name, columns in gathered.plan.features.items():
        turned = np.ascontiguousarray(_plain(gathered.table(name), columns[0].datatype).T)
        for column in columns:
            if column.policy == "keep":
                values[column.column] = numbers(turned[column.index])
            elif column.policy == "hash":
                values[column.column] = _hashed(turned[column.index].tolist(), digest)
    for column in gathered.plan.direct:
        if column.policy != "drop":
            flat, sizes = gathered.given(column.name)
            values[column.column] = _tensor(column, flat, spread.lengths(sizes), digest)


def _tensor(
    column: Column,
    flat: NDArray[Any],
    lengths: NDArray[Any],
    digest: Digest,
) -> pa.Array:
    """Tensors, flat, of so many values a row: a value a row, or a list of values."""
    flat = _plain(flat, column.datatype)
    if column.policy == "hash":
        edges = np.concatenate([[0], np.cumsum(lengths)])
        parts = [flat[start:stop].tolist() for start, stop in itertools.pairwise(edges)]
        return _hashed([part[0] if len(part) == 1 else part for part in parts], digest)
    within = texts(_texts(flat.tolist(), "BYTES")) if column.datatype == "BYTES" else numbers(flat)
    if column.listed:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(numbers(offsets), within)
    return within


def _statuses(gathered: Gathered, values: dict[str, pa.Array]) -> None:
    for at, view in enumerate(gathered.plan.views):
        found = gathered.view(at)
        if found is None:
            return
        bits, ages = found
        if (bits == bits[0]).all() and (word := describe(int(bits[0]))):
            values[f"status.{view}"] = repeated_text(word, len(bits))
        else:
            kinds, place = np.unique(bits, return_inverse=True)
            words = [describe(int(kind)) or None for kind in kinds]
            values[f"status.{view}"] = texts([words[at] for at in place.tolist()])
        values[f"age.{view}"] = numbers(ages.astype(np.float32) / np.float32(1e3), valid=ages >= 0)


def _hashed(values: Iterable[Any], digest: Digest) -> pa.Array:
    return texts([digest(value) for value in values])


def _texts(values: list[Any], datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return values
    return [
        value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
        for value in values
    ]


def _plain(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """Half precision as FP32, which everything can read."""
    if datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if datatype == "FP16" else array
