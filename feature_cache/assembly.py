"""From what the store said to a model's inputs. No I/O.

One reading serves every plan over the same views, so a canary or a shadow sees the very bytes that
production saw.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.codec import TOMBSTONE, Corrupt, Layout, event_time, schema_of
from feature_cache.feast_source import read_hash
from feature_cache.near_cache import Entry
from feature_cache.plan import Part, Plan, PlannedView, Row, read_row
from feature_cache.reading import Reading
from feature_cache.status import Status
from feature_cache.straight import SKEW_MS

__all__ = ["Assembler", "Batch"]

_MANY: Final = 8
"""From so many rows on numpy's own cost is worth it."""


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
    fine: bool = False
    """One entity of which every view gave a fresh value, whole; said only where that was cheap to
    see. Then `oldest` is the greatest of its ages."""

    oldest: int = -1

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


class _Work(msgspec.Struct):
    """One assembly under way: what was read and sent, and what has come of it so far."""

    reading: Reading
    sent: Mapping[str, Any]
    batch: Batch
    pieces: dict[Part, Any] = {}
    """By part, values of each row, shape [k], or of all of them, [n, k]."""


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
        if not request_values:
            if reading.found.whole >= 0 and (batch := _taken(plan, reading)) is not None:
                return batch
            if reading.rows == 1 and plan.side_by_side:
                return self._assemble_one(plan, reading)
        return self._assemble_many(plan, reading, request_values)

    def _assemble_many(
        self, plan: Plan, reading: Reading, request_values: Mapping[str, NDArray[Any]]
    ) -> Batch:
        rows = reading.rows
        work = _Work(reading, request_values, Batch({}, [], [], plan.names))
        for view in plan.views:
            first = reading.first.get(view.name)
            if first is None:
                work.batch.bits.append([0] * rows)
                work.batch.ages.append([-1] * rows)
                for part in view.parts:
                    work.pieces[part] = [part.empty.values] * rows
            elif rows < _MANY or view.plain is None:
                self._rows_of(view, range(first, first + rows), work)
            else:
                self._many_of(view, first, work)
        work.batch.values = _inputs(plan, work.pieces, request_values, rows)
        return work.batch

    def _rows_of(self, view: PlannedView, places: Sequence[int], work: "_Work") -> None:
        """Add a view's rows to the work, one by one."""
        batch = work.batch
        columns: list[list[NDArray[Any]]] = [[] for _ in view.parts]
        bits, ages = [], []
        for at in places:
            seen, bit, age = self.view_row(view, work.reading, at)
            bits.append(bit)
            ages.append(age)
            for column, row in zip(columns, seen, strict=True):
                column.append(row.values)
            if bit & _TROUBLE:
                batch.refusal = batch.refusal or _refusal(view, bit, seen, work.sent)
                if bit & _SCHEMA and view.name not in batch.unknown:
                    batch.unknown += (view.name,)
        batch.bits.append(bits)
        batch.ages.append(ages)
        work.pieces.update(zip(view.parts, columns, strict=True))

    def _many_of(self, view: PlannedView, first: int, work: "_Work") -> None:
        """`_rows_of` for many: those that are as they should be at once, the others one by one."""
        assert view.plain is not None
        start, size, offset, count = view.plain
        reading, batch, part = work.reading, work.batch, view.parts[0]
        found, rows = reading.found, reading.rows
        blobs = found.values[first : first + rows]
        good = [at for at, one in enumerate(blobs) if one and len(one) == size and one[:8] == start]
        # numpy wants room for the offset even where there is no row at all.
        whole = b"".join([blobs[at] for at in good]) or bytes(size)
        headers: NDArray[Any] = np.ndarray((len(good),), ">i8", whole, 8, (size,))
        stored: NDArray[Any] = np.ndarray(
            (len(good), count), part.dtype, whole, offset, (size, part.dtype.itemsize)
        )
        old = reading.wall_ms - headers.astype(np.int64)
        fine = (old <= view.fresh_ms) & (old >= -SKEW_MS)
        places = np.array(good, np.intp)[fine]
        values = np.empty((rows, count), part.dtype)
        ages, bits = np.full(rows, -1, np.int64), np.zeros(rows, np.int64)
        values[places], ages[places] = stored[fine], old[fine]
        cached = np.array(found.cached[first : first + rows])
        bits[places] = np.where(cached[places], _OK | _CACHED, _OK)
        rest = np.flatnonzero(bits == 0)
        if len(rest):
            alone = _Work(reading, work.sent, Batch({}, [], [], (), batch.refusal, batch.unknown))
            self._rows_of(view, (rest + first).tolist(), alone)
            said = alone.batch
            values[rest], bits[rest], ages[rest] = alone.pieces[part], said.bits[0], said.ages[0]
            batch.refusal, batch.unknown = said.refusal, said.unknown
        batch.bits.append(bits.tolist())
        batch.ages.append(ages.tolist())
        work.pieces[part] = values

    def _assemble_one(self, plan: Plan, reading: Reading) -> Batch:
        """`assemble` for one entity whose views stand side by side, in a third of the time."""
        bits, ages, pieces = [], [], []
        refusal = ""
        unknown: tuple[str, ...] = ()
        fine = reading.found.whole == 1
        for view in plan.views:
            rows, bit, age = self.view_row(view, reading, reading.first[view.name])
            bits.append([bit])
            ages.append([age])
            pieces.append(rows[0].values)
            fine = fine and bit == _OK | _CACHED and age >= -SKEW_MS
            if bit & _TROUBLE:
                refusal = refusal or _refusal(view, bit, rows, {})
                if bit & _SCHEMA:
                    unknown += (view.name,)
        planned = plan.inputs[0]
        row = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        if planned.order is not None:
            row = row.take(planned.order)
        values = {planned.name: row[None]}
        if fine:  # every row is there and fresh: the next one who asks need not look at them
            row.flags.writeable = False
            values[planned.name].flags.writeable = False
            times = tuple(reading.wall_ms - age for (age,) in ages)
            until = min(at + view.fresh_ms for at, view in zip(times, plan.views, strict=True))
            reading.found.made = (plan.shape, max(times) - SKEW_MS, until, values, times)
        return Batch(values, bits, ages, plan.names, refusal, unknown)

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


