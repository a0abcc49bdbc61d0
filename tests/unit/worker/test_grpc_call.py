"""Reading a call, and turning failures into statuses, without a server."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
import pytest

from serving.clock import ManualClock
from serving.errors import InvalidRequest, ModelNotFound, Overloaded, Unauthenticated
from serving.protocol._generated import inference_pb2 as pb
from serving.worker.grpc.call import CallReader, Edge, InFlight, echo_request_id, parse
from serving.worker.grpc.server import prefers_native

Metadata = Sequence[tuple[str, str | bytes]]


class FakeContext:
    """As much of a servicer context as a call needs."""

    def __init__(self, metadata: Metadata = (), remaining: float | None = None) -> None:
        self.metadata = metadata
        self.remaining = remaining
        self.trailing: tuple[tuple[str, str], ...] = ()
        self.status: tuple[grpc.StatusCode, str] | None = None

    def invocation_metadata(self) -> Metadata:
        """What the client sent."""
        return self.metadata

    def time_remaining(self) -> float | None:
        """Seconds to the deadline."""
        return self.remaining

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes back with the status."""
        return self.trailing

    def set_trailing_metadata(self, trailing: tuple[tuple[str, str], ...]) -> None:
        """Replace what goes back with the status."""
        self.trailing = trailing

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call."""
        self.status = (code, details)
        raise grpc.aio.AbortError


def read(context: FakeContext, *names: str) -> Any:
    """Read a call from it, `names` being what routing wants."""
    return CallReader(lambda: frozenset(names), ManualClock(5.0)).read(context)  # type: ignore[arg-type]


async def answered(edge: Edge, error: BaseException) -> FakeContext:
    """End a call with an error; give its context."""
    context = FakeContext()

    async def fail(_message: bytes, _context: object) -> bytes:
        raise error

    with pytest.raises(grpc.aio.AbortError):
        await edge.answering(fail)(b"", context)  # type: ignore[arg-type]
    return context


def test_a_bare_call_has_nothing_but_its_arrival() -> None:
    """No metadata and no deadline leave every field empty."""
    call = read(FakeContext())

    assert (call.protocol, call.arrived, call.timeout) == ("grpc", 5.0, None)
    assert (call.authorization, call.request_id, call.traceparent) == (None, "", None)


@pytest.mark.parametrize("endless", [None, 9.223372036854775807e18])
def test_a_call_without_deadline_is_told_apart_from_one_that_has_one(
    endless: float | None,
) -> None:
    """Both servers' ways of saying "for ever" read as None; zero left is zero."""
    assert read(FakeContext(remaining=endless)).timeout is None
    assert read(FakeContext(remaining=0.0)).timeout == 0.0
    assert read(FakeContext(remaining=1.5)).timeout == 1.5


def test_only_wanted_metadata_becomes_headers() -> None:
    """Other keys and binary values are left where they are."""
    context = FakeContext(
        [("x-key", "a"), ("x-other", "b"), ("x-blob-bin", b"\x00"), ("user-agent", "grpc")]
    )
    call = read(context, "x-key", "x-blob-bin")

    assert call.headers == {"x-key": "a"}


def test_routing_may_want_a_key_that_is_read_anyway() -> None:
    """A traffic plan can assign by request id."""
    call = read(FakeContext([("x-request-id", "r")]), "x-request-id")

    assert (call.request_id, call.headers) == ("r", {"x-request-id": "r"})


def test_two_credentials_are_none() -> None:
    """Which of the two would count is nobody's guess."""
    with pytest.raises(Unauthenticated, match="more than once"):
        read(FakeContext([("authorization", "a"), ("authorization", "a")]))


def test_a_timeout_in_metadata_only_shortens() -> None:
    """The earlier of the two deadlines holds; nonsense is refused."""
    metadata = [("x-request-timeout", "250ms")]

    assert read(FakeContext(metadata)).timeout == 0.25
    assert read(FakeContext(metadata, remaining=0.1)).timeout == 0.1
    assert read(FakeContext(metadata, remaining=9.0)).timeout == 0.25
    with pytest.raises(InvalidRequest, match="x-request-timeout"):
        read(FakeContext([("x-request-timeout", "-1")]))


