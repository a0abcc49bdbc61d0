"""Feature views, a cache over each kind of store, and rows to put in it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

import numpy as np

from feature_cache.address import Address
from feature_cache.cache import Batch, FeatureCache
from feature_cache.memory import MemoryStore
from feature_cache.plan import InputSpec, Plan
from feature_cache.store import RemoteStore
from feature_cache.views import FeatureView, Field

PROFILE = FeatureView(
    view="profile",
    entity={"person_id": "int64"},
    fields={
        "age": Field(type="float32", default=40.0),
        "school": Field(type="int32", default=16),
    },
    fresh_for="1h",
    keep_for="1d",
)
HOME = FeatureView(
    view="home",
    entity={"person_id": "int64"},
    fields={"rooms": Field(type="int32", default=3)},
    fresh_for="1h",
    keep_for="1d",
)
COLUMNS = (("home", "rooms"), ("profile", "age"), ("profile", "school"))
F4 = np.dtype("<f4")


class Wall:
    """A wall clock that tests move."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self.now


class Bench:
    """One cache over one store, a plan over both views, and shorthands."""

    def __init__(self, cache: FeatureCache, wall: Wall) -> None:
        self.cache = cache
        self.wall = wall

    @cached_property
    def plan(self) -> Plan:
        """Both views, in an order of the model's own."""
        return self.compile()

    def compile(self, columns: Sequence[tuple[str, str]] = COLUMNS) -> Plan:
        """A plan for one float32 input."""
        return self.cache.compile({"X": InputSpec(tuple(columns), F4)})

    async def write(
        self,
        view: str,
        person: int,
        row: Mapping[str, Any],
        *,
        ago: float = 0.0,
        nulls: Sequence[str] = (),
    ) -> bool:
        """One row that was true `ago` seconds ago."""
        [written] = await self.cache.write(
            view,
            {"person_id": [person]},
            {name: [value] for name, value in row.items()},
            np.array([round((self.wall.now - ago) * 1e3)]),
            {name: np.array([True]) for name in nulls},
        )
        return written

    async def person(self, person: int, *, age: float = 30, **how: Any) -> None:
        """Both views of one person."""
        await self.write("profile", person, {"age": age, "school": 21}, **how)
        await self.write("home", person, {"rooms": 5}, **how)

    async def fetch(self, *people: int, **sent: Sequence[float]) -> Batch:
        """Ask with all the time in the world."""
        values = {name: np.array(value) for name, value in sent.items()}
        return await self.cache.fetch(self.plan, {"person_id": list(people)}, values)


@asynccontextmanager
async def over_memory(views: Sequence[FeatureView] = (PROFILE, HOME)) -> AsyncIterator[Bench]:
    """A cache over the memory store."""
    wall = Wall()
    store = MemoryStore(time.monotonic)
    cache = FeatureCache(store, {view.view: view for view in views}, wall=wall, timeout=2)
    yield Bench(cache, wall)
    await cache.close()


@asynccontextmanager
async def over_server(
    url: str,
    views: Sequence[FeatureView] = (PROFILE, HOME),
    *,
    patience: float = 2,
    near_cache_bytes: int = 1 << 20,
) -> AsyncIterator[Bench]:
    """A cache over a real server."""
    wall = Wall()
    store = RemoteStore(Address.parse(url))
    cache = FeatureCache(
        store,
        {view.view: view for view in views},
        wall=wall,
        timeout=patience,
        near_cache_bytes=near_cache_bytes,
    )
    store.link.start()
    assert await store.link.ready(10)
    yield Bench(cache, wall)
    await cache.close()
    await store.link.close()


async def until(condition: Any, seconds: float = 10) -> None:
    """Wait for something another process does."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never came to that"
        await asyncio.sleep(0.002)