_Made = tuple[Any, int, int, dict[str, NDArray[Any]], tuple[int, ...]]
"""A plan's shape, from and until when (wall milliseconds) it is good, values, event times."""


def _taken(plan: Plan, reading: Reading) -> Batch | None:
    """What was made before of the same rows, or what can be made by cutting bytes out."""
    found, wall_ms = reading.found, reading.wall_ms
    made: _Made | None = found.made
    if made is None or made[0] != plan.shape or not made[1] <= wall_ms <= made[2]:
        straight = plan.straight
        cut = straight.cut(found.values, wall_ms) if straight is not None else None
        if cut is None:
            return None
        row, latest, until, times = cut
        made = plan.shape, latest, until, {plan.inputs[0].name: row}, times
        if found.whole:
            found.made = made
    times = made[4]
    return Batch(
        made[3],
        plan.fine[found.whole],
        [[wall_ms - event_ms] for event_ms in times],
        plan.names,
        "",
        (),
        True,
        wall_ms - min(times),
    )


_Decoded = tuple[tuple[Part, ...], list[Row], int, int]
"""A view's parts, their rows, status bits, event time in milliseconds."""

# Plain integers: arithmetic on enum members costs a microsecond an operation.
_OK, _CACHED, _STALE, _NOT_FOUND, _NULLS, _DEFAULTED, _TIMEOUT, _SCHEMA = map(int, Status)
_TROUBLE: Final = _STALE | _NOT_FOUND | _NULLS | _DEFAULTED | _TIMEOUT | _SCHEMA


def _inputs(
    plan: Plan,
    pieces: Mapping[Part, Any],
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
