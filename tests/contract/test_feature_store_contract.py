import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import feature_kit
import numpy as np
import pytest
import store_kit
from feature_kit import Bench

from feature_cache.cache import FeatureCache
from feature_cache.errors import ReadOnly
from feature_cache.keys import InvalidEntity
from feature_cache.plan import InputSpec
from feature_cache.status import Status
from feature_cache.store import Store
from feature_cache.views import FeastSource, FeatureView, Field


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[store_kit.ValkeyServer]:
    """A running server."""
    server = store_kit.ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A cache over each store in turn."""
    made = (
        feature_kit.over_memory()
        if request.param == "memory"
        else feature_kit.over_server(request.getfixturevalue("valkey").url)
    )
    async with made as bench:
        yield bench


async def test_what_was_written_is_fetched_in_the_models_order(bench: Bench) -> None:
    """Two views, one row of the model's input, and who is asked for."""
    await bench.person(1, age=30)
    await bench.person(2, age=31)

    batch = await bench.fetch(2, 1)

    assert batch.values["X"].tolist() == [[5, 31, 21], [5, 30, 21]]
    assert batch.values["X"].dtype == np.float32
    assert batch.views == ("home", "profile")
    assert (batch.status == Status.OK).all()
    assert batch.refusal == ""


async def test_an_entity_nobody_wrote_gets_the_defaults(bench: Bench) -> None:
    """And says so."""
    batch = await bench.fetch(7)

    assert batch.values["X"].tolist() == [[3, 40, 16]]
    assert (batch.status == (Status.NOT_FOUND | Status.DEFAULTED)).all()
    assert (batch.age_ms == -1).all()


async def test_one_view_may_be_there_and_another_not(bench: Bench) -> None:
    """Status and age are per view."""
    await bench.write("home", 1, {"rooms": 9}, ago=5)

    batch = await bench.fetch(1)

    assert batch.values["X"].tolist() == [[9, 40, 16]]
    assert batch.status.tolist() == [[Status.OK, Status.NOT_FOUND | Status.DEFAULTED]]
    assert abs(batch.age_ms[0, 0] - 5000) <= 1  # milliseconds are cut, not rounded
    assert batch.age_ms[0, 1] == -1


async def test_of_two_rows_the_newer_stays(bench: Bench) -> None:
    """In whatever order they come; the same one twice is written once."""
    assert await bench.write("home", 1, {"rooms": 2}, ago=5)
    assert not await bench.write("home", 1, {"rooms": 1}, ago=10)
    assert not await bench.write("home", 1, {"rooms": 8}, ago=5)
    assert (await bench.fetch(1)).values["X"][0, 0] == 2

    assert await bench.write("home", 1, {"rooms": 4}, ago=1)

    await feature_kit.until(lambda: len(bench.cache.reader.near) < 2)
    assert (await bench.fetch(1)).values["X"][0, 0] == 4


async def test_a_row_older_than_keep_for_is_not_written(bench: Bench) -> None:
    """It would be gone before anybody read it."""
    assert not await bench.write("home", 1, {"rooms": 2}, ago=2 * 86400)


async def test_a_stale_row_is_served_and_marked(bench: Bench) -> None:
    """Older than fresh_for, younger than keep_for."""
    await bench.person(1, ago=7200)

    batch = await bench.fetch(1)

    assert batch.values["X"].tolist() == [[5, 30, 21]]
    assert (batch.status == (Status.OK | Status.STALE)).all()


async def test_a_row_that_has_outlived_keep_for_is_gone(bench: Bench) -> None:
    """By the reader's clock, whatever the store still holds or this process has kept."""
    await bench.person(1)
    await bench.fetch(1)
    bench.wall.now += 2 * 86400

    batch = await bench.fetch(1)

    assert batch.values["X"].tolist() == [[3, 40, 16]]
    assert (batch.status & Status.NOT_FOUND).all()


async def test_a_null_becomes_the_default_and_nothing_else_does(bench: Bench) -> None:
    """NULLS and DEFAULTED beside OK: a value was there."""
    await bench.write("profile", 1, {"age": 0, "school": 21}, nulls=["age"])

    batch = await bench.fetch(1)

    assert batch.values["X"].tolist() == [[3, 40, 21]]
    assert batch.status[0, 1] == Status.OK | Status.NULLS | Status.DEFAULTED