@pytest.mark.parametrize(
    ("identifier", "returned"),
    [("r-1", True), ("", False), ("x" * 128, True), ("x" * 129, False), ("größe", False)],
)
def test_a_request_id_is_returned_if_it_is_sane(identifier: str, returned: bool) -> None:
    """Long or non-ASCII values are kept for the log and not sent back."""
    context = FakeContext([("x-request-id", identifier)])
    echo_request_id(read(context), context)  # type: ignore[arg-type]

    assert dict(context.trailing) == ({"x-request-id": identifier} if returned else {})


async def test_our_errors_keep_their_text_and_unexpected_ones_lose_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only what was not raised on purpose is logged, with its traceback."""
    with caplog.at_level(logging.ERROR):
        ours = await answered(Edge(), ModelNotFound("Request for unknown model: 'a'"))
        logged = len(caplog.records)
        foreign = await answered(Edge(), KeyError("/srv/secret"))

    assert ours.status == (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'a'")
    assert foreign.status == (grpc.StatusCode.INTERNAL, "internal error")
    assert (logged, len(caplog.records)) == (0, 1)


async def test_an_overload_keeps_the_metadata_that_was_there() -> None:
    """Retry metadata is added to the request id; gRPC's own key only where it may be set."""
    edge = Edge()
    context = FakeContext()
    context.trailing = (("x-request-id", "r"),)

    async def fail(_message: bytes, _context: object) -> bytes:
        raise Overloaded("busy", retry_after_seconds=1.2)

    with pytest.raises(grpc.aio.AbortError):
        await edge.answering(fail)(b"", context)  # type: ignore[arg-type]
    edge.pushback = False
    without = await answered(edge, Overloaded("busy", retry_after_seconds=1.2))

    assert dict(context.trailing) == {
        "x-request-id": "r",
        "retry-after": "2",
        "grpc-retry-pushback-ms": "1200",
    }
    assert dict(without.trailing) == {"retry-after": "2"}


async def test_a_cancellation_somebody_asked_for_passes_through() -> None:
    """The client left: no status is made up, the task ends as cancelled."""
    context = FakeContext()
    started = asyncio.Event()

    async def wait(_message: bytes, _context: object) -> bytes:
        started.set()
        return await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(Edge().answering(wait)(b"", context))  # type: ignore[arg-type]
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert context.status is None


async def test_a_cancellation_nobody_asked_for_is_answered() -> None:
    """Otherwise grpc.aio would leave the client waiting."""
    context = await answered(Edge(), asyncio.CancelledError())

    assert context.status == (grpc.StatusCode.INTERNAL, "internal error")


def test_bytes_that_are_no_message_name_the_message() -> None:
    """The error says which message was expected."""
    with pytest.raises(InvalidRequest, match=r"inference\.ModelInferRequest"):
        parse(pb.ModelInferRequest, b"\xff\xff")

    assert parse(pb.ModelInferRequest, b"").model_name == ""


async def test_idle_comes_with_the_last_call() -> None:
    """Waiting ends when the count reaches zero, or when time is up."""
    in_flight = InFlight()
    nothing = await in_flight.idle(0.0)
    in_flight.enter()
    in_flight.enter()
    waiting = asyncio.ensure_future(in_flight.idle(20.0))
    await asyncio.sleep(0)
    in_flight.leave()
    early = waiting.done()
    in_flight.leave()
    came = await waiting
    in_flight.enter()

    assert (nothing, early, came, in_flight.count) == (True, False, True, 1)
    assert not await in_flight.idle(0.0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.example.org", False),
    ],
)
def test_only_loopback_is_trusted_with_the_native_front(host: str, loopback: bool) -> None:
    """A name that could resolve to anything counts as the network."""
    assert prefers_native(host) is loopback
