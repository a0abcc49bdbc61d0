"""Calls of the native front without a task, over a front that only takes notes."""

import asyncio
from typing import Any

import grpc
import pytest

from serving.errors import InvalidRequest, Overloaded
from serving.protocol._generated import inference_pb2 as pb
from serving.types import Call, InferRequest, InferResponse
from serving.worker.grpc.call import Edge, InFlight
from serving.worker.grpc.exchange import UNAVAILABLE, Exchanges
from serving.worker.reply import Reply

PEER = "ipv4:127.0.0.1:4711"
REQUEST = InferRequest("m", "", [])


class Front:
    """Notes what it is told to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def respond(self, number: int, message: bytes, *metadata: Any) -> None:
        """An answer."""
        self.sent.append((number, pb.ModelInferResponse.FromString(message), *metadata))

    def fail(self, number: int, code: int, words: str, trailing: Any) -> None:
        """A status."""
        self.sent.append((number, code, words, trailing))


class Plane:
    """Begins whatever it is given; the test says what becomes of it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.replies: dict[bytes, Reply] = {}
        self.cancelled = 0
        self.left: asyncio.Task[None] | None = None

    def begin(self, message: bytes, context: Any, reply: Reply) -> "Plane":
        """As `Inference.begin`."""
        del context
        if self.error is not None:
            raise self.error
        self.replies[message] = reply
        return self

    def cancel(self) -> "asyncio.Task[None] | None":
        """As `Pending.cancel`."""
        self.cancelled += 1
        return self.left


class Kit:
    """The three together."""

    def __init__(self) -> None:
        self.front, self.plane, self.in_flight = Front(), Plane(), InFlight()
        self.exchanges = Exchanges(self.plane.begin, Edge(), self.in_flight)

    def start(self, number: int, message: bytes = b"") -> None:
        """A call arrives."""
        self.exchanges.start(self.front, number, message, ((), PEER, None))


@pytest.fixture
def kit() -> Kit:
    """A fresh one."""
    return Kit()


def test_an_answer_is_sent_and_the_call_is_no_longer_in_flight(kit: Kit) -> None:
    """One message, and the place is given back."""
    kit.start(1)
    assert (kit.in_flight.count, kit.exchanges.peers()) == (1, {PEER})

    kit.plane.replies[b""].answered(REQUEST, Call("grpc", 0.0), InferResponse("m", "v1", []))

    [(number, message)] = kit.front.sent
    assert (number, message.model_version) == (1, "v1")
    assert (kit.in_flight.count, kit.exchanges.peers()) == (0, set())


def test_a_sampled_answer_names_its_span(kit: Kit) -> None:
    """In the trailing metadata, as other calls do."""
    kit.start(1)
    call = Call("grpc", 0.0, traceresponse="00-1-2-01")

    kit.plane.replies[b""].answered(REQUEST, call, InferResponse("m", "v1", []))

    assert kit.front.sent[0][3] == (("traceresponse", "00-1-2-01"),)


def test_what_is_refused_at_once_gets_its_status(kit: Kit) -> None:
    """The plane tells nobody of it, so it is answered here."""
    kit.plane.error = InvalidRequest("no")

    kit.start(1)

    assert kit.front.sent == [(1, grpc.StatusCode.INVALID_ARGUMENT.value[0], "no", ())]
    assert kit.in_flight.count == 0


def test_what_fails_later_gets_its_status_and_advice(kit: Kit) -> None:
    """With the metadata that goes with it."""
    kit.start(1)

    kit.plane.replies[b""].failed(Overloaded("later", 2.0))

    [(_, code, _, trailing)] = kit.front.sent
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert ("retry-after", "2") in trailing
    assert kit.in_flight.count == 0


def test_an_answer_that_cannot_be_written_fails(kit: Kit) -> None:
    """The caller is answered whatever happens, and told nothing of the inside."""
    kit.start(1)
    bad: Any = InferResponse("m", "v1", [None])  # type: ignore[list-item]

    kit.plane.replies[b""].answered(REQUEST, Call("grpc", 0.0), bad)

    assert kit.front.sent[0][:2] == (1, grpc.StatusCode.INTERNAL.value[0])
    assert kit.in_flight.count == 0


def test_a_cancelled_call_gives_its_request_up(kit: Kit) -> None:
    """Once; a second cancellation finds nothing."""
    kit.start(1)

    kit.exchanges.cancel(1)
    kit.exchanges.cancel(1)

    assert kit.plane.cancelled == 1
    assert [(number, code) for number, code, *_ in kit.front.sent] == [(1, UNAVAILABLE)]
    assert kit.in_flight.count == 0


async def test_a_cancelled_call_is_in_flight_until_its_task_has_ended(kit: Kit) -> None:
    """A drain waits for what still has to clean up."""
    ends = asyncio.Event()

    async def work() -> None:
        await ends.wait()

    kit.plane.left = asyncio.create_task(work())
    kit.start(1)

    kit.exchanges.cancel(1)
    assert kit.in_flight.count == 1

    ends.set()
    await kit.plane.left
    await asyncio.sleep(0)
    assert kit.in_flight.count == 0


async def test_at_the_end_all_that_are_left_are_cut(kit: Kit) -> None:
    """Each client is told that the server goes."""
    kit.start(1, b"a")
    kit.start(2, b"b")

    await kit.exchanges.cut()

    assert [(number, code) for number, code, *_ in kit.front.sent] == [
        (1, UNAVAILABLE),
        (2, UNAVAILABLE),
    ]
    assert kit.exchanges.peers() == set()