async def test_what_the_request_brings_wins(bench: Bench) -> None:
    """Over what is stored, row by row."""
    await bench.person(1)
    await bench.person(2)

    batch = await bench.fetch(1, 2, age=[70, 71])

    assert batch.values["X"].tolist() == [[5, 70, 21], [5, 71, 21]]


async def test_a_view_that_the_request_brings_whole_is_not_asked(bench: Bench) -> None:
    """It costs nothing, and has no status."""
    await bench.person(1)

    batch = await bench.fetch(1, age=[70], school=[1])

    assert batch.values["X"].tolist() == [[5, 70, 1]]
    assert batch.status.tolist() == [[Status.OK, 0]]
    assert bench.cache.reader.misses == 1


async def test_a_second_fetch_comes_from_this_process(bench: Bench) -> None:
    """Rows that are not there are remembered too."""
    await bench.person(1)
    await bench.fetch(1, 7)

    batch = await bench.fetch(1, 7)

    assert (batch.status & Status.CACHED).all()
    assert batch.values["X"].tolist() == [[5, 30, 21], [3, 40, 16]]
    assert bench.cache.reader.hits == 4


async def test_a_row_written_later_replaces_what_was_kept(bench: Bench) -> None:
    """Also where nothing was kept but the fact that there was nothing."""
    await bench.fetch(1)
    await bench.person(1, age=50)
    await feature_kit.until(lambda: len(bench.cache.reader.near) == 0)

    assert (await bench.fetch(1)).values["X"].tolist() == [[5, 50, 21]]


async def test_one_reading_serves_plans_of_another_order(bench: Bench) -> None:
    """Canary and shadow see the bytes that production saw."""
    await bench.person(1)
    other = bench.compile(tuple(reversed(feature_kit.COLUMNS)))
    reading = await bench.cache.read(bench.plan, {"person_id": [1]}, {}, float("inf"))

    mine = bench.cache.assemble(bench.plan, reading, {})
    theirs = bench.cache.assemble(other, reading, {})

    assert mine.values["X"].tolist() == [[5, 30, 21]]
    assert theirs.values["X"].tolist() == [[21, 30, 5]]


async def test_an_erased_subject_is_gone_from_every_view(bench: Bench) -> None:
    """And the receipt says what was there."""
    await bench.person(1)
    await bench.person(2)
    await bench.fetch(1, 2)

    receipt = await bench.cache.erase({"person_id": 1})

    assert (receipt.views, receipt.keys, receipt.held) == (("profile", "home"), 2, 2)
    await feature_kit.until(lambda: len(bench.cache.reader.near) == 2)
    batch = await bench.fetch(1, 2)
    assert batch.values["X"].tolist() == [[3, 40, 16], [5, 30, 21]]
    assert (batch.status[0] & Status.NOT_FOUND).all()


async def test_a_replay_does_not_bring_an_erased_subject_back(bench: Bench) -> None:
    """Nor does a row from the near future that was there when it was erased; newer ones do."""
    await bench.write("home", 1, {"rooms": 2}, ago=-60)
    await bench.cache.erase({"person_id": 1})

    assert not await bench.write("home", 1, {"rooms": 2}, ago=-60)
    assert not await bench.write("profile", 1, {"age": 1, "school": 1}, ago=1)
    assert (await bench.cache.erase({"person_id": 1})).held == 0
    assert await bench.write("home", 1, {"rooms": 6}, ago=-61)


async def test_part_of_a_key_finds_every_row_that_has_it() -> None:
    """Nothing of another entity, whatever its values look like."""
    async with feature_kit.over_memory() as bench:
        await _erase_by_part(bench.cache.store)


async def test_part_of_a_key_finds_every_row_in_a_real_server(
    valkey: store_kit.ValkeyServer,
) -> None:
    """Among more keys than one SCAN returns."""
    async with feature_kit.over_server(valkey.url) as bench:
        await _erase_by_part(bench.cache.store)


