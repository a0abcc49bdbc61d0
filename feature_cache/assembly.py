"""From what the store said to a model's inputs. No I/O.

One reading serves every plan over the same views, so a canary or a shadow sees the very bytes that
production saw.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.codec import TOMBSTONE, Corrupt, Layout, event_time, schema_of
from feature_cache.feast_source import read_hash
from feature_cache.near_cache import Entry
from feature_cache.plan import Part, Plan, PlannedView, Row, read_row
from feature_cache.reader import Found
from feature_cache.status import Status

__all__ = ["Assembler", "Batch", "Reading"]

SKEW_MS: Final = 5000
"""A row may be this far in the future: two machines' clocks are never quite the same."""


class Reading(msgspec.Struct, gc=False):
    """What the store said about every view of a plan, for `rows` entities, at `wall_ms`.

    `first` is where each view's rows begin in `found`; a view that was not asked, because the
    request brings its fields, is not in it.
    """

    rows: int
    wall_ms: int
    found: Found
    first: dict[str, int]


class Batch(msgspec.Struct, gc=False):
    """A model's inputs, and where they come from.

    Attributes:
        values: by input name, shape [n, k], columns in the model's order.
        bits: for each view, `Status` bits of each row; 0 where the view was not asked.
        ages: for each view, now less event time of each row in milliseconds; -1 where there
            is no row.
        views: names, in the order of `bits` and `ages`.
        refusal: why a view's policy rejects this request; empty if none does.
        unknown: views with a row whose field list is not known (yet).
    """

    values: dict[str, NDArray[Any]]
    bits: list[list[int]]
    ages: list[list[int]]
    views: tuple[str, ...]
    refusal: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def status(self) -> NDArray[np.uint8]:
        """`Status` bits, u8, shape [n, views]."""
        return np.array(self.bits, np.uint8).T

    @property
    def age_ms(self) -> NDArray[np.int64]:
        """`ages` as i8, shape [n, views]."""
        return np.array(self.ages, np.int64).T

    def digests(self) -> list[bytes]:
        """For each row 8 bytes that stand for exactly the values the model is given."""
        tables = list(self.values.values())
        rows = len(tables[0]) if tables else 0
        return [
            hashlib.blake2b(
                b"".join([_bytes(table[at]) for table in tables]), digest_size=8
            ).digest()
            for at in range(rows)
        ]


def _bytes(row: NDArray[Any]) -> bytes:
    if row.dtype.hasobject:
        return b"".join(len(one).to_bytes(4, "little") + one for one in row.tolist())
    return row.tobytes()


