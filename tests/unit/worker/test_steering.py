"""Where the kernel takes new connections, with real listening sockets that share a port."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.tasks import end
from serving.worker.departure import Departure
from serving.worker.steering import Steering, members

FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def listening(family: socket.AddressFamily, host: str, port: int = 0) -> socket.socket:
    """One of the sockets that share a port."""
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, port))
    one.listen(128)
    one.setblocking(False)
    return one


@pytest.fixture(params=FAMILIES, ids=["ipv4", "ipv6"])
def group(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    """Four of them."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(listening(*request.param))
        port = first.getsockname()[1]
        yield [
            first,
            *(stack.enter_context(listening(*request.param, port)) for _ in range(3)),
        ]


def accepted(group: list[socket.socket], times: int = 200) -> list[int]:
    """How many of so many connections each socket is given."""
    counts = [0] * len(group)
    address = group[0].getsockname()
    family = group[0].family
    for _ in range(times):
        with socket.socket(family) as client:
            client.connect(address)
            for number, one in enumerate(group):
                with contextlib.suppress(BlockingIOError):
                    one.accept()[0].close()
                    counts[number] += 1
    return counts


async def serve(one: socket.socket) -> None:
    """Accept as a server does: a connection is kept until its client goes."""
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(one)
        with connection:
            await loop.sock_recv(connection, 1)


@pytest.mark.parametrize("place", [0, 1, 3])
async def test_new_connections_go_to_the_others(group: list[socket.socket], place: int) -> None:
    """Wherever in the group it is; and back again once the filter is out."""
    leaving = group[place]
    # The others stand for other processes: what they are given to find out stays in their queues.
    server = asyncio.create_task(serve(leaving))
    steered = await Steering(leaving).away()
    await end(server)
    for other in group:
        with contextlib.suppress(BlockingIOError):
            while True:
                other.accept()[0].close()
    while_away = accepted(group)
    Steering(group[(place + 1) % 4]).release()
    afterwards = accepted(group)

    assert steered
    assert while_away[place] == 0
    assert sum(while_away) == 200
    assert sum(count > 0 for count in while_away) == 3
    assert afterwards[place] > 0


async def test_who_is_alone_cannot_be_left_out() -> None:
    """There is nobody to take its connections."""
    with listening(*FAMILIES[0]) as alone:
        assert members(alone) == 1
        assert not await Steering(alone).away()
        assert accepted([alone], 5) == [5]


def test_members_are_counted_by_address_and_port(group: list[socket.socket]) -> None:
    """Other ports and sockets that do not listen are not among them."""
    family, host = group[0].family, group[0].getsockname()[0]
    with listening(family, host), socket.socket(family) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        silent.bind((host, group[0].getsockname()[1]))

        assert members(group[0]) == 4


def test_releasing_what_was_never_steered_does_nothing(group: list[socket.socket]) -> None:
    """A worker that starts does it always."""
    Steering(group[0]).release()

    assert sum(accepted(group, 20)) == 20


async def test_one_leaves_at_a_time(tmp_path: Path) -> None:
    """There is one filter a port, so the second waits for its turn."""
    first = Departure(tmp_path, "worker-0", set())
    second = Departure(tmp_path, "worker-1", set())
    order: list[str] = []

    async def go(who: Departure, name: str) -> None:
        async with who.turn():
            order.append(f"{name} in")
            await asyncio.sleep(0.05)
            order.append(f"{name} out")

    await asyncio.gather(go(first, "a"), go(second, "b"))

    assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])