async def _erase_by_part(store: Store) -> None:
    view = FeatureView(
        view="visits",
        entity={"shop": "string", "person_id": "int64"},
        fields={"spent": Field(type="int32", default=0)},
    )
    cache = FeatureCache(store, {"visits": view}, timeout=2)
    shops = [f"shop {at}" for at in range(1500)] + ["*", ",person_id=1", ""]
    for person in (1, 11):
        rows = len(shops)
        now = np.full(rows, round(time.time() * 1e3))
        entities = {"shop": shops, "person_id": [person] * rows}
        assert all(await cache.write("visits", entities, {"spent": [person] * rows}, now))

    receipt = await cache.erase({"person_id": 1})

    assert (receipt.keys, receipt.held) == (len(shops), len(shops))
    plan = cache.compile({"X": InputSpec((("visits", "spent"),), np.dtype("<f4"))})
    both = {"shop": shops * 2, "person_id": [1] * rows + [11] * rows}
    batch = await cache.fetch(plan, both)
    assert batch.values["X"].ravel().tolist() == [0] * rows + [11] * rows
    assert (await cache.erase({"shop": "*"})).held == 1
    await cache.close()


async def test_rows_of_more_than_one_script_are_each_told(bench: Bench) -> None:
    """The answers stand in the order of the rows."""
    rows = 1003
    now = round(bench.wall.now * 1e3)
    times = np.array([now - at % 2 for at in range(rows)])
    for expected in ([True] * rows, [at % 2 == 1 for at in range(rows)]):
        written = await bench.cache.write(
            "home", {"person_id": range(rows)}, {"rooms": range(rows)}, times
        )
        assert written == expected
        times = np.full(rows, now)


async def test_one_entity_twice_in_one_batch(bench: Bench) -> None:
    """The newer of them stays, whichever comes first."""
    now = int(bench.wall.now * 1e3)
    for times in ([now - 9, now - 5], [now - 2, now - 4], [now, now]):
        written = await bench.cache.write(
            "home", {"person_id": [7, 7]}, {"rooms": [1, 2]}, np.array(times)
        )
        assert written == [True, times[1] > times[0]]
        bench.cache.reader.near.flush()
        batch = await bench.cache.fetch(bench.compile([("home", "rooms")]), {"person_id": [7]})
        assert batch.ages[0] == [now - max(times)]


async def test_a_view_that_feast_writes_is_read_only(bench: Bench) -> None:
    """Writing is refused by name; an erasure says that it is not ours."""
    theirs = FeatureView(
        view="theirs",
        entity={"person_id": "int64"},
        fields={"n": Field(type="int32")},
        source="feast",
        feast=FeastSource(project="p"),
    )
    cache = FeatureCache(bench.cache.store, {"theirs": theirs})

    with pytest.raises(ReadOnly, match="the view 'theirs' is written by feast, not here"):
        await cache.write("theirs", {"person_id": [1]}, {"n": [1]}, np.array([1]))
    [erasure] = (await cache.erase({"person_id": 1})).erasures
    assert erasure.foreign


async def test_an_erasure_of_nothing_known_is_refused(bench: Bench) -> None:
    """Naming the key, not silently doing nothing."""
    with pytest.raises(InvalidEntity, match="driver_id"):
        await bench.cache.erase({"driver_id": 1})


@pytest.mark.parametrize("name", ["", "|", "}:home", "*", "\0", "x" * (1 << 20), b"\xff\xfe"])
async def test_hostile_entity_values_are_ordinary_keys(
    name: str | bytes, valkey: store_kit.ValkeyServer
) -> None:
    """Written and read back under their own key, by a real server."""
    view = FeatureView(
        view="by_name",
        entity={"name": "string"},
        fields={"n": Field(type="float64", default=0.0)},
    )
    async with feature_kit.over_server(valkey.url, [view]) as bench:
        plan = bench.compile([("by_name", "n")])
        now = np.array([round(bench.wall.now * 1e3)] * 2)
        await bench.cache.write("by_name", {"name": [name, "other"]}, {"n": [1.5, 2.5]}, now)

        batch = await bench.cache.fetch(plan, {"name": [name, "other", "third"]})

        assert batch.values["X"].tolist() == [[1.5], [2.5], [0.0]]


