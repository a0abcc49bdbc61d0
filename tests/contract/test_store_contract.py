import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import control_kit
import pytest
import redis

from serving.config.applied import Orders
from serving.config.directions import Directions, NodeReport, encode_report
from serving.config.keys import (
    DIRECTIONS_CHANNEL,
    NODES_KEY,
    SNAPSHOT_CHANNEL,
    SNAPSHOT_KEY,
    WORKERS_KEY,
    WorkerReport,
)
from serving.config.snapshot import Snapshot
from serving.control.stores.redis_store import RedisStore, judge
from serving.control.stores.store import MemoryStore, Store
from serving.errors import InvalidConfig, StoreUnavailable


def snapshot(revision: int, author: str = "ann") -> Snapshot:
    """An empty configuration under a revision."""
    return Snapshot(
        revision=revision, published_at=1.0, author=author, models={}, views={}, staged={}
    )


def report(worker: str, revision: int = 1) -> WorkerReport:
    """What a worker says of itself."""
    return WorkerReport(worker=worker, state="ready", revision=revision, reported_at=5.0)


def directions(engine: str, revision: int, began: float = 1.0) -> Directions:
    """What nodes are to do: nothing in particular."""
    orders = Orders(engine=engine)
    return Directions(engine=engine, revision=revision, orders=orders, began=began)


class Valkey(control_kit.Valkey):
    """A real server, and a way to look behind the store's back."""

    def client(self) -> "redis.Redis":
        """A plain client."""
        return redis.Redis.from_url(self.url)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A running server."""
    server = Valkey(tmp_path)
    yield server
    server.stop()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Each sibling in turn."""
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    else:
        made = RedisStore(request.getfixturevalue("valkey").url)
    yield made
    await made.close()


async def test_an_empty_store_has_no_snapshot_and_no_workers(store: Store) -> None:
    """Nothing is there before somebody writes it."""
    assert await store.snapshot() is None
    assert await store.workers() == []


async def test_what_is_published_is_read_back(store: Store) -> None:
    """The snapshot survives the way through the store."""
    assert await store.publish(snapshot(1))

    assert await store.snapshot() == snapshot(1)


@pytest.mark.parametrize("late", [1, 2])
async def test_a_revision_that_is_not_higher_changes_nothing(store: Store, late: int) -> None:
    """A lower or equal revision never replaces, and its sender is told."""
    await store.publish(snapshot(2, "first"))

    assert not await store.publish(snapshot(late, "second"))

    current = await store.snapshot()
    assert current is not None
    assert current.author == "first"


async def test_racing_publishers_leave_the_highest_revision(store: Store) -> None:
    """However twenty writers interleave, the highest revision stays."""
    await asyncio.gather(
        *(store.publish(snapshot(revision)) for revision in range(1, 21)), return_exceptions=True
    )
    await store.publish(snapshot(20))

    current = await store.snapshot()
    assert current is not None
    assert current.revision == 20


async def test_a_subscriber_hears_of_each_publication(store: Store) -> None:
    """The announcement carries the revision, and comes after the snapshot can be read."""
    subscription = await store.subscribe()
    await store.publish(snapshot(3))

    assert await subscription.next(10) == 3
    await subscription.close()


async def test_a_refused_revision_is_not_announced(store: Store) -> None:
    """Workers are not woken for nothing."""
    await store.publish(snapshot(3))
    subscription = await store.subscribe()
    await store.publish(snapshot(2))
    await store.publish(snapshot(4))

    assert await subscription.next(10) == 4
    await subscription.close()


async def test_silence_ends_when_the_time_is_up(store: Store) -> None:
    """A subscriber gets None when nothing was announced."""
    subscription = await store.subscribe()

    assert await subscription.next(0.01) is None
    await subscription.close()


async def test_a_worker_has_one_report_the_latest(store: Store) -> None:
    """A report replaces the same worker's earlier one; others stay; order is by name."""
    await store.report(report("worker-1"))
    await store.report(report("worker-0", 1))
    await store.report(report("worker-0", 2))

    assert await store.workers() == [report("worker-0", 2), report("worker-1")]


async def test_a_forgotten_worker_is_gone(store: Store) -> None:
    """Forgetting takes one worker, and does not mind an unknown one."""
    await store.report(report("worker-0"))
    await store.report(report("worker-1"))
    await store.forget("worker-0@")
    await store.forget("worker-9@")

    assert [one.worker for one in await store.workers()] == ["worker-1"]


