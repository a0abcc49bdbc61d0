"""Views that Feast writes, read in place: the same over a real server and the memory store."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import feature_kit
import numpy as np
import pytest
import store_kit
from feature_kit import Bench

from feature_cache.feast import FeastKeys, field_name, timestamp_field
from feature_cache.feast_source import feast_places
from feature_cache.inspection import explain
from feature_cache.memory import MemoryStore
from feature_cache.plan import InputSpec
from feature_cache.status import Status
from feature_cache.store import RemoteStore
from feature_cache.views import FeastSource, FeatureView, Field

EVENT_MS = 1_767_323_045_678
TIME = bytes.fromhex("08a5ebdcca061088eadcc302")
DRIVER: dict[str, Any] = {"driver_id": "int64"}
DEMO = FeastSource(project="demo")
STATS = FeatureView(
    view="stats",
    entity=DRIVER,
    fields={
        "conv": Field(type="float32", default=0.5),
        "trips": Field(type="int64", default=-1),
        "ok": Field(type="bool", default=False),
        "d": Field(type="float64", default=0.0),
        "i32": Field(type="int32", default=0),
        "last": Field(type="int64", default=0),
        "name": Field(type="string", default="nobody"),
    },
    source="feast",
    feast=DEMO,
    fresh_for="1h",
    keep_for="2h",
)
CAR = FeatureView(
    view="car",
    entity=DRIVER,
    fields={"seats": Field(type="float32", default=4), "doors": Field(type="float32", default=5)},
    source="feast",
    feast=FeastSource(project="demo", feature_view="CarStats"),
    fresh_for="1h",
    keep_for="2h",
)
OURS = FeatureView(
    view="ours", entity=DRIVER, fields={"n": Field(type="float32", default=7)}, keep_for="1d"
)
VIEWS = (STATS, CAR, OURS)
NUMBERS = ("conv", "trips", "ok", "d", "i32", "last")
KEYS = FeastKeys("demo", DRIVER)
GOLDEN = {
    1001: {"conv": "350000803e", "trips": "202a", "name": "120668c3a96c6c6f", "ok": "3801",
           "d": "299a9999999999b93f", "last": "40a5ebdcca06", "i32": "1807"},
    -2: {"conv": "", "trips": "2000", "name": "1200", "ok": "3800", "d": "29000000000000f8bf",
         "last": "40a5ebdcca06", "i32": "18f9ffffffffffffffff01"},
}  # fmt: skip

Put = Callable[[int, dict[bytes, bytes]], Awaitable[None]]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[store_kit.ValkeyServer]:
    """A running server."""
    server = store_kit.ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A cache over each store in turn, a minute after the golden rows were true."""
    made = (
        feature_kit.over_memory(VIEWS)
        if request.param == "memory"
        else feature_kit.over_server(request.getfixturevalue("valkey").url, VIEWS)
    )
    async with made as bench:
        bench.wall.now = EVENT_MS / 1e3 + 60
        yield bench


async def put(bench: Bench, driver: int, values: dict[bytes, bytes]) -> None:
    """Write fields as Feast does, by another way than the cache."""
    store, key = bench.cache.store, KEYS.key([driver])
    if isinstance(store, MemoryStore):
        store.hset(key, values)
    else:
        assert isinstance(store, RemoteStore)
        await store.call(b"HSET", key, *(part for pair in values.items() for part in pair))


async def golden(bench: Bench, driver: int) -> None:
    """One of the rows that Feast wrote."""
    values = {field_name("stats", n): bytes.fromhex(raw) for n, raw in GOLDEN[driver].items()}
    await put(bench, driver, {**values, timestamp_field("stats"): TIME})


async def fetch(bench: Bench, *drivers: int, views: dict[str, Any] | None = None) -> Any:
    """All numbers of all views, in this order."""
    chosen = views or {"stats": NUMBERS, "car": ("doors", "seats"), "ours": ("n",)}
    columns = tuple((view, field) for view, fields in chosen.items() for field in fields)
    plan = bench.cache.compile({"X": InputSpec(columns, np.dtype("<f4"))})
    return await bench.cache.fetch(plan, {"driver_id": list(drivers)})


async def test_the_golden_rows_are_read(bench: Bench) -> None:
    """Every type; a null becomes its default and says so; views that are not there theirs."""
    await golden(bench, 1001)
    await golden(bench, -2)

    batch = await fetch(bench, 1001, -2, 3)

    expected = [
        [0.25, 42, 1, 0.1, 7, 1767323045, 5, 4, 7],
        [0.5, 0, 0, -1.5, -7, 1767323045, 5, 4, 7],
        [0.5, -1, 0, 0, 0, 0, 5, 4, 7],
    ]
    assert batch.values["X"] == pytest.approx(np.array(expected, np.float32))
    missing = int(Status.DEFAULTED | Status.NOT_FOUND)
    assert batch.bits == [
        [int(Status.OK), int(Status.OK | Status.NULLS | Status.DEFAULTED), missing],
        [missing] * 3,
        [missing] * 3,
    ]
    assert batch.ages[0] == [60_000, 60_000, -1]


