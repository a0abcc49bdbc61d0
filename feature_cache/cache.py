"""The feature cache: compile what a model wants once, then fetch, write and erase.

A fetch has two halves. `read` brings the rows of every view of a plan; `assemble` makes the
model's inputs of them. One reading serves every plan over the same views, so a canary or a shadow
sees the very bytes that production saw.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_cache.assembly import Assembler, Batch
from feature_cache.breaker import Breaker
from feature_cache.feast_source import feast_places
from feature_cache.keys import EntityValue, InvalidEntity
from feature_cache.near_cache import NearCache
from feature_cache.plan import InputSpec, Part, Plan, PlannedView, compile_plan
from feature_cache.reader import Reader
from feature_cache.reading import Reading
from feature_cache.schemas import Schemas
from feature_cache.single import Single
from feature_cache.store import Store
from feature_cache.views import FeatureView
from feature_cache.writing import Receipt, Writer

__all__ = ["Batch", "FeatureCache", "Reading", "Receipt"]


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
        reader: one to share with other caches over the same store; the four options before
            this one are then its own.

    Raises:
        ValueError: two features that Feast keeps under one name.
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
        self.views = dict(views)
        self.reader = reader or Reader(
            store,
            NearCache(near_cache_bytes, max_local_age),
            timeout=timeout,
            breaker=Breaker(),
            wall=wall,
        )
        places = feast_places(views.values())
        self._views = {
            name: PlannedView(view, tenant, places.get(name)) for name, view in views.items()
        }
        if places:
            self.reader.hashes = True
            # Another cache of the same reader may have read the same hashes for fewer fields.
            self.reader.near.flush()
        self._parts: dict[tuple[Any, ...], Part] = {}
        self._keys: dict[tuple[Part, ...], tuple[Part, ...]] = {}
        self._singles: dict[tuple[Any, ...], Single] = {}
        self._schemas = Schemas(store, self._views)
        self._assembler = Assembler(self._schemas.layouts)
        self.assemble = self._assembler.assemble
        """`assemble(plan, reading, request_values)`: a plan's inputs, from a reading of the same
        views. Pure but for counters."""
        self._writer = Writer(store, self._views, self.reader.wall)

    def compile(self, inputs: Mapping[str, InputSpec]) -> Plan:
        """Resolve what one model version wants.

        Raises:
            ValueError: a view or field that is not there, or one field name twice.
        """
        plan = compile_plan(inputs, self._views, self._parts, self._keys)
        if plan.single is not None:
            # One for all plans over the same views: a read under way serves every version.
            plan.single = self._singles.setdefault(plan.single.identity, plan.single)
        return plan

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
        reading = await self.read(plan, entities, sent, deadline)
        batch = self.assemble(plan, reading, sent)
        if batch.unknown and await self.learn(batch.unknown, deadline):
            batch = self.assemble(plan, reading, sent)
        return batch

    def ask(
        self,
        plan: Plan,
        entities: Mapping[str, Sequence[EntityValue]],
        sent: Mapping[str, Any],
        deadline: float,
    ) -> Reading | Awaitable[Reading]:
        """Bring the rows of every view that the request does not bring whole: one command.

        What this process holds already is given at once; else a waiter, which may be cancelled.

        Raises:
            InvalidEntity: as `fetch`.
        """
        single = plan.single
        if single is not None and not sent:
            value = single.value(entities)
            if value is not None:
                return self.reader.one(single, value, deadline)
        rows, keys, spans = _keys(plan, entities, sent)
        found = self.reader.local(keys)
        if found is not None:
            return Reading(rows, self.reader.wall_ms(), found, spans)
        return self.reader.several(rows, keys, spans, deadline)

    async def read(
        self,
        plan: Plan,
        entities: Mapping[str, Sequence[EntityValue]],
        sent: Mapping[str, Any],
        deadline: float,
    ) -> Reading:
        """`ask`, and wait. Raises InvalidEntity: as `fetch`."""
        asked = self.ask(plan, entities, sent, deadline)
        return asked if isinstance(asked, Reading) else await asked

    async def learn(self, views: Sequence[str], deadline: float = float("inf")) -> bool:
        """Look for field lists that are not known here, by `deadline`; true if any was found."""
        return await self._schemas.learn(views, deadline, self.reader.timeout)

    def look(self, views: Sequence[str]) -> None:
        """Begin to look for field lists, unless that was in vain a moment ago; no waiting."""
        self._schemas.look(views)

    @property
    def skewed(self) -> int:
        """Rows read whose event time is too far in the future to be two clocks' difference."""
        return self._assembler.skewed

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
            ReadOnly: somebody else writes this view.
            Unavailable: no answer; some rows may be written, and writing them again is safe.
            StoreRefused: the store's error, such as `OOM` or `READONLY`.
        """
        return await self._writer.write(view, entities, columns, event_ms, nulls)

    async def erase(self, entity: Mapping[str, EntityValue]) -> Receipt:
        """Remove one subject from every view that has one of these keys.

        Each row becomes a tombstone that lives as long as the view keeps values, so an older
        row that is replayed later cannot bring the subject back. Near caches drop it as soon as
        the store's announcement reaches them. Where a view has more keys than are given, every
        row with these is searched for and erased.

        Raises:
            InvalidEntity: no view is looked up by these keys, or a value cannot be one.
            Unavailable, StoreRefused: as `write`; erasing again is safe.
        """
        return await self._writer.erase(entity)

    async def close(self) -> None:
        """Let everybody go who waits. The store is its maker's to close."""
        self.reader.close()
        await self._schemas.close()


def _keys(
    plan: Plan, entities: Mapping[str, Sequence[EntityValue]], sent: Mapping[str, Any]
) -> tuple[int, list[bytes], dict[str, int]]:
    """Rows, the keys of every view to be asked, and where each view's begin."""
    keys: list[bytes] = []
    spans: dict[str, int] = {}
    rows = len(next(iter(entities.values()))) if entities else 0
    for view in plan.views:
        if sent and view.fields <= sent.keys():
            continue
        space = view.keys
        try:
            columns = [entities[name] for name in space.names]
        except KeyError as error:
            raise InvalidEntity(f"the view '{view.name}' is looked up by {error}") from None
        spans[view.name] = len(keys)
        keys += space.keys(columns)
    return rows, keys, spans