async def test_directions_go_forward_only_each_start_its_own(store: Store) -> None:
    """As snapshots do; two gateways that share a store do not disturb each other."""
    assert await store.directions("one") is None
    assert await store.direct(directions("one", 2))
    assert not await store.direct(directions("one", 2))
    assert not await store.direct(directions("one", 1))
    assert await store.direct(directions("other", 1))

    assert await store.directions("one") == directions("one", 2)
    assert await store.directions("other") == directions("other", 1)


async def test_directions_of_starts_long_past_are_dropped(store: Store) -> None:
    """The latest few are kept."""
    for number in range(12):
        await store.direct(directions(f"start {number}", 1, began=float(number)))

    kept = [n for n in range(12) if await store.directions(f"start {n}") is not None]
    assert kept[-1] == 11
    assert 0 < len(kept) < 12
    assert kept == list(range(kept[0], 12))


async def test_no_node_has_reported_at_first(store: Store) -> None:
    """And one that is unknown can be forgotten."""
    await store.forget_node("far")

    assert await store.nodes() == []


async def test_the_store_says_what_it_is(store: Store) -> None:
    """Its name and version are for the status page."""
    assert (await store.check()).split()[0] in ("memory", "Valkey")


# --- what only a real server can show ------------------------------------------------------


async def test_the_keys_are_those_the_workers_read(valkey: Valkey) -> None:
    """Snapshot, channel and hash have the names of `serving.config.keys`."""
    store = RedisStore(valkey.url)
    with valkey.client() as client, client.pubsub() as channel:
        channel.subscribe(SNAPSHOT_CHANNEL)
        channel.get_message(timeout=5)
        await store.publish(snapshot(7))
        await store.report(report("worker-0"))
        await store.close()
        message = channel.get_message(timeout=5)

        assert message is not None
        assert message["data"] == b"7"
        stored = client.get(SNAPSHOT_KEY)
        assert isinstance(stored, bytes)
        assert b'"revision":7' in stored
        assert client.hkeys(WORKERS_KEY) == [b"worker-0@"]


async def test_two_processes_racing_leave_the_highest_revision(valkey: Valkey) -> None:
    """The check and the write are one step, also between connections."""
    first, second = RedisStore(valkey.url), RedisStore(valkey.url)
    for revision in range(1, 40, 2):
        await asyncio.gather(
            first.publish(snapshot(revision, "first")),
            second.publish(snapshot(revision + 1, "second")),
        )
        current = await first.snapshot()
        assert current is not None
        assert current.revision == revision + 1
    await first.close()
    await second.close()


async def test_nodes_report_where_control_reads_and_hear_at_once(valkey: Valkey) -> None:
    """Hash and channel have the names of `serving.config.keys`; what is no report is left out."""
    store = RedisStore(valkey.url)
    report = NodeReport(node="far", engine="one", at=1.0)
    with valkey.client() as client, client.pubsub() as channel:
        channel.subscribe(DIRECTIONS_CHANNEL)
        channel.get_message(timeout=5)
        client.hset(NODES_KEY, "far", encode_report(report))
        client.hset(NODES_KEY, "farther", b"{}")
        await store.direct(directions("one", 3))
        message = channel.get_message(timeout=5)
        heard = await store.nodes()
        await store.forget_node("far")

        assert message is not None
        assert message["data"] == b"3"
        assert heard == [report]
        assert await store.nodes() == []
    await store.close()


@pytest.mark.parametrize("foreign", [b"\xff\x00", b"{}", b'{"revision": 1}'])
async def test_a_key_that_holds_something_else_counts_as_empty(
    valkey: Valkey, foreign: bytes
) -> None:
    """Foreign bytes under our key are replaced, not obeyed."""
    store = RedisStore(valkey.url)
    with valkey.client() as client:
        client.set(SNAPSHOT_KEY, foreign)

    assert await store.snapshot() is None
    assert await store.publish(snapshot(1))
    await store.close()


async def test_a_report_of_another_release_is_left_out(valkey: Valkey) -> None:
    """One unreadable entry does not hide the others."""
    store = RedisStore(valkey.url)
    with valkey.client() as client:
        client.hset(WORKERS_KEY, "worker-0", "{}")
    await store.report(report("worker-1"))

    assert [one.worker for one in await store.workers()] == ["worker-1"]
    await store.close()


async def test_a_store_that_would_evict_is_refused(tmp_path: Path) -> None:
    """A policy that may drop routes and counters is named, and what to set instead."""
    server = Valkey(tmp_path, "--maxmemory-policy", "allkeys-lru")
    store = RedisStore(server.url)
    try:
        with pytest.raises(InvalidConfig, match=r"allkeys-lru.*set noeviction"):
            await store.check()
    finally:
        await store.close()
        server.stop()