async def test_rows_of_an_older_field_list_are_read_by_it(valkey: store_kit.ValkeyServer) -> None:
    """A new field gets its default and a status; nothing is rewritten."""
    wider = FeatureView(
        view="home",
        entity={"person_id": "int64"},
        fields={
            "rooms": Field(type="int32", default=3),
            "floors": Field(type="int32", default=1),
        },
    )
    async with feature_kit.over_server(valkey.url) as old:
        await old.write("home", 1, {"rooms": 8})
        async with feature_kit.over_server(valkey.url, [wider]) as new:
            plan = new.compile([("home", "rooms"), ("home", "floors")])

            batch = await new.cache.fetch(plan, {"person_id": [1]})

            assert batch.values["X"].tolist() == [[8, 1]]
            assert batch.status.tolist() == [[Status.OK | Status.DEFAULTED]]


async def test_rows_of_an_unknown_field_list_are_not_guessed(
    valkey: store_kit.ValkeyServer,
) -> None:
    """Without its list a row is defaults and SCHEMA, however well the bytes might fit."""
    twin = FeatureView(
        view="home",
        entity={"person_id": "int64"},
        fields={"halls": Field(type="int32", default=3)},
    )
    async with feature_kit.over_server(valkey.url, [twin]) as writer:
        await writer.cache.write(
            "home", {"person_id": [1]}, {"halls": [8]}, np.array([round(writer.wall.now * 1e3)])
        )
    with valkey.client() as client:
        client.delete("fc:{default|}:home")

    async with feature_kit.over_server(valkey.url) as bench:
        batch = await bench.fetch(1)

        assert batch.values["X"][0, 0] == 3
        assert batch.status[0, 0] == Status.SCHEMA | Status.DEFAULTED
        assert batch.unknown == ("home",)


async def test_policies_refuse_by_name() -> None:
    """on_missing, on_stale and required: each names its view, and nothing is raised."""
    fields = {"rooms": Field(type="int32", default=3)}
    entity = {"person_id": "int64"}
    views = [
        FeatureView(view="must", entity=entity, fields=fields, on_missing="reject"),  # type: ignore[arg-type]
        FeatureView(
            view="fresh",
            entity=entity,  # type: ignore[arg-type]
            fields={"doors": Field(type="int32", default=1)},
            fresh_for="1h",
            on_stale="reject",
        ),
        FeatureView(
            view="needed",
            entity=entity,  # type: ignore[arg-type]
            fields={"walls": Field(type="int32", default=1)},
            required=True,
        ),
    ]
    async with feature_kit.over_memory(views) as bench:
        cache = bench.cache

        async def refusal(view: str, field: str) -> str:
            plan = bench.compile([(view, field)])
            return (await cache.fetch(plan, {"person_id": [1]})).refusal

        assert "'must' has no value for rooms" in await refusal("must", "rooms")
        assert await refusal("fresh", "doors") == ""
        await bench.write("fresh", 1, {"doors": 2}, ago=7200)
        assert "'fresh' is older than its fresh_for" in await refusal("fresh", "doors")
        assert await refusal("needed", "walls") == ""
        cache.reader.near.flush()
        cache.store.down = True  # type: ignore[attr-defined]
        assert "'needed' is required" in await refusal("needed", "walls")


async def test_a_store_that_is_down_costs_defaults_and_no_exception(bench: Bench) -> None:
    """Its rows are marked TIMEOUT."""
    await bench.person(1)
    store = bench.cache.store
    if hasattr(store, "down"):
        store.down = True
    else:
        await store.link.close()  # type: ignore[attr-defined]

    batch = await bench.fetch(1)

    assert batch.values["X"].tolist() == [[3, 40, 16]]
    assert (batch.status == (Status.TIMEOUT | Status.DEFAULTED)).all()


async def test_many_callers_for_one_entity_are_one_read(bench: Bench) -> None:
    """The others wait for the one that is under way."""
    await bench.person(1)

    batches = await asyncio.gather(*(bench.fetch(1) for _ in range(20)))

    assert all(batch.values["X"].tolist() == [[5, 30, 21]] for batch in batches)
    assert bench.cache.reader.misses == 2
