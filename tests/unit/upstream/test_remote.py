"""A remote version's way with requests: shared questions, retries, hosts that come and go."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from serving.clock import SystemClock
from serving.config.hosts import data_socket, data_sockets
from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
)
from serving.metrics import MetricsFile, read
from serving.types import Signature, TensorMetadata
from serving.upstream import Inference
from serving.upstream.endpoints import SocketEndpoints
from serving.upstream.remote import Manner, RemoteUpstream

BOUND = 30.0
SIGNATURE = Signature(
    [TensorMetadata("X", "FP32", (-1, 1))], [TensorMetadata("Y", "FP32", (-1, 1))], True
)

Numbers = list[float]
Behaviour = Callable[["FakeHost", Numbers], "bytes | None"]


class FakeHost:
    """A socket that answers as a test wants it to. Remembers the rows of every question."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self.path = path
        self.behaviour = behaviour
        self.questions: list[Numbers] = []
        self.connections = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        """Listen no more; the socket's name stays, as of a process that was killed."""
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(lines["content-length"]))
                tail = body[int(lines["inference-header-content-length"]) :]
                numbers = np.frombuffer(tail, "<f4").tolist()
                self.questions.append(numbers)
                await self.hold.wait()
                answer = self.behaviour(self, numbers)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def said(status: int, body: bytes) -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def doubled(_: FakeHost, numbers: Numbers) -> bytes:
    """What a good host answers."""
    data = [2 * number for number in numbers]
    output = {"name": "Y", "datatype": "FP32", "shape": [len(data), 1], "data": data}
    times = {"queue_seconds": 0.0, "compute_seconds": 0.001, "batch_rows": len(data)}
    return said(200, orjson.dumps({"outputs": [output], "parameters": times}))


def refused(status: int, text: str) -> Behaviour:
    """Answers every question like this."""
    return lambda *_: said(status, orjson.dumps({"error": text}))


def dropped(*_: Any) -> None:
    """Hangs up instead of answering."""


