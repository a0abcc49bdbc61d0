"""Many records of one version to one Arrow batch: column by column, never row by row.

A row costs what its Python objects cost to walk past, about a microsecond; the values
themselves are moved by numpy.
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
from serving.recording.offer import Offer
from serving.recording.row_plan import STATIONS, Column, RowPlan
from serving.recording.schema import arrow_type

__all__ = ["digest_with", "record_batch"]


_TRACE_ID: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")
Digest = Callable[[Any], str]


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
    heads = [offer.head for offer in offers]
    columns = list(zip(*heads, strict=True))
    rows = np.array(columns[record.ROWS], np.int32)
    counts = np.maximum(rows, 1)
    total = int(counts.sum())
    values: dict[str, pa.Array] = {}
    spread = _Spread(counts, total)
    values["prediction_id"] = spread(pa.array(columns[record.PREDICTION_ID], pa.string()))
    values["row"] = pa.array(spread.within())
    values["rows"] = spread(pa.array(rows))
    values["request_id"] = spread(pa.array(columns[record.REQUEST_ID], pa.string()))
    values["trace_id"] = spread(pa.array([_trace_id(offer.traceparent) for offer in offers]))
    micros = (np.array(columns[record.TIME], np.float64) * 1e6).astype(np.int64)
    values["event_time"] = spread(pa.array(micros).cast(pa.timestamp("us", "UTC")))
    values["model"] = pa.repeat(plan.model, total)
    values["version"] = pa.repeat(plan.version, total)
    values["digest"] = pa.repeat(plan.digest, total)
    values["role"] = spread(pa.array(columns[record.ROLE], pa.string()))
    values["assignment_reason"] = spread(pa.array(columns[record.REASON], pa.string()))
    values["assignment_probability"] = spread(pa.array(columns[record.PROBABILITY], pa.float64()))
    values["route_revision"] = spread(pa.array(columns[record.REVISION], pa.int64()))
    values["code"] = spread(pa.array(columns[record.CODE], pa.string()))
    values["sample_weight"] = pa.repeat(weight, total)
    values["batch_rows"] = spread(pa.array(columns[record.BATCH_ROWS], pa.int32()))
    seconds = np.array([offer.seconds for offer in offers], np.float32)
    for at, station in enumerate(STATIONS):
        values[f"{station}_seconds"] = spread(pa.array(np.ascontiguousarray(seconds[:, at])))
    values["sent"] = spread(pa.array(_sent(plan, offers), pa.string()))
    _entities(plan, offers, counts, values, digest)
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


def _trace_id(traceparent: str | None) -> str:
    found = _TRACE_ID.match(traceparent) if traceparent else None
    return found[1] if found is not None else ""


def _sent(plan: RowPlan, offers: Sequence[Offer]) -> list[str]:
    """Which features each request brought itself."""
    keys = {column.name for column in plan.entity}
    known: dict[tuple[str, ...], str] = {}
    said = []
    for offer in offers:
        names = tuple([tensor.name for tensor in offer.inputs])
        words = known.get(names)
        if words is None:
            whole = any(name in plan.features for name in names)
            words = "*" if whole else ",".join(name for name in names if name not in keys)
            known[names] = words
        said.append(words)
    return said


def _entities(
    plan: RowPlan,
    offers: Sequence[Offer],
    counts: NDArray[np.int32],
    values: dict[str, pa.Array],
    digest: Digest,
) -> None:
    for column in plan.entity:
        if column.policy == "drop":
            continue
        arrays: list[NDArray[Any]] = []
        for offer in offers:
            for tensor in offer.inputs:
                if tensor.name == column.name:
                    arrays.append(tensor.data)
                    break
        sizes = np.fromiter((array.size for array in arrays), np.int64, len(arrays))
        if len(arrays) == len(offers) and bool((sizes == counts).all()):
            flat = np.concatenate([array.reshape(-1) for array in arrays])
            if column.policy == "keep" and column.datatype != "BYTES":
                values[column.column] = pa.array(flat)
                continue
            listed = flat.tolist()
        else:
            listed = _keys_found(column.name, offers, counts)
        if column.policy == "hash":
            listed = [None if value is None else digest(value) for value in listed]
            values[column.column] = pa.array(listed, pa.string())
        else:
            values[column.column] = pa.array(_texts(listed, column.datatype), arrow_type(column))


def _keys_found(name: str, offers: Sequence[Offer], counts: NDArray[np.int32]) -> list[Any]:
    """Keys of requests of which some have none, or not one a row."""
    listed: list[Any] = []
    for offer, count in zip(offers, counts.tolist(), strict=True):
        found = next((one.data for one in offer.inputs if one.name == name), None)
        if found is None or found.size != count:
            listed += [None] * count
        else:
            listed += found.reshape(-1).tolist()
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
    flat = _plain(np.concatenate([array.reshape(-1) for array in arrays]), column.datatype)
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
    if not column.listed:
        values[column.column] = pa.array(texts)
        return
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
    if all(batch is None for batch in batches):
        return
    for at, view in enumerate(plan.views):
        all_bits: list[int] = []
        all_ages: list[int] = []
        for batch, count in zip(batches, counts.tolist(), strict=True):
            # A plan's views are those of its batches, in the same order.
            if batch is None:
                all_bits += [0] * count
                all_ages += [-1] * count
            else:
                all_bits += batch.bits[at]
                all_ages += batch.ages[at]
        kinds, place = np.unique(np.array(all_bits, np.uint8), return_inverse=True)
        words = pa.array([describe(int(bits)) or None for bits in kinds], pa.string())
        values[f"status.{view}"] = words.take(pa.array(place))
        ages = np.array(all_ages, np.float32)
        values[f"age.{view}"] = pa.array(ages / 1e3, mask=ages < 0)


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