async def test_a_store_that_evicts_only_what_expires_is_fine(tmp_path: Path) -> None:
    """Our keys have no expiry, so `volatile-*` cannot touch them."""
    server = Valkey(tmp_path, "--maxmemory-policy", "volatile-lru")
    store = RedisStore(server.url)
    try:
        assert (await store.check()).startswith("Valkey ")
    finally:
        await store.close()
        server.stop()


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"redis_version": "6.2.14"}, r"Redis 6\.2\.14 is too old"),
        ({}, r"Redis 0 is too old"),
        ({"redis_version": "unstable"}, r"Redis unstable is too old"),
        ({"valkey_version": "8.0.1", "maxmemory_policy": "allkeys-lfu"}, r"policy is allkeys-lfu"),
    ],
)
def test_an_unfit_store_is_refused(facts: dict[str, str], says: str) -> None:
    """The message names what is wrong: the version, or the policy."""
    with pytest.raises(InvalidConfig, match=says):
        judge(facts)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"redis_version": "7.0.0", "maxmemory_policy": "noeviction"}, "Redis 7.0.0"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "Valkey 9.1.2"),
    ],
)
def test_a_fit_store_is_named(facts: dict[str, str], says: str) -> None:
    """Valkey is called Valkey, though it also states the Redis version it stands for."""
    assert judge(facts) == says


async def test_a_store_that_is_gone_is_said_without_its_address(tmp_path: Path) -> None:
    """A refused connection becomes one kind of error; no path and no password in it."""
    store = RedisStore(f"unix://user:hidden@{tmp_path}/nobody.sock")

    with pytest.raises(StoreUnavailable) as caught:
        await store.snapshot()

    assert "nobody" not in caught.value.message
    assert "hidden" not in caught.value.message
    await store.close()


async def test_a_silent_store_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and never answers costs a bounded time, not 59 seconds."""
    monkeypatch.setattr("serving.control.stores.redis_calls.CALL_SECONDS", 0.2)
    connected = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    store = RedisStore(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        with pytest.raises(StoreUnavailable, match="in time"):
            await store.snapshot()
        assert connected.is_set()
    finally:
        await store.close()
        server.close()
        await server.wait_closed()


async def test_a_store_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """After a restart the next call works; nothing has to be rebuilt."""
    server = Valkey(tmp_path)
    store = RedisStore(server.url)
    await store.publish(snapshot(1))
    server.stop()
    with pytest.raises(StoreUnavailable):
        await store.snapshot()
    again = Valkey(tmp_path)
    try:
        assert await store.publish(snapshot(2))
    finally:
        await store.close()
        again.stop()


async def test_a_lost_subscription_says_so(tmp_path: Path) -> None:
    """A listener whose server died learns it and can open a new one."""
    server = Valkey(tmp_path)
    store = RedisStore(server.url)
    subscription = await store.subscribe()
    server.stop()
    with pytest.raises(StoreUnavailable):
        await subscription.next(10)
    await subscription.close()
    await store.close()


async def test_a_replica_is_not_written_to(valkey: Valkey) -> None:
    """READONLY after a failover is an error the caller can retry, and heals by itself."""
    store = RedisStore(valkey.url)
    with valkey.client() as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="ReadOnlyError"):
            await store.publish(snapshot(1))
        client.replicaof("NO", "ONE")

    assert await store.publish(snapshot(1))
    await store.close()


async def test_a_cancelled_call_never_answers_the_next_one(valkey: Valkey) -> None:
    """A caller that gives up mid-call leaves no reply behind for somebody else."""
    store = RedisStore(valkey.url)
    for revision in range(1, 61):
        await store.report(report(f"worker-{revision % 3}", revision))
        task = asyncio.create_task(store.workers())
        for _ in range(revision % 7):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert await store.snapshot() is None
    await store.close()


async def test_an_event_of_a_rollout_is_written_once(store: Store) -> None:
    """Adding again is as good as once; another one under its revision is refused."""
    events = {1: b'{"revision":1}', 2: b'{"revision":2}'}
    assert await store.add_rollout_events("demo-r1", events)
    assert await store.add_rollout_events("demo-r1", {2: events[2], 3: b"{}"})
    assert not await store.add_rollout_events("demo-r1", {3: b"other"})

    assert await store.rollout_events("demo-r1") == {**events, 3: b"{}"}
    assert await store.rollouts() == {"demo-r1": 3}


async def test_a_store_without_rollouts_has_none(store: Store) -> None:
    """Neither a list nor events."""
    assert await store.rollouts() == {}
    assert await store.rollout_events("demo-r1") == {}