class Assembler:
    """Decodes rows, by the layouts that are known of each view, and applies the views' policies."""

    def __init__(self, layouts: Mapping[str, Mapping[bytes, Layout]]) -> None:
        self.skewed = 0
        """Rows read whose event time is more than `SKEW_MS` in the future."""
        self._layouts = layouts

    def assemble(
        self, plan: Plan, reading: Reading, request_values: Mapping[str, NDArray[Any]]
    ) -> Batch:
        """Make the inputs of a plan from a reading of the same views. Pure but for counters."""
        if reading.rows == 1 and plan.side_by_side and not request_values:
            return self._assemble_one(plan, reading)
        rows, all_bits, all_ages = reading.rows, [], []
        pieces: dict[Part, list[NDArray[Any]]] = {}
        refusal, unknown = "", []
        for view in plan.views:
            first = reading.first.get(view.name)
            parts = view.parts
            if first is None:
                all_bits.append([0] * rows)
                all_ages.append([-1] * rows)
                for part in parts:
                    pieces[part] = [part.empty.values] * rows
                continue
            columns: list[list[NDArray[Any]]] = [[] for _ in parts]
            bits, ages = [], []
            for at in range(first, first + rows):
                seen, bit, age = self.view_row(view, reading, at)
                bits.append(bit)
                ages.append(age)
                for column, row in zip(columns, seen, strict=True):
                    column.append(row.values)
                if bit & _TROUBLE:
                    refusal = refusal or _refusal(view, bit, seen, request_values)
                    if bit & _SCHEMA and view.name not in unknown:
                        unknown.append(view.name)
            all_bits.append(bits)
            all_ages.append(ages)
            pieces.update(zip(parts, columns, strict=True))
        return Batch(
            _inputs(plan, pieces, request_values, rows),
            all_bits,
            all_ages,
            plan.names,
            refusal,
            tuple(unknown),
        )

    def _assemble_one(self, plan: Plan, reading: Reading) -> Batch:
        """`assemble` for one entity whose views stand side by side, in a third of the time."""
        bits, ages, pieces = [], [], []
        refusal = ""
        unknown: tuple[str, ...] = ()
        for view in plan.views:
            rows, bit, age = self.view_row(view, reading, reading.first[view.name])
            bits.append([bit])
            ages.append([age])
            pieces.append(rows[0].values)
            if bit & _TROUBLE:
                refusal = refusal or _refusal(view, bit, rows, {})
                if bit & _SCHEMA:
                    unknown += (view.name,)
        planned = plan.inputs[0]
        row = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        if planned.order is not None:
            row = row.take(planned.order)
        return Batch({planned.name: row[None]}, bits, ages, plan.names, refusal, unknown)

    def view_row(self, view: PlannedView, reading: Reading, at: int) -> tuple[list[Row], int, int]:
        """One entity's rows of a view's parts, the status bits, and the age in milliseconds."""
        found = reading.found
        if found.failed[at]:
            return view.empty, _TIMEOUT | view.empty_bits, -1
        entry = found.entries[at]
        bits = _CACHED if found.cached[at] else 0
        blob = entry.value
        kept = entry.decoded
        if kept is not None and kept[0] is view.key:
            _, rows, said, event_ms = kept
        else:
            decoded = self._decode(view, entry) if blob is not None else None
            if decoded is None:
                return view.empty, bits | _NOT_FOUND | view.empty_bits, -1
            _, rows, said, event_ms = decoded
        age = reading.wall_ms - event_ms
        if age > view.fresh_ms:
            if event_ms < 0:  # the time could not be read either
                return rows, bits | said, -1
            if age > view.keep_ms:
                return view.empty, bits | _NOT_FOUND | view.empty_bits, -1
            bits |= _STALE
            if view.defaults_stale:
                return view.empty, bits | _DEFAULTED, age
        elif age < -SKEW_MS:
            self.skewed += 1
        return rows, bits | said, age

    def _decode(self, view: PlannedView, entry: Entry) -> "_Decoded | None":
        """What an entry says, kept with it; None where it holds no values."""
        blob = entry.value
        if view.feast is not None:
            return read_hash(view, blob)
        plain = view.plain
        if plain is not None and blob[:8] == plain[0] and len(blob) == plain[1]:
            part = view.parts[0]
            values = np.frombuffer(blob, part.dtype, plain[3], plain[2])
            event_ms = int.from_bytes(blob[8:16], "big")
            entry.decoded = decoded = (view.key, [Row(values, 0)], _OK, event_ms)
            return decoded
        try:
            flags, schema_id = schema_of(blob)
        except Corrupt:
            return view.key, view.empty, _SCHEMA | view.empty_bits, -1
        if flags & TOMBSTONE:
            return None
        layout = self._layouts[view.name].get(schema_id)
        if layout is None:  # not kept: the field list may become known
            return view.key, view.empty, _SCHEMA | view.empty_bits, event_time(blob)
        rows = [read_row(part, blob, layout) for part in view.parts]
        bits = 0
        for row in rows:
            bits |= row.bits
        said = bits if bits & _SCHEMA else bits | _OK
        entry.decoded = decoded = (view.key, rows, said, event_time(blob))
        return decoded


_Decoded = tuple[tuple[Part, ...], list[Row], int, int]
"""A view's parts, their rows, status bits, event time in milliseconds."""

# Plain integers: arithmetic on enum members costs a microsecond an operation.
_OK, _CACHED, _STALE, _NOT_FOUND, _NULLS, _DEFAULTED, _TIMEOUT, _SCHEMA = map(int, Status)
_TROUBLE: Final = _STALE | _NOT_FOUND | _NULLS | _DEFAULTED | _TIMEOUT | _SCHEMA


def _inputs(
    plan: Plan,
    pieces: Mapping[Part, list[NDArray[Any]]],
    request_values: Mapping[str, NDArray[Any]],
    rows: int,
) -> dict[str, NDArray[Any]]:
    values = {}
    for planned in plan.inputs:
        parts = [pieces[part] for part in planned.parts]
        if rows == 1:
            flat = parts[0][0] if len(parts) == 1 else np.concatenate([one[0] for one in parts])
            table = (flat if planned.order is None else flat.take(planned.order))[None]
        else:
            table = np.concatenate([np.array(one, planned.dtype) for one in parts], axis=1)
            if planned.order is not None:
                table = table.take(planned.order, axis=1)
        if request_values:
            brought = [field for field in planned.fields if field in request_values]
            if brought:
                table = table.copy()
                for field in brought:
                    table[:, planned.place[field]] = request_values[field]
        values[planned.name] = table
    return values


def _refusal(
    view: PlannedView, bits: int, rows: list[Row], request_values: Mapping[str, Any]
) -> str:
    """Why the view's policy rejects a row with this status; empty if it does not."""
    policy = view.view
    if bits & _TIMEOUT:
        if policy.required:
            return f"the view '{view.name}' is required, and the store did not answer in time"
    elif bits & _STALE and policy.on_stale == "reject":
        return f"the view '{view.name}' is older than its fresh_for, {policy.fresh_for}"
    if policy.on_missing == "reject":
        lacking = {
            part.fields[at]
            for part, row in zip(view.parts, rows, strict=True)
            for at in row.lacking
        }
        absent = sorted(lacking - request_values.keys())
        if absent:
            return f"the view '{view.name}' has no value for {', '.join(absent[:8])}"
    return ""