async def test_strings_are_read_and_shown(bench: Bench) -> None:
    """The empty string is one; a field that was never written is none."""
    await golden(bench, 1001)
    await golden(bench, -2)
    await put(bench, 5, {timestamp_field("stats"): TIME})

    shown = [await explain(bench.cache, "stats", {"driver_id": one}, 1e18) for one in (1001, -2, 5)]

    names = [next(field for field in one.fields if field.field == "name") for one in shown]
    assert [(field.value, field.stored) for field in names] == [
        ("héllo", True), ("", True), ("nobody", False)
    ]  # fmt: skip
    assert shown[2].status & ~Status.CACHED == Status.OK | Status.DEFAULTED


async def test_views_of_one_entity_are_one_read(bench: Bench) -> None:
    """Two of Feast's and one of ours: one HMGET and one MGET; the next time nothing."""
    await golden(bench, 1001)
    seats, doors = bytes.fromhex("3500004040"), bytes.fromhex("3500000040")
    await put(bench, 1001, {
        field_name("CarStats", "seats"): seats, field_name("CarStats", "doors"): doors,
        timestamp_field("CarStats"): TIME,
    })  # fmt: skip
    await bench.cache.write("ours", {"driver_id": [1001]}, {"n": [9]}, np.array([EVENT_MS]))

    first = await fetch(bench, 1001)
    reader = bench.cache.reader
    assert reader.misses == 3  # two views of one hash count as two, and are one command
    second = await fetch(bench, 1001)

    assert first.values["X"][0, 6:].tolist() == [2, 3, 9]
    assert second.values["X"].tolist() == first.values["X"].tolist()
    assert reader.misses == 3
    assert all(bits[0] & Status.CACHED for bits in second.bits)
    assert len(reader.near) == 2
    assert reader.near.bytes > 0


async def test_a_change_of_the_hash_drops_what_was_kept(bench: Bench) -> None:
    """The store announces the key, whichever view's fields were written."""
    await golden(bench, 1001)
    assert (await fetch(bench, 1001)).values["X"][0, 1] == 42

    await put(bench, 1001, {field_name("stats", "trips"): bytes.fromhex("202b")})

    for _ in range(1000):
        if (await fetch(bench, 1001)).values["X"][0, 1] == 43:
            break
    else:
        pytest.fail("the old value is still served")


@pytest.mark.parametrize(
    ("later", "status"),
    [(3600, Status.STALE | Status.OK), (7200, Status.DEFAULTED | Status.NOT_FOUND)],
)
async def test_ages_are_judged_by_the_view(bench: Bench, later: int, status: Status) -> None:
    """Where Feast has one ttl, there is `fresh_for`, and `keep_for` after it."""
    await golden(bench, 1001)
    bench.wall.now += later

    batch = await fetch(bench, 1001, views={"stats": ("trips",)})

    assert batch.bits == [[int(status)]]


@pytest.mark.parametrize("raw", ["20", "350000803e", "3801", "ff", "1204"])
async def test_a_value_that_is_not_what_the_view_says_is_not_read(bench: Bench, raw: str) -> None:
    """Its default, marked; its neighbours are as they are."""
    await golden(bench, 1001)
    await put(bench, 1001, {field_name("stats", "trips"): bytes.fromhex(raw)})

    batch = await fetch(bench, 1001, views={"stats": ("trips", "i32")})

    assert batch.values["X"].tolist() == [[-1, 7]]
    assert batch.bits == [[int(Status.SCHEMA | Status.DEFAULTED | Status.OK)]]


@pytest.mark.parametrize("raw", ["08", "1801", "ff"])
async def test_a_time_that_is_none_makes_the_row_unreadable(bench: Bench, raw: str) -> None:
    """How old the values are cannot be told."""
    await golden(bench, 1001)
    await put(bench, 1001, {timestamp_field("stats"): bytes.fromhex(raw)})

    batch = await fetch(bench, 1001, views={"stats": ("trips",)})

    assert batch.values["X"].tolist() == [[-1]]
    assert batch.bits == [[int(Status.SCHEMA | Status.DEFAULTED)]]


async def test_a_key_that_is_no_hash_costs_its_views_only(valkey: store_kit.ValkeyServer) -> None:
    """The server refuses that one command."""
    valkey.client().set(KEYS.key([1001]), b"x")
    async with feature_kit.over_server(valkey.url, VIEWS) as bench:
        now = np.array([round(bench.wall.now * 1e3)])
        await bench.cache.write("ours", {"driver_id": [1001]}, {"n": [9]}, now)

        batch = await fetch(bench, 1001)

    assert batch.values["X"][0, 8] == 9
    assert batch.bits[0][0] == Status.TIMEOUT | Status.DEFAULTED


def test_features_under_one_name_are_refused_when_the_cache_is_made() -> None:
    """Feast does not look; a model would be given the wrong one."""
    view = FeatureView(
        view="user_stats",
        entity=DRIVER,
        fields={name: Field(type="float32") for name in ("avg_item_8049_1h", "std_item_2738_24h")},
        source="feast",
        feast=DEMO,
    )

    with pytest.raises(ValueError, match="under one name, so one of them overwrites the other"):
        feast_places([view])
