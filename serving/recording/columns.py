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
from serving.recording.offer import Offer, view_columns
from serving.recording.row_plan import STATIONS, Column, RowPlan
from serving.recording.schema import HEAD, arrow_type
from serving.types import Tensor

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
    offers: Sequence[Offer], schema: pa.Schema, weight: float, digest: Digest
) -> pa.RecordBatch:
    """Turn requests of one plan into rows, one per instance, in the plan's schema.

    Args:
        offers: at least one; all of one plan, all with or all without a feed and outputs of the
            same names.
        schema: `schema_of` their plan.
        weight: rows that each stands for, 1/share.
        digest: for values with the policy `hash`.
    """
    plan = offers[0].plan
    columns = list(zip(*[offer.head for offer in offers], strict=True))
    rows = np.array(columns[record.ROWS], np.int32)
    counts = np.maximum(rows, 1)
    total = int(counts.sum())
    sent = _Sent(offers)
    values: dict[str, pa.Array] = {}
    spread = _Spread(counts, total)
    values["prediction_id"] = spread(pa.array(columns[record.PREDICTION_ID], pa.string()))
    values["row"] = pa.array(spread.within())
    values["rows"] = spread(pa.array(rows))
    values["request_id"] = spread(pa.array(columns[record.REQUEST_ID], pa.string()))
    values["trace_id"] = spread(_mostly_same(_trace_ids(offers), pa.string()))
    micros = (np.array(columns[record.TIME], np.float64) * 1e6).astype(np.int64)
    values["event_time"] = spread(pa.array(micros).cast(pa.timestamp("us", "UTC")))
    values["model"] = pa.repeat(plan.model, total)
    values["version"] = pa.repeat(plan.version, total)
    values["digest"] = pa.repeat(plan.digest, total)
    for name, place in _SHARED.items():
        values[name] = spread(_mostly_same(columns[place], HEAD.field(name).type))
    values["sample_weight"] = pa.repeat(weight, total)
    values["batch_rows"] = spread(pa.array(columns[record.BATCH_ROWS], pa.int32()))
    for station, seconds in zip(STATIONS, _seconds(offers), strict=True):
        values[f"{station}_seconds"] = spread(pa.array(seconds))
    values["sent"] = spread(_mostly_same(sent.words(plan), pa.string()))
    _entities(plan, sent, counts, values, digest)
    if offers[0].feed is not None:
        _inputs(plan, offers, counts, values, digest)
    if offers[0].outputs is not None:
        _outputs(plan, offers, counts, values, digest)
    _statuses(plan, offers, counts, values)
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

    def within(self) -> NDArray[np.int32]:
        """The place of each row in its request."""
        if self._single:
            return np.zeros(len(self._counts), np.int32)
        starts = np.repeat(np.cumsum(self._counts) - self._counts, self._counts)
        return (np.arange(len(starts)) - starts).astype(np.int32)


