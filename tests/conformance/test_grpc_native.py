"""The native front with methods of the tests' own: what it hands over, how calls end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from serving.config.schema import Limits
from serving.config.units import ByteSize
from serving.worker.grpc.call import Edge, InFlight
from serving.worker.grpc.exchange import Exchanges
from serving.worker.grpc.native import NativeServer
from serving.worker.reply import Pending, Reply

BOUND = 20.0
Code = grpc.StatusCode
Method = Callable[[bytes, Any], Coroutine[Any, Any, Any]]


def _no_inference(message: bytes, context: Any, reply: Reply) -> Pending:
    raise AssertionError((message, context, reply))


@asynccontextmanager
async def serving(
    method: Method, *, streams: bool = False, max_body: int = 1 << 20
) -> AsyncIterator[tuple[NativeServer, Any]]:
    """A server with one method, and a stub of it."""
    if streams:
        served = grpc.unary_stream_rpc_method_handler(method)
    else:
        served = grpc.unary_unary_rpc_method_handler(method)
    in_flight = InFlight()
    nobody = Exchanges(_no_inference, Edge(), in_flight)
    limits = Limits(max_body=ByteSize(max_body))
    server = NativeServer({"t.T": {"M": served}}, limits, in_flight, nobody)
    port = await server.start("127.0.0.1", 0, None)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield server, (channel.unary_stream if streams else channel.unary_unary)("/t.T/M")
    finally:
        await server.stop(2.0)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Await a call that must fail; give its error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, BOUND)
    return caught.value


async def test_metadata_travels_both_ways() -> None:
    """In order and with repetitions, binary values as bytes."""
    sent = (("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\x00\xff"))
    seen: list[tuple[str, str | bytes]] = []

    async def method(message: bytes, context: Any) -> bytes:
        seen.extend((key, value) for key, value in context.invocation_metadata())
        context.set_trailing_metadata((("x-c", "3"), ("x-d-bin", b"\xfe")))
        return message[::-1]

    async with serving(method) as (_, stub):
        call = stub(b"abc", metadata=sent)
        answer = await asyncio.wait_for(call, BOUND)
        trailing = await call.trailing_metadata()

    assert answer == b"cba"
    assert [pair for pair in seen if pair[0].startswith("x-")] == list(sent)
    assert dict(trailing) == {"x-c": "3", "x-d-bin": b"\xfe"}


async def test_the_time_left_is_told() -> None:
    """Seconds to the deadline where there is one."""
    told: list[float | None] = []

    async def method(_message: bytes, context: Any) -> bytes:
        told.append(context.time_remaining())
        return b""

    async with serving(method) as (_, stub):
        await asyncio.wait_for(stub(b""), BOUND)
        await asyncio.wait_for(stub(b"", timeout=BOUND), BOUND)

    assert told[0] is None
    assert told[1] is not None
    # A client may round what it asks for up to three digits.
    assert 0 < told[1] <= BOUND * 1.01


async def test_an_error_nobody_caught_is_internal_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its text stays here; the server goes on."""

    async def method(message: bytes, _context: Any) -> bytes:
        if message:
            raise ValueError("cannot open /srv/secret")
        return b"fine"

    with caplog.at_level(logging.ERROR):
        async with serving(method) as (_, stub):
            error = await failure(stub(b"x"))
            after = await asyncio.wait_for(stub(b""), BOUND)

    assert (error.code(), error.details()) == (Code.INTERNAL, "internal error")
    assert after == b"fine"
    assert len(caplog.records) == 1


async def test_an_answer_that_cannot_be_sent_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    """A client never waits for what went wrong here."""

    async def method(_message: bytes, _context: Any) -> str:
        return "no bytes"

    with caplog.at_level(logging.ERROR):
        async with serving(method) as (_, stub):
            error = await failure(stub(b""))

    assert error.code() is Code.INTERNAL
    assert len(caplog.records) == 1


async def test_a_message_over_the_limit_names_the_limit() -> None:
    """One of exactly the limit is taken; one more byte is refused before the method."""
    taken: list[int] = []

    async def method(message: bytes, _context: Any) -> bytes:
        taken.append(len(message))
        return b""

    async with serving(method, max_body=1000) as (_, stub):
        await asyncio.wait_for(stub(bytes(1000)), BOUND)
        error = await failure(stub(bytes(1001)))

    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert "limits.max_body" in (error.details() or "")
    assert taken == [1000]


async def test_a_client_that_leaves_cancels_its_call() -> None:
    """The task ends as cancelled."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def method(_message: bytes, _context: Any) -> bytes:
        entered.set()
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(method) as (_, stub):
        call = stub(b"")
        async with asyncio.timeout(BOUND):
            await entered.wait()
            call.cancel()
            await cancelled.wait()

    assert call.cancelled()


async def test_what_a_stop_cuts_off_hears_that_it_may_try_elsewhere() -> None:
    """UNAVAILABLE is what clients retry."""
    entered = asyncio.Event()

    async def method(_message: bytes, _context: Any) -> bytes:
        entered.set()
        return await asyncio.get_running_loop().create_future()

    async with serving(method) as (server, stub):
        call = asyncio.ensure_future(failure(stub(b"")))
        await asyncio.wait_for(entered.wait(), BOUND)
        await asyncio.wait_for(server.stop(0.1), BOUND)
        error = await call

    assert error.code() is Code.UNAVAILABLE


async def test_a_stop_waits_for_calls_that_have_only_just_come() -> None:
    """Whoever was let in is answered, also where no count of requests knows it yet."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def method(_message: bytes, _context: Any) -> bytes:
        entered.set()
        await release.wait()
        return b"done"

    async with serving(method) as (server, stub):
        call = asyncio.ensure_future(stub(b""))
        await asyncio.wait_for(entered.wait(), BOUND)
        stopping = asyncio.ensure_future(server.stop(BOUND))
        await asyncio.sleep(0)
        release.set()

        assert await asyncio.wait_for(call, BOUND) == b"done"
        assert await asyncio.wait_for(stopping, BOUND) == 0


async def test_a_stream_is_sent_whole_to_a_client_that_reads_late() -> None:
    """Writing waits while the client is behind, and the loop goes on meanwhile."""
    chunk, count = bytes(200_000), 20

    async def method(_message: bytes, context: Any) -> None:
        for _ in range(count):
            await context.write(chunk)

    async with serving(method, streams=True) as (_, stub):
        call = stub(b"")
        await asyncio.wait_for(call.wait_for_connection(), BOUND)
        async with asyncio.timeout(BOUND):
            sizes = [len(message) async for message in call]

    assert sizes == [len(chunk)] * count


async def test_a_stream_that_fails_after_a_message_ends_with_the_status() -> None:
    """What was written arrives first."""

    async def method(_message: bytes, context: Any) -> None:
        await context.write(b"one")
        await context.abort(Code.DATA_LOSS, "half")

    received: list[bytes] = []

    async def read(call: Any) -> None:
        async for message in call:
            received.append(message)  # noqa: PERF401 - a comprehension would lose them

    async with serving(method, streams=True) as (_, stub):
        error = await failure(read(stub(b"")))

    assert received == [b"one"]
    assert (error.code(), error.details()) == (Code.DATA_LOSS, "half")