class Rig:
    """One upstream over sockets in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = MetricsFile(folder / "numbers")
        self.hosts: list[FakeHost] = []
        self.upstreams: list[RemoteUpstream] = []

    async def host(self, behaviour: Behaviour = doubled) -> FakeHost:
        """Start one."""
        made = FakeHost(data_socket(self.folder, "0", len(self.hosts)), behaviour)
        await made.start()
        self.hosts.append(made)
        return made

    def upstream(self, **more: Any) -> RemoteUpstream:
        """Make one that looks for them."""
        settings = {"max_rows": 64, "max_in_flight": 64, "cold_start": 10.0, **more}
        made = RemoteUpstream(
            ("m", "v1"),
            SIGNATURE,
            SocketEndpoints(partial(data_sockets, self.folder, "0")),
            Manner(path="/v2/models/m/infer", binary=True, own=True, **settings),
            metrics=self.metrics,
            clock=SystemClock(),
        )
        self.upstreams.append(made)
        return made

    def counted(self, name: str) -> float:
        """A metric of the version."""
        return read(self.folder / "numbers")[name, ("m", "v1")][0]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """And close everything."""
    made = Rig(tmp_path)
    yield made
    for upstream in made.upstreams:
        await asyncio.wait_for(upstream.close(), BOUND)
    for host in made.hosts:
        host.hold.set()
        await host.stop()
    made.metrics.close()


def send(
    upstream: RemoteUpstream, *numbers: float, within: float = 20.0, shadow: bool = False
) -> "asyncio.Future[Inference]":
    """One request of as many rows."""
    feed: dict[str, Any] = {"X": np.array(numbers, "<f4").reshape(-1, 1)}
    deadline = SystemClock().monotonic() + within
    return upstream.infer(feed, rows=len(numbers), outputs=(), deadline=deadline, shadow=shadow)


def rows(got: Inference) -> Numbers:
    """What came back."""
    numbers: Numbers = got.outputs[0].ravel().tolist()
    return numbers


async def test_what_arrives_together_is_asked_together(rig: Rig) -> None:
    """Each gets its own rows; the next turn is another question."""
    host = await rig.host()
    upstream = rig.upstream()

    got = await asyncio.gather(send(upstream, 1, 2), send(upstream, 3), send(upstream, 4, 5, 6))
    later = await send(upstream, 7)

    assert [rows(one) for one in got] == [[2, 4], [6], [8, 10, 12]]
    assert [one.batch_rows for one in got] == [6, 6, 6]
    assert rows(later) == [14]
    assert host.questions == [[1, 2, 3, 4, 5, 6], [7]]
    assert host.connections == 1


async def test_a_question_holds_no_more_rows_than_allowed(rig: Rig) -> None:
    """What does not fit goes into the next, in order."""
    host = await rig.host()
    upstream = rig.upstream(max_rows=3)

    got = await asyncio.gather(send(upstream, 1, 2), send(upstream, 3, 4), send(upstream, 5))

    assert [rows(one) for one in got] == [[2, 4], [6, 8], [10]]
    assert sorted(host.questions) == [[1, 2], [3, 4, 5]]


async def test_only_the_guilty_request_fails(rig: Rig) -> None:
    """A question that the model refuses is asked again, request by request."""

    def picky(host: FakeHost, numbers: Numbers) -> bytes:
        if 13 in numbers:
            return said(500, b'{"error": "the model failed on this input"}')
        return doubled(host, numbers)

    await rig.host(picky)
    upstream = rig.upstream()
    waiters = [send(upstream, number) for number in (12, 13, 14)]
    await asyncio.wait(waiters, timeout=BOUND)

    assert rows(waiters[0].result()) == [24]
    assert rows(waiters[2].result()) == [28]
    assert isinstance(waiters[1].exception(), InferenceFailed)


async def test_slow_models_are_asked_request_by_request(rig: Rig) -> None:
    """So that several hosts share the work."""
    hosts = [await rig.host(), await rig.host()]
    upstream = rig.upstream()
    upstream._endpoints.look()
    for host in upstream._endpoints.hosts:
        host.health.answered(0.5)

    await asyncio.gather(*(send(upstream, number) for number in range(8)))

    assert all(len(question) == 1 for host in hosts for question in host.questions)
    assert all(host.questions for host in hosts)


async def test_a_lost_connection_is_tried_once_more(rig: Rig) -> None:
    """On another host; the caller does not notice."""
    bad, good = await rig.host(dropped), await rig.host()
    upstream = rig.upstream()

    answers = [rows(await send(upstream, number)) for number in range(10)]

    assert answers == [[2 * number] for number in range(10)]
    assert len(good.questions) == 10
    assert bad.questions
    assert rig.counted("sluice_upstream_retries_total") == len(bad.questions)


async def test_there_is_no_third_try(rig: Rig) -> None:
    """Nor is a shadow copy tried twice."""
    host = await rig.host(dropped)
    upstream = rig.upstream()

    with pytest.raises(InferenceFailed, match="was lost"):
        await send(upstream, 1)
    assert len(host.questions) == 2
    with pytest.raises(InferenceFailed, match="was lost"):
        await send(upstream, 1, shadow=True)
    assert len(host.questions) == 3


async def test_retries_end_with_their_budget(rig: Rig) -> None:
    """When everything fails, the load does not double."""
    host = await rig.host(dropped)
    upstream = rig.upstream()
    for _ in range(100):
        with pytest.raises(InferenceFailed):
            await send(upstream, 1)

    assert len(host.questions) <= 100 + 10 + 20
    assert rig.counted("sluice_upstream_ejections_total") > 0


async def test_a_busy_host_is_not_asked_twice_if_it_is_the_only_one(rig: Rig) -> None:
    """Its 503 is the answer; with a sibling, that is asked."""
    busy = await rig.host(refused(503, "full"))
    upstream = rig.upstream()

    with pytest.raises(Overloaded, match="full"):
        await send(upstream, 1)
    assert len(busy.questions) == 1

    await rig.host()
    upstream._endpoints.look()
    assert [rows(await send(upstream, 2)) for _ in range(5)] == [[4]] * 5


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequest), (503, Overloaded), (504, DeadlineExceeded), (500, InferenceFailed)],
)
async def test_its_words_are_ours(rig: Rig, status: int, kind: type[Exception]) -> None:
    """A host is this program."""
    await rig.host(refused(status, "for this reason"))

    with pytest.raises(kind, match="for this reason"):
        await send(rig.upstream(), 1)


async def test_an_idle_connection_that_was_closed_is_no_failure(rig: Rig) -> None:
    """The request goes out again at once, on a fresh one, and nothing is counted."""

    def once(host: FakeHost, numbers: Numbers) -> bytes | None:
        asked = host.questions.count(numbers)
        return doubled(host, numbers) if numbers == [1] or asked > 1 else None

    host = await rig.host(once)
    upstream = rig.upstream()
    assert rows(await send(upstream, 1)) == [2]

    assert rows(await send(upstream, 2)) == [4]
    assert host.connections == 2
    assert rig.counted("sluice_upstream_retries_total") == 0


async def test_a_dead_hosts_socket_is_left_alone(rig: Rig) -> None:
    """Until another process is there under its name."""
    dead, good = await rig.host(), await rig.host()
    upstream = rig.upstream()
    await dead.stop()
    for connection in range(20):
        assert rows(await send(upstream, connection)) == [2 * connection]
    assert len(upstream._endpoints.hosts) == 1

    dead.path.unlink(missing_ok=True)
    again = FakeHost(dead.path, doubled)
    await again.start()
    rig.hosts[0] = again
    upstream._endpoints.look()
    assert len(upstream._endpoints.hosts) == 2
    assert len(good.questions) == 20


async def test_a_deadline_ends_one_request_of_a_question(rig: Rig) -> None:
    """The others wait on, until theirs."""
    host = await rig.host()
    upstream = rig.upstream()
    await send(upstream, 0)
    host.hold.clear()
    hasty, patient = send(upstream, 1, within=0.05), send(upstream, 2)

    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(hasty, BOUND)
    assert not patient.done()
    host.hold.set()
    assert rows(await asyncio.wait_for(patient, BOUND)) == [4]


async def test_everybody_leaving_ends_the_question(rig: Rig) -> None:
    """The connection is given up; the next request gets another."""
    host = await rig.host()
    upstream = rig.upstream()
    host.hold.clear()
    waiters = [send(upstream, 1), send(upstream, 2)]
    while not host.questions:
        await asyncio.sleep(0.001)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    host.hold.set()

    assert rows(await send(upstream, 3)) == [6]
    assert host.connections == 2


async def test_who_finds_no_host_waits_for_one(rig: Rig) -> None:
    """And counts as demand meanwhile."""
    upstream = rig.upstream()
    assert upstream.demand == 0
    waiter = send(upstream, 1)
    await asyncio.sleep(0.01)
    assert upstream.demand == 1

    await rig.host()

    assert rows(await asyncio.wait_for(waiter, BOUND)) == [2]


async def test_who_finds_no_host_for_too_long_is_told_so(rig: Rig) -> None:
    """And at once where nobody is to wait, or for a shadow copy."""
    with pytest.raises(Overloaded, match="one is being started") as caught:
        await asyncio.wait_for(send(rig.upstream(cold_start=0.05), 1), BOUND)
    assert caught.value.reason == "cold_start"
    with pytest.raises(Overloaded, match="one is being started"):
        send(rig.upstream(cold_start=0.0), 1)
    with pytest.raises(Overloaded) as caught:
        send(rig.upstream(), 1, shadow=True)
    assert caught.value.reason == "shadow_dropped"


async def test_requests_in_flight_are_bounded(rig: Rig) -> None:
    """Past the bound they are refused at once."""
    host = await rig.host()
    host.hold.clear()
    upstream = rig.upstream(max_in_flight=2)
    waiters = [send(upstream, 1), send(upstream, 2)]

    with pytest.raises(Overloaded, match=r"serve\.max_queue_size"):
        send(upstream, 3)
    host.hold.set()
    await asyncio.gather(*waiters)


async def test_closing_that_is_cut_short_ends_what_waits(rig: Rig) -> None:
    """Nobody is left without an answer."""
    host = await rig.host()
    upstream = rig.upstream()
    host.hold.clear()
    waiters = [send(upstream, 1), send(upstream, 2)]
    while not host.questions:
        await asyncio.sleep(0.001)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await upstream.close()

    await asyncio.wait(waiters, timeout=BOUND)
    assert [type(one.exception()) for one in waiters] == [ModelNotReady, ModelNotReady]


async def test_the_first_host_can_be_waited_for(rig: Rig) -> None:
    """As a table does before it sends traffic; not for ever."""
    upstream = rig.upstream()
    with pytest.raises(ModelNotReady, match="none of its processes was ready"):
        await upstream.until_there(0.05)
    waiting = asyncio.ensure_future(upstream.until_there(BOUND))
    await rig.host()
    await asyncio.wait_for(waiting, BOUND)


async def test_garbage_is_a_failure_of_that_request_only(rig: Rig) -> None:
    """Not HTTP, or HTTP and not this protocol."""

    def garbage(host: FakeHost, numbers: Numbers) -> bytes:
        if numbers == [1]:
            return said(200, b"<html>")
        return b"220 smtp\r\n" if numbers == [2] else doubled(host, numbers)

    await rig.host(garbage)
    upstream = rig.upstream()

    with pytest.raises(InferenceFailed, match="cannot be read"):
        await send(upstream, 1)
    with pytest.raises(InferenceFailed, match="was lost"):
        await send(upstream, 2)
    assert rows(await send(upstream, 3)) == [6]


def test_sockets_of_this_length_fit() -> None:
    """The longest name with the longest data directory; see `short_alias`."""
    name = str(data_socket(Path("/" + "x" * 78), "0123456789", 255))
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):
        probe.connect(name)
