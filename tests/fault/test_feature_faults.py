"""A feature store that is killed, frozen, emptied, cut off or garbled under a reading process."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import feature_kit
import pytest
import redis
import store_kit
from fault_proxy import FaultProxy
from feature_kit import Bench

from feature_cache.breaker import Breaker
from feature_cache.cache import Batch
from feature_cache.connection import command
from feature_cache.near_cache import NearCache
from feature_cache.reader import Reader
from feature_cache.status import Status
from feature_cache.store import RemoteStore

DEFAULTS = [[3, 40, 16]]
STORED = [[5, 30, 21]]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[store_kit.ValkeyServer]:
    """A running server."""
    server = store_kit.ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
async def proxy(valkey: store_kit.ValkeyServer, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    """Between client and server."""
    made = await FaultProxy(tmp_path / "proxy.sock", valkey.socket).start()
    yield made
    await made.stop()


@pytest.fixture
async def bench(proxy: FaultProxy) -> AsyncIterator[Bench]:
    """A cache that reads through the proxy, with a deadline short enough to be met or missed."""
    async with feature_kit.over_server(proxy.url, patience=0.05) as made:
        await made.person(1)
        yield made


async def recovered(bench: Bench, person: int = 1) -> Batch:
    """Fetch until an answer is no timeout any more."""
    give_up = time.monotonic() + 10
    while True:
        batch = await bench.fetch(person)
        if not (batch.status & Status.TIMEOUT).any():
            return batch
        assert time.monotonic() < give_up, "it never recovered"
        await asyncio.sleep(0.01)


def forget(bench: Bench) -> None:
    """Have the next fetch ask the store."""
    bench.cache.reader.near.flush()


async def test_a_killed_server_costs_defaults_until_it_is_back(
    bench: Bench, valkey: store_kit.ValkeyServer
) -> None:
    """Restarted empty, it is believed: nothing that it no longer knows is served."""
    await bench.fetch(1)
    valkey.kill()
    forget(bench)
    down = await bench.fetch(1)
    assert down.values["X"].tolist() == DEFAULTS
    assert (down.status & Status.TIMEOUT).all()

    valkey.start()

    back = await recovered(bench)
    assert back.values["X"].tolist() == DEFAULTS
    assert (back.status == (Status.NOT_FOUND | Status.DEFAULTED)).all()


async def test_a_frozen_server_costs_its_timeout_a_few_times_only(
    bench: Bench, valkey: store_kit.ValkeyServer
) -> None:
    """The breaker opens; then nobody waits; thawed, it is used again."""
    valkey.freeze()
    reader = bench.cache.reader
    for person in range(10, 30):
        batch = await bench.fetch(person)
        assert batch.values["X"].tolist() == DEFAULTS

    assert reader.timeouts < 20
    assert reader.refused + reader.errors > 0
    assert reader.breaker.opened == 1

    valkey.thaw()

    assert (await recovered(bench)).values["X"].tolist() == STORED


async def test_flushall_empties_the_near_cache(
    bench: Bench, valkey: store_kit.ValkeyServer
) -> None:
    """The store says so by one push."""
    assert (await bench.fetch(1)).values["X"].tolist() == STORED
    with valkey.client() as client:
        client.flushall()
    await feature_kit.until(lambda: len(bench.cache.reader.near) == 0)

    assert (await bench.fetch(1)).values["X"].tolist() == DEFAULTS


async def test_a_cut_connection_comes_back_with_an_empty_near_cache(
    bench: Bench, proxy: FaultProxy
) -> None:
    """Announcements may have been lost meanwhile."""
    await bench.fetch(1)
    connects = bench.cache.store.link.connects  # type: ignore[attr-defined]
    assert len(bench.cache.reader.near) == 2

    await proxy.cut()

    await feature_kit.until(lambda: bench.cache.store.link.connects > connects)  # type: ignore[attr-defined]
    assert len(bench.cache.reader.near) == 0
    assert (await bench.fetch(1)).values["X"].tolist() == STORED


async def test_a_half_open_connection_is_noticed(bench: Bench, proxy: FaultProxy) -> None:
    """The heartbeat gets no answer: the connection is given up, and a new one asked."""
    connects = bench.cache.store.link.connects  # type: ignore[attr-defined]
    proxy.silent = True
    forget(bench)
    assert (await bench.fetch(1)).values["X"].tolist() == DEFAULTS
    await feature_kit.until(lambda: not bench.cache.store.link.connected)  # type: ignore[attr-defined]

    proxy.silent = False

    await feature_kit.until(lambda: bench.cache.store.link.connects > connects)  # type: ignore[attr-defined]
    assert (await recovered(bench)).values["X"].tolist() == STORED


async def test_answers_that_dribble_in_are_put_together(bench: Bench, proxy: FaultProxy) -> None:
    """One byte at a time."""
    proxy.piece = 1

    batch = await recovered(bench)

    assert batch.values["X"].tolist() == STORED


async def test_a_garbled_answer_ends_the_connection_and_is_not_believed(
    bench: Bench, proxy: FaultProxy
) -> None:
    """Everything in flight is told, and the next connection is in step again."""
    proxy.flip = True
    forget(bench)

    garbled = await bench.fetch(1)

    assert garbled.values["X"].tolist() == DEFAULTS
    assert (garbled.status & Status.TIMEOUT).all()
    assert (await recovered(bench)).values["X"].tolist() == STORED


async def test_a_server_that_wants_a_password_now_is_asked_no_more(
    bench: Bench, valkey: store_kit.ValkeyServer
) -> None:
    """NOAUTH in the middle ends the session; with no password to give it stays unavailable."""
    with valkey.client() as client:
        client.config_set("requirepass", "secret")
        client.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
    forget(bench)
    await feature_kit.until(lambda: not bench.cache.store.link.connected)  # type: ignore[attr-defined]
    assert ((await bench.fetch(1)).status & Status.TIMEOUT).all()

    with redis.Redis.from_url(valkey.url, password="secret") as client:
        client.config_set("requirepass", "")

    assert (await recovered(bench)).values["X"].tolist() == STORED


async def test_a_refusal_of_one_command_is_its_own(bench: Bench) -> None:
    """Those before and behind it in the same write are answered."""
    store = bench.cache.store
    assert isinstance(store, RemoteStore)
    answers: list[object] = []
    for words in ((b"PING",), (b"GET", b"a", b"b"), (b"PING",)):
        store.link.submit(command(*words), answers.append)
    await feature_kit.until(lambda: len(answers) == 3)

    assert [str(answer)[:5] for answer in answers] == ["b'PON", "ERR w", "b'PON"]


async def test_random_cancellations_never_hand_a_reply_to_another(
    proxy: FaultProxy, valkey: store_kit.ValkeyServer
) -> None:
    """Each value names its key; callers leave at any moment, behind a proxy that delays."""
    people = 500
    with valkey.client() as client:
        client.mset({f"k{n}": f"v{n}" for n in range(people)})
    async with feature_kit.over_server(proxy.url) as bench:
        reader = Reader(bench.cache.store, NearCache(0, 1), timeout=0.02, breaker=Breaker())
        draw = random.Random(7)
        answered = 0

        async def call() -> None:
            nonlocal answered
            chosen = [draw.randrange(people) for _ in range(3)]
            found = await reader.read([b"k%d" % n for n in chosen], float("inf"))
            for n, entry, failed in zip(chosen, found.entries, found.failed, strict=True):
                assert failed or entry.value == b"v%d" % n
                answered += not failed

        turn = 0
        # On a busy machine most reads time out, so it takes more turns.
        while turn < 400 or (answered <= 10_000 and turn < 8_000):
            turn += 1
            proxy.delay = draw.choice([0, 0, 0.001, 0.005])
            tasks = [asyncio.ensure_future(call()) for _ in range(50)]
            await asyncio.sleep(draw.random() * 0.003)
            for task in tasks:
                if draw.random() < 0.5:
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            wrong = [r for r in results if isinstance(r, Exception)]
            assert not wrong, f"turn {turn}: {wrong[0]!r}"
        reader.close()

    assert answered > 10_000


async def test_no_caller_waits_much_longer_than_its_deadline(
    bench: Bench, valkey: store_kit.ValkeyServer
) -> None:
    """A caller's own deadline is shorter than the cache's timeout, and rules."""
    valkey.freeze()
    loop = asyncio.get_running_loop()

    async def fetch(person: int) -> Batch:
        return await bench.cache.fetch(
            bench.plan, {"person_id": [person]}, deadline=loop.time() + 0.001
        )

    waiting: list[Awaitable[Batch]] = [fetch(person) for person in range(100, 110)]
    # Far below the cache's timeout of 2 s that a forgotten deadline would cost.
    async with asyncio.timeout(1):
        batches = await asyncio.gather(*waiting)
    valkey.thaw()

    assert all(batch.values["X"].tolist() == DEFAULTS for batch in batches)


async def test_after_a_push_is_processed_the_old_value_is_never_served(
    proxy: FaultProxy, valkey: store_kit.ValkeyServer
) -> None:
    """Readers and writers race; once a write's announcement is in, readers see it or a newer."""
    proxy.delay = 0.001
    async with (
        feature_kit.over_server(proxy.url) as reading,
        feature_kit.over_server(valkey.url) as writing,
    ):
        seen = 0
        stop = asyncio.Event()

        async def read() -> None:
            nonlocal seen
            while not stop.is_set():
                floor = seen
                batch = await reading.fetch(1)
                rooms = int(batch.values["X"][0, 0])
                if not batch.status[0, 0] & Status.NOT_FOUND:
                    assert rooms >= floor
                await asyncio.sleep(0)

        readers = [asyncio.ensure_future(read()) for _ in range(8)]
        near = reading.cache.reader.near
        for rooms in range(1, 200):
            before = near.invalidated
            await feature_kit.until(lambda: len(near) == 2)
            assert await writing.write("home", 1, {"rooms": rooms}, ago=-rooms / 1000)
            await feature_kit.until(lambda before=before: near.invalidated > before)
            seen = rooms
        stop.set()
        await asyncio.gather(*readers)
