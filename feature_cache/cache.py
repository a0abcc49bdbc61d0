"""The feature cache: compile what a model wants once, then fetch, write and erase.

A fetch has two halves. `read` brings the rows of every view of a plan; `assemble` makes the
model's inputs of them. One reading serves every plan over the same views, so a canary or a shadow
sees the very bytes that production saw.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.breaker import Breaker
from feature_cache.codec import (
    TOMBSTONE,
    Corrupt,
    Layout,
    event_time,
    pack,
    schema_of,
    tombstone,
)
from feature_cache.errors import StoreRefused, Unavailable
from feature_cache.keys import EntityValue, InvalidEntity
from feature_cache.near_cache import Entry, NearCache
from feature_cache.plan import InputSpec, Part, Plan, PlannedView, Row, compile_plan, read_row
from feature_cache.reader import Found, Reader
from feature_cache.status import Status
from feature_cache.store import Store, Write
from feature_cache.views import FeatureView

__all__ = ["Batch", "FeatureCache", "Reading", "Receipt"]

SKEW_MS: Final = 5000
"""A row may be this far in the future: two machines' clocks are never quite the same."""

_REFRESH_SECONDS: Final = 1.0
"""A field list that was looked for in vain is not looked for again before this."""


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


class Receipt(msgspec.Struct, frozen=True):
    """What an erasure did: `held` of the `keys` had values; each now holds a tombstone."""

    entity: dict[str, str]
    views: tuple[str, ...]
    keys: int
    held: int
    erased_at_ms: int


