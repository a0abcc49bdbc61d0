"""Connections handed from one worker to another, over real sockets on one loop."""

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.clock import ManualClock
from serving.metrics import MetricsFile, read
from serving.worker.spread import Alone, Spreading
from serving.worker.spread_table import MOST_WAITING, WORKERS


class Node:
    """The spreads of a node's workers, and what each has taken."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.clock = ManualClock()
        self.taken: dict[int, list[socket.socket]] = {}
        self._spreads: list[Spreading] = []

    def start(self, number: int, connections: int = 0) -> Spreading:
        """One more worker, with so many connections, known to all."""
        metrics = MetricsFile(self.run / f"{number}-{len(self._spreads)}.metrics", 1 << 16)
        spread = Spreading(self.run, number, metrics, self.clock)
        metrics.close()
        taken = self.taken[number] = []
        spread.start(taken.append)
        spread.count(connections)
        self._spreads.append(spread)
        for one in self._spreads:
            one.beat()
        return spread

    def handed_over(self, number: int) -> float:
        """How many connections worker `number` has given away, by its metrics."""
        samples = read(self.run / f"{number}-{number}.metrics")
        return samples["sluice_connections_handed_over_total", ()][0]

    def close(self) -> None:
        """Leave nothing open."""
        for one in self._spreads:
            one.leave()
        for taken in self.taken.values():
            for connection in taken:
                connection.close()


@pytest.fixture
async def node(tmp_path: Path) -> "Iterator[Node]":
    """One with a folder of its own."""
    made = Node(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: the client's, and that which was accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    client.settimeout(20)
    with client, accepted:
        yield client, accepted


async def until_taken(taken: list[socket.socket], number: int) -> None:
    """Let the loop run until so many connections have come."""
    async with asyncio.timeout(20):
        while len(taken) < number:
            await asyncio.sleep(0)


async def test_a_connection_moves_with_everything_that_was_sent(
    node: Node, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The client notices nothing: no byte is lost, and no end or reset comes between."""
    client, accepted = pair
    giver = node.start(0, connections=2)
    node.start(1)
    client.sendall(b"before")
    receiver = giver.elsewhere()
    assert receiver == 1
    given = giver.give(receiver, accepted.fileno())
    accepted.close()
    client.sendall(b" and after")
    await until_taken(node.taken[1], 1)
    [moved] = node.taken[1]
    moved.sendall(b"answer")

    assert given
    assert moved.recv(100) == b"before and after"
    assert client.recv(100) == b"answer"
    assert node.handed_over(0) == 1


async def test_a_child_process_does_not_inherit_it(
    node: Node, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Otherwise the client would wait for a connection that a child keeps open."""
    giver = node.start(0)
    node.start(1)
    giver.give(1, pair[1].fileno())
    await until_taken(node.taken[1], 1)

    assert not os.get_inheritable(node.taken[1][0].fileno())


async def test_an_even_load_stays_where_it_is(node: Node) -> None:
    """One more than the others is even."""
    first, second = node.start(0, connections=3), node.start(1, connections=2)

    assert first.elsewhere() is None
    assert second.elsewhere() is None


async def test_who_is_dead_is_not_asked_twice(
    node: Node, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The connection stays; the next goes to somebody who lives."""
    giver = node.start(0, connections=4)
    node.start(1)
    node.start(2, connections=1)
    (node.run / "spread-1.sock").unlink()
    first = giver.elsewhere()
    given = giver.give(1, pair[1].fileno())

    assert first == 1
    assert not given
    assert giver.elsewhere() == 2
    assert node.handed_over(0) == 0


async def test_a_full_queue_keeps_no_connection(
    node: Node, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What cannot be given is not given; what is given comes, all of it."""
    giver = node.start(0)
    node.start(1)
    given = 0
    while giver.give(1, pair[1].fileno()):
        given += 1
    await until_taken(node.taken[1], given)

    assert len(node.taken[1]) == given
    assert given >= MOST_WAITING


async def test_who_leaves_takes_what_waits_and_is_given_no_more(
    node: Node, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Nothing falls between: what is not refused has been taken by then."""
    giver, leaver = node.start(0, connections=9), node.start(1)
    giver.give(1, pair[1].fileno())
    leaver.leave()

    assert len(node.taken[1]) == 1
    assert giver.elsewhere() is None
    assert not giver.give(1, pair[1].fileno())


async def test_who_leaves_gives_nothing_away(node: Node) -> None:
    """It finds out by connections of its own where it is among its siblings."""
    leaver = node.start(0, connections=9)
    node.start(1)
    before = leaver.elsewhere()
    leaver.leave()

    assert before == 1
    assert leaver.elsewhere() is None


async def test_one_that_died_is_replaced_under_its_name(
    node: Node, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A new worker takes over the dead one's socket, and what is given then comes to it."""
    giver = node.start(0, connections=2)
    node.start(1)
    node.start(1)

    assert giver.give(1, pair[1].fileno())
    await until_taken(node.taken[1], 1)


async def test_without_a_folder_everybody_serves_what_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so and serves, as without siblings."""
    metrics = MetricsFile(tmp_path / "one.metrics", 1 << 16)
    spread = Spreading(tmp_path / "missing", 0, metrics, ManualClock())
    metrics.close()
    with caplog.at_level(logging.WARNING):
        spread.start(lambda _: None)
    spread.count(100)
    spread.beat()

    assert "connections are not spread over workers" in caplog.text
    assert spread.elsewhere() is None
    spread.leave()


async def test_a_number_beyond_the_table_takes_no_part(node: Node) -> None:
    """Such a worker serves what the kernel gives it."""
    far = node.start(WORKERS, connections=9)
    near = node.start(0, connections=9)

    assert far.elsewhere() is None
    assert near.elsewhere() is None


async def test_a_listener_without_siblings_keeps_everything() -> None:
    """The spread of a model host."""
    alone = Alone()
    alone.start(lambda _: None)
    alone.count(100)

    assert alone.elsewhere() is None
    assert not alone.give(0, 0)
    alone.leave()