def _mostly_same(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """At least one value, often all the same."""
    if values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


def _trace_ids(offers: Sequence[Offer]) -> list[str]:
    parents = [offer.traceparent for offer in offers]
    if parents.count(None) == len(parents):
        return [""] * len(parents)
    found = [_TRACE_ID.match(parent) if parent else None for parent in parents]
    return [one[1] if one is not None else "" for one in found]


def _seconds(offers: Sequence[Offer]) -> NDArray[np.float32]:
    """Durations, shape [len(STATIONS), len(offers)]."""
    flat = itertools.chain.from_iterable([offer.seconds for offer in offers])
    by_offer = np.fromiter(flat, np.float32, len(offers) * len(STATIONS))
    return np.ascontiguousarray(by_offer.reshape(len(offers), len(STATIONS)).T)


class _Sent:
    """The tensors that clients sent: by their place, where all requests named the same ones."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self._inputs = [offer.inputs for offer in offers]
        self._names: tuple[str, ...] | None = None
        self._places: list[tuple[Tensor, ...]] = []
        if [len(one) for one in self._inputs].count(len(self._inputs[0])) == len(offers):
            self._places = list(zip(*self._inputs, strict=True))
            names = [[tensor.name for tensor in place] for place in self._places]
            if all(one.count(one[0]) == len(one) for one in names):
                self._names = tuple([one[0] for one in names])

    def words(self, plan: RowPlan) -> list[str]:
        """Which features each request brought itself."""
        keys = {column.name for column in plan.entity}

        def said(names: tuple[str, ...]) -> str:
            if any(name in plan.features for name in names):
                return "*"
            return ",".join(name for name in names if name not in keys)

        if self._names is not None:
            return [said(self._names)] * len(self._inputs)
        named = [tuple([tensor.name for tensor in one]) for one in self._inputs]
        known = {names: said(names) for names in set(named)}
        return [known[names] for names in named]

    def arrays(self, name: str) -> list[NDArray[Any] | None]:
        """What each request sent by this name; None where it did not."""
        if self._names is not None and name in self._names:
            return [tensor.data for tensor in self._places[self._names.index(name)]]
        return [next((one.data for one in sent if one.name == name), None) for sent in self._inputs]


def _entities(
    plan: RowPlan,
    sent: _Sent,
    counts: NDArray[np.int32],
    values: dict[str, pa.Array],
    digest: Digest,
) -> None:
    for column in plan.entity:
        if column.policy == "drop":
            continue
        found = sent.arrays(column.name)
        arrays = [array for array in found if array is not None]
        sizes = np.array([array.size for array in arrays], np.int64)
        if len(arrays) == len(found) and bool((sizes == counts).all()):
            flat = np.concatenate(arrays, axis=None)
            if column.policy == "keep" and column.datatype != "BYTES":
                values[column.column] = pa.array(flat)
                continue
            listed = flat.tolist()
        else:
            listed = _keys_found(found, counts)
        if column.policy == "hash":
            listed = [None if value is None else digest(value) for value in listed]
            values[column.column] = pa.array(listed, pa.string())
        else:
            values[column.column] = pa.array(_texts(listed, column.datatype), arrow_type(column))


def _keys_found(arrays: Sequence[NDArray[Any] | None], counts: NDArray[np.int32]) -> list[Any]:
    """Keys of requests of which some have none, or not one a row."""
    listed: list[Any] = []
    for array, count in zip(arrays, counts.tolist(), strict=True):
        if array is None or array.size != count:
            listed += [None] * count
        else:
            listed += array.reshape(-1).tolist()
    return listed


def _inputs(
    plan: RowPlan,
    offers: Sequence[Offer],
    counts: NDArray[np.int32],
    values: dict[str, pa.Array],
    digest: Digest,
) -> None:
    for name, columns in plan.features.items():
        table = np.concatenate([offer.feed[name] for offer in offers])  # type: ignore[index]
        turned = np.ascontiguousarray(_plain(table, columns[0].datatype).T)
        for column in columns:
            if column.policy == "keep":
                values[column.column] = pa.array(turned[column.index])
            elif column.policy == "hash":
                values[column.column] = _hashed(turned[column.index].tolist(), digest)
    for column in plan.direct:
        _tensor(
            column,
            [offer.feed[column.name] for offer in offers],  # type: ignore[index]
            counts,
            values,
            digest,
        )


def _outputs(
    plan: RowPlan,
    offers: Sequence[Offer],
    counts: NDArray[np.int32],
    values: dict[str, pa.Array],
    digest: Digest,
) -> None:
    place = {name: at for at, name in enumerate(offers[0].names)}
    for column in plan.outputs:
        at = place.get(column.name)
        if at is not None:
            arrays = [offer.outputs[at] for offer in offers]  # type: ignore[index]
            _tensor(column, arrays, counts, values, digest)


def _tensor(
    column: Column,
    arrays: Sequence[NDArray[Any]],
    counts: NDArray[np.int32],
    values: dict[str, pa.Array],
    digest: Digest,
) -> None:
    """One tensor a request: a value a row, or a list of values."""
    if column.policy == "drop":
        return
    flat = _plain(np.concatenate(arrays, axis=None), column.datatype)
    if column.policy == "keep" and not column.listed:
        texts = _texts(flat.tolist(), column.datatype) if column.datatype == "BYTES" else flat
        values[column.column] = pa.array(texts)
        return
    sizes = np.array([array.size for array in arrays]) // counts
    lengths = np.repeat(sizes, counts)
    if column.policy == "hash":
        edges = np.concatenate([[0], np.cumsum(lengths)])
        parts = [flat[start:stop].tolist() for start, stop in itertools.pairwise(edges)]
        values[column.column] = _hashed(
            [part[0] if len(part) == 1 else part for part in parts], digest
        )
        return
    texts = _texts(flat.tolist(), column.datatype) if column.datatype == "BYTES" else flat
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values[column.column] = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(texts, pa.string() if column.datatype == "BYTES" else None)
    )


def _statuses(
    plan: RowPlan,
    offers: Sequence[Offer],
    counts: NDArray[np.int32],
    values: dict[str, pa.Array],
) -> None:
    batches = [offer.batch for offer in offers]
    if batches.count(None) == len(batches):
        return
    for at, view in enumerate(plan.views):
        bits, ages = view_columns(batches, at, counts)
        kinds, place = np.unique(bits, return_inverse=True)
        words = pa.array([describe(int(kind)) or None for kind in kinds], pa.string())
        values[f"status.{view}"] = words.take(pa.array(place))
        values[f"age.{view}"] = pa.array(ages.astype(np.float32) / 1e3, mask=ages < 0)


def _hashed(values: Iterable[Any], digest: Digest) -> pa.Array:
    return pa.array([digest(value) for value in values], pa.string())


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