class FeatureCache:
    """Online features of one tenant. Needs a running loop.

    Args:
        store: `RemoteStore` or `MemoryStore`; the caller starts and closes it.
        views: by name.
        tenant: part of every key.
        near_cache_bytes: what this process keeps of what it read; 0 keeps nothing.
        max_local_age: seconds a kept row is good for if the store announces nothing.
        timeout: seconds a fetch may wait for the store; a shorter deadline wins.
        wall: seconds since 1970, for the age of values.
        reader: one to share with other caches over the same store; the three options before
            `wall` are then its own.
    """

    def __init__(
        self,
        store: Store,
        views: Mapping[str, FeatureView],
        *,
        tenant: str = "default",
        near_cache_bytes: int = 64 << 20,
        max_local_age: float = 10.0,
        timeout: float = 0.005,
        wall: Callable[[], float] = time.time,
        reader: Reader | None = None,
    ) -> None:
        self.store = store
        self.reader = reader or Reader(
            store,
            NearCache(near_cache_bytes, max_local_age),
            timeout=timeout,
            breaker=Breaker(),
        )
        self.skewed = 0
        """Rows read whose event time is more than `SKEW_MS` in the future."""
        self._views = {name: PlannedView(view, tenant) for name, view in views.items()}
        self._parts: dict[tuple[Any, ...], Part] = {}
        self._keys: dict[tuple[Part, ...], tuple[Part, ...]] = {}
        self._layouts = {
            name: {view.layout.schema_id: view.layout} for name, view in self._views.items()
        }
        self._looked: dict[str, float] = {}
        self._searches: dict[str, asyncio.Task[None]] = {}
        self._wall = wall

    def compile(self, inputs: Mapping[str, InputSpec]) -> Plan:
        """Resolve what one model version wants.

        Raises:
            ValueError: a view or field that is not there, or one field name twice.
        """
        return compile_plan(inputs, self._views, self._parts, self._keys)

    async def fetch(
        self,
        plan: Plan,
        entities: Mapping[str, Sequence[EntityValue]],
        request_values: Mapping[str, NDArray[Any]] | None = None,
        deadline: float = float("inf"),
    ) -> Batch:
        """Read and assemble. Data problems are told by `Batch`, never raised.

        Args:
            plan: from `compile`.
            entities: by key name, n values each.
            request_values: by field, shape [n]: these win over the store.
            deadline: loop seconds; the cache's own timeout may be shorter.

        Raises:
            InvalidEntity: a key is missing or cannot be a key of its view.
        """
        sent = request_values or {}
        rows, keys, first = _keys(plan, entities, sent)
        found = self.reader.local(keys)
        if found is None:
            found = await self.reader.read(keys, deadline)
        reading = Reading(rows, int(self._wall() * 1e3), found, first)
        batch = self.assemble(plan, reading, sent)
        if batch.unknown and await self.learn(batch.unknown, deadline):
            batch = self.assemble(plan, reading, sent)
        return batch

    def local(
        self,
        plan: Plan,
        entities: Mapping[str, Sequence[EntityValue]],
        sent: Mapping[str, Any],
    ) -> Reading | None:
        """`read`, if this process holds every row already; without waiting."""
        rows, keys, spans = _keys(plan, entities, sent)
        found = self.reader.local(keys)
        return None if found is None else self._reading(rows, found, spans)

    async def read(
        self,
        plan: Plan,
        entities: Mapping[str, Sequence[EntityValue]],
        sent: Mapping[str, Any],
        deadline: float,
    ) -> Reading:
        """Bring the rows of every view that the request does not bring whole: one command.

        Raises:
            InvalidEntity: as `fetch`.
        """
        rows, keys, spans = _keys(plan, entities, sent)
        found = await self.reader.read(keys, deadline)
        return self._reading(rows, found, spans)

    def _reading(self, rows: int, found: Found, first: dict[str, int]) -> Reading:
        return Reading(rows, int(self._wall() * 1e3), found, first)

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
                seen, bit, age = self._view_row(view, reading, at)
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
            rows, bit, age = self._view_row(view, reading, reading.first[view.name])
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

    def _view_row(self, view: PlannedView, reading: Reading, at: int) -> tuple[list[Row], int, int]:
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
            return view.key, view.empty, _SCHEMA | view.empty_bits, 0
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

    async def learn(self, views: Sequence[str], deadline: float = float("inf")) -> bool:
        """Look for field lists that are not known here, by `deadline`; true if any was found.

        One search a view at a time, and a second between two in vain.
        """
        now = asyncio.get_running_loop().time()
        before = sum(len(layouts) for layouts in self._layouts.values())
        searches = self.look(views)
        if searches:
            wait = max(0.0, min(deadline - now, self.reader.timeout))
            await asyncio.wait(searches, timeout=wait)
        return sum(len(layouts) for layouts in self._layouts.values()) > before

    def look(self, views: Sequence[str]) -> list["asyncio.Task[None]"]:
        """Begin to look for field lists, unless that was in vain a moment ago; no waiting."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for name in views:
            if name not in self._searches and now >= self._looked.get(name, 0.0):
                self._looked[name] = now + _REFRESH_SECONDS
                task = loop.create_task(self._search(name))
                self._searches[name] = task
                task.add_done_callback(lambda _, name=name: self._searches.pop(name, None))  # type: ignore[misc]
        return [self._searches[name] for name in views if name in self._searches]

    async def _search(self, name: str) -> None:
        known = self._layouts[name]
        try:
            found = await self.store.schemas(self._views[name].space.schemas)
        except (Unavailable, StoreRefused):
            return
        for schema_id, described in found.items():
            try:
                layout = Layout.parse(described)
            except Corrupt:
                continue
            if layout.schema_id == schema_id:  # else somebody wrote a list under another's id
                known.setdefault(schema_id, layout)

    async def write(
        self,
        view: str,
        entities: Mapping[str, Sequence[EntityValue]],
        columns: Mapping[str, Sequence[Any] | NDArray[Any]],
        event_ms: NDArray[np.int64],
        nulls: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> list[bool]:
        """Write rows; of two for one entity the newer stays, whatever order they come in.

        Args:
            view: by name.
            entities: by key name, n values each.
            columns: every field of the view, n values each.
            event_ms: shape [n], when each row was true, milliseconds since 1970.
            nulls: by field, shape [n].

        Returns:
            For each row whether it was written: false for one that is not newer than what is
            there, or is older than the view's `keep_for`.

        Raises:
            InvalidEntity, ValueError: a row that cannot be stored; nothing was written.
            Unavailable: no answer; some rows may be written, and writing them again is safe.
            StoreRefused: the store's error, such as `OOM` or `READONLY`.
        """
        planned = self._views[view]
        blobs = pack(planned.layout, columns, event_ms, nulls)
        keys = planned.space.keys([entities[name] for name in planned.space.names])
        now_ms = int(self._wall() * 1e3)
        left = planned.keep_ms - (now_ms - event_ms)
        alive = [at for at in range(len(keys)) if left[at] > 0]
        space = planned.space
        await self.store.put_schema(
            space.schemas, planned.layout.schema_id, planned.layout.describe()
        )
        taken = await self.store.write([Write(keys[at], blobs[at], int(left[at])) for at in alive])
        written = [False] * len(keys)
        for at, done in zip(alive, taken, strict=True):
            written[at] = done
        return written

    async def erase(self, entity: Mapping[str, EntityValue]) -> Receipt:
        """Remove one subject from every view that these keys name completely.

        Each row becomes a tombstone that lives as long as the view keeps values, so an older
        row that is replayed later cannot bring the subject back. Near caches drop it as soon as
        the store's announcement reaches them.

        Raises:
            InvalidEntity: no view is looked up by these keys, or a value cannot be one.
            Unavailable, StoreRefused: as `write`; erasing again is safe.
        """
        chosen = [view for view in self._views.values() if set(view.space.names) <= set(entity)]
        if not chosen:
            raise InvalidEntity(f"no view is looked up by {', '.join(sorted(entity))}")
        now_ms = int(self._wall() * 1e3)
        held = 0
        for view in chosen:
            key = view.space.key([entity[name] for name in view.space.names])
            [had] = await self.store.erase([key], tombstone(now_ms), view.keep_ms)
            held += had
        return Receipt(
            entity={name: str(value) for name, value in entity.items()},
            views=tuple(view.name for view in chosen),
            keys=len(chosen),
            held=held,
            erased_at_ms=now_ms,
        )

    async def close(self) -> None:
        """Let everybody go who waits. The store is its maker's to close."""
        self.reader.close()
        for task in tuple(self._searches.values()):
            task.cancel()
        await asyncio.gather(*self._searches.values(), return_exceptions=True)


