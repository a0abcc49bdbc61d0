"""A node that follows control through a real store, and what it does without one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from store_kit import ValkeyServer
from waiting_kit import soon

from serving.clock import ManualClock
from serving.config.applied import Orders, read_orders
from serving.config.directions import (
    Directions,
    NodeReport,
    Taken,
    decode_report,
    encode_directions,
    write_taken,
)
from serving.config.keys import DIRECTIONS_CHANNEL, DIRECTIONS_KEY, NODE_VARIABLE, NODES_KEY
from serving.engine.node_follower import NodeFollower
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect
from serving.tasks import end

ENGINE = "now@here"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Where control writes."""
    server = ValkeyServer(tmp_path / "store").start()
    yield server
    server.kill()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's data directory."""
    monkeypatch.setenv(NODE_VARIABLE, "far")
    (tmp_path / "node" / "run").mkdir(parents=True)
    return tmp_path / "node"


def follower(node: Path, url: str) -> NodeFollower:
    """As a replica there makes it."""
    return NodeFollower(node, ENGINE, url, clock=ManualClock(), say=lambda _: None)


def directions(revision: int) -> Directions:
    """What control says; the serial tells which it was."""
    orders = Orders(engine=ENGINE, serial=revision)
    return Directions(engine=ENGINE, revision=revision, orders=orders)


def say(store: ValkeyServer, said: Directions, *, push: bool = True) -> None:
    """What control does."""
    with contextlib.closing(store.client()) as client:
        client.hset(DIRECTIONS_KEY, said.engine, encode_directions(said))
        if push:
            client.publish(DIRECTIONS_CHANNEL, str(said.revision))


def reported(store: ValkeyServer) -> NodeReport | None:
    """What control hears."""
    with contextlib.closing(store.client()) as client:
        return decode_report(client.hget(NODES_KEY, "far"))


def serial(node: Path) -> int:
    """Of the orders on the node's disk."""
    orders = read_orders(node)
    return orders.serial if orders is not None else 0


@contextlib.asynccontextmanager
async def following(*followers: NodeFollower) -> AsyncIterator[None]:
    """While the block runs."""
    tasks = [asyncio.create_task(one.run()) for one in followers]
    try:
        yield
    finally:
        await end(*tasks)


async def test_a_replica_knows_the_orders_before_it_starts_anything(
    node: Path, store: ValkeyServer
) -> None:
    """What was left by an earlier start is gone."""
    (node / "run" / "gateway.json").write_text("{}")
    say(store, directions(3))

    await follower(node, store.url).catch_up()

    assert serial(node) == 3
    assert not (node / "run" / "gateway.json").exists()


async def test_without_a_store_a_node_goes_by_its_disk(node: Path, store: ValkeyServer) -> None:
    """It starts, late by nothing that a request waits for."""
    say(store, directions(3))
    await follower(node, store.url).catch_up()
    store.kill()

    await follower(node, store.url).catch_up()

    assert serial(node) == 3


async def test_news_are_followed_and_crashes_told(node: Path, store: ValkeyServer) -> None:
    """Both while it runs."""
    one = follower(node, store.url)
    await one.catch_up()
    async with following(one):
        await soon(lambda: reported(store) is not None)
        say(store, directions(1))
        await soon(lambda: serial(node) == 1)
        suspects = (Suspect("m", "v2", "b" * 64),)
        crash = Crash(at=1.0, worker="worker-0", signal="SIGFPE", suspects=suspects, node="far")
        register.record(node, crash)
        await soon(lambda: (said := reported(store)) is not None and said.known.crashes == [crash])


async def test_a_store_that_comes_back_is_followed_again(node: Path, store: ValkeyServer) -> None:
    """Without a push: it reads when it connects."""
    one = follower(node, store.url)
    await one.catch_up()
    async with following(one):
        say(store, directions(1))
        await soon(lambda: serial(node) == 1)
        store.kill()
        store.start()
        say(store, directions(2), push=False)
        await soon(lambda: serial(node) == 2)


async def test_another_replica_takes_over(node: Path, store: ValkeyServer) -> None:
    """One follows at a time, and the next when that has gone."""
    first, second = follower(node, store.url), follower(node, store.url)
    await first.catch_up()
    async with following(second):
        async with following(first):
            say(store, directions(1))
            await soon(lambda: serial(node) == 1)
        say(store, directions(2))
        await soon(lambda: serial(node) == 2)


async def test_where_control_writes_nobody_does(node: Path, store: ValkeyServer) -> None:
    """Neither files nor reports, until control is elsewhere."""
    one = follower(node, store.url)
    await one.catch_up()
    write_taken(node, Taken(engine=ENGINE, revision=1, own=True))
    say(store, directions(9))
    async with following(one):
        await soon((node / "run" / "node.lock").exists)
        before = serial(node), reported(store)
        write_taken(node, Taken(engine=ENGINE, revision=1))
        await soon(lambda: serial(node) == 9)

    assert before == (0, None)
