"""Writing: newest wins, whatever order rows come in; and erasing one subject for good."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.codec import pack, tombstone
from feature_cache.errors import ReadOnly
from feature_cache.keys import EntityValue, InvalidEntity
from feature_cache.plan import PlannedView
from feature_cache.store import Store, Write

__all__ = ["Erasure", "Receipt", "Writer"]

_SCRIPT_ROWS: Final = 200
"""Rows one script writes. While it runs the server reads for nobody: about a millisecond."""
_SCRIPTS_AT_ONCE: Final = 4


class Erasure(msgspec.Struct, frozen=True):
    """One view's part of a receipt.

    `keys` now hold a tombstone; `had` says of each whether it held values before. `foreign`:
    somebody else writes this view (Feast), and nothing was done.
    """

    view: str
    keys: tuple[str, ...] = ()
    had: tuple[bool, ...] = ()
    foreign: bool = False


class Receipt(msgspec.Struct, frozen=True):
    """What an erasure did: `held` of the `keys` had values; each now holds a tombstone."""

    entity: dict[str, str]
    erasures: tuple[Erasure, ...]
    erased_at_ms: int

    @property
    def views(self) -> tuple[str, ...]:
        """The views that were erased from."""
        return tuple(one.view for one in self.erasures if not one.foreign)

    @property
    def keys(self) -> int:
        """How many keys hold a tombstone now."""
        return sum(len(one.keys) for one in self.erasures)

    @property
    def held(self) -> int:
        """How many of them had values."""
        return sum(sum(one.had) for one in self.erasures)


class Writer:
    """Writes the rows of some views.

    Args:
        store: where to.
        views: by name.
        wall: seconds since 1970.
    """

    def __init__(
        self, store: Store, views: Mapping[str, PlannedView], wall: Callable[[], float]
    ) -> None:
        self._store = store
        self._views = views
        self._wall = wall

    async def write(
        self,
        view: str,
        entities: Mapping[str, Sequence[EntityValue]],
        columns: Mapping[str, Sequence[Any] | NDArray[Any]],
        event_ms: NDArray[np.int64],
        nulls: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> list[bool]:
        """See `FeatureCache.write`."""
        planned = self._views[view]
        space = planned.space
        if planned.view.source != "store":
            raise ReadOnly(f"the view '{view}' is written by {planned.view.source}, not here")
        blobs = pack(planned.layout, columns, event_ms, nulls)
        keys = space.keys([entities[name] for name in space.names])
        left = (planned.keep_ms - (int(self._wall() * 1e3) - event_ms)).tolist()
        alive = [at for at, lifetime in enumerate(left) if lifetime > 0]
        await self._store.put_schema(
            space.schemas, planned.layout.schema_id, planned.layout.describe()
        )
        taken = await self._all([Write(keys[at], blobs[at], left[at]) for at in alive])
        written = [False] * len(keys)
        for at, done in zip(alive, taken, strict=True):
            written[at] = done
        return written

    async def _all(self, writes: list[Write]) -> list[bool]:
        """A few scripts at once, so that neither side waits for the other."""
        if len(writes) <= _SCRIPT_ROWS:
            return await self._store.write(writes)
        groups = [writes[at : at + _SCRIPT_ROWS] for at in range(0, len(writes), _SCRIPT_ROWS)]
        waiting = iter(range(len(groups)))
        taken: list[list[bool]] = [[] for _ in groups]

        async def some() -> None:
            for at in waiting:
                taken[at] = await self._store.write(groups[at])

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(_SCRIPTS_AT_ONCE, len(groups))):
                    tasks.create_task(some())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [done for group in taken for done in group]

    async def erase(self, entity: Mapping[str, EntityValue]) -> Receipt:
        """See `FeatureCache.erase`."""
        chosen = [view for view in self._views.values() if entity.keys() & view.view.entity.keys()]
        if not chosen:
            raise InvalidEntity(f"no view is looked up by {', '.join(sorted(entity))}")
        now_ms = int(self._wall() * 1e3)
        erasures = [await self._erase(view, entity, now_ms) for view in chosen]
        return Receipt(
            entity={name: _shown(value) for name, value in entity.items()},
            erasures=tuple(erasures),
            erased_at_ms=now_ms,
        )

    async def _erase(
        self, view: PlannedView, entity: Mapping[str, EntityValue], now_ms: int
    ) -> Erasure:
        if view.view.source != "store":
            return Erasure(view.name, foreign=True)
        space = view.space
        if set(space.names) <= entity.keys():
            keys = [space.key([entity[name] for name in space.names])]
        else:
            known = {name: value for name, value in entity.items() if name in space.names}
            found = await self._store.scan(space.pattern(known))
            keys = sorted(key for key in found if space.matches(key, known))
        held = await self._store.erase(keys, tombstone(now_ms), view.keep_ms)
        return Erasure(view.name, tuple(key.decode() for key in keys), tuple(held))


def _shown(value: EntityValue) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