_Decoded = tuple[tuple[Part, ...], list[Row], int, int]
"""A view's parts, their rows, status bits, event time in milliseconds."""

# Plain integers: arithmetic on enum members costs a microsecond an operation.
_OK, _CACHED, _STALE, _NOT_FOUND, _NULLS, _DEFAULTED, _TIMEOUT, _SCHEMA = map(int, Status)
_TROUBLE: Final = _STALE | _NOT_FOUND | _NULLS | _DEFAULTED | _TIMEOUT | _SCHEMA


def _keys(
    plan: Plan, entities: Mapping[str, Sequence[EntityValue]], sent: Mapping[str, Any]
) -> tuple[int, list[bytes], dict[str, int]]:
    """Rows, the keys of every view to be asked, and where each view's begin."""
    if plan.number_key and not sent:
        values = entities.get(plan.number_key, ())
        low, high = plan.number_range
        if len(values) == 1 and type(values[0]) is int and low <= values[0] <= high:
            digits = b"%d" % values[0]
            return 1, [first + digits + last for first, last in plan.affixes], plan.first_of_one
    keys: list[bytes] = []
    spans: dict[str, int] = {}
    rows = len(next(iter(entities.values()))) if entities else 0
    for view in plan.views:
        if sent and view.fields <= sent.keys():
            continue
        space = view.space
        try:
            columns = [entities[name] for name in space.names]
        except KeyError as error:
            raise InvalidEntity(f"the view '{view.name}' is looked up by {error}") from None
        spans[view.name] = len(keys)
        keys += space.keys(columns)
    return rows, keys, spans


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
