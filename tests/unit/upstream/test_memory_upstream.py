import asyncio

import numpy as np
import pytest

from serving.clock import ManualClock
from serving.errors import InferenceFailed, Overloaded
from serving.types import Signature, TensorMetadata
from serving.upstream.memory import Feed, MemoryUpstream

X = [TensorMetadata("X", "FP32", (-1, 1))]
Y = [TensorMetadata("Y", "FP32", (-1, 1))]
FEED = {"X": np.ones((1, 1), "<f4")}


async def test_an_error_of_ours_reaches_the_caller_as_it_is() -> None:
    """So that a test can say what an upstream refuses."""

    def refuse(_: Feed) -> Feed:
        raise Overloaded("busy", 3.0, "queue_full")

    upstream = MemoryUpstream(refuse, Signature(X, Y, True), ManualClock())

    with pytest.raises(Overloaded) as refusal:
        await upstream.infer(FEED, rows=1, outputs=(), deadline=float("inf"))
    assert refusal.value.retry_after_seconds == 3.0


@pytest.mark.parametrize("function", [lambda feed: feed, lambda _: 1 / 0])
async def test_a_function_that_does_not_deliver_has_failed(function: object) -> None:
    """A missing output or any other exception is InferenceFailed."""
    upstream = MemoryUpstream(function, Signature(X, Y, True), ManualClock())  # type: ignore[arg-type]

    with pytest.raises(InferenceFailed):
        await upstream.infer(FEED, rows=1, outputs=(), deadline=float("inf"))


async def test_it_reports_the_clocks_time() -> None:
    """A function that advances the clock is a slow model."""
    clock = ManualClock()

    def slow(feed: Feed) -> Feed:
        clock.advance(2.0)
        return {"Y": feed["X"]}

    upstream = MemoryUpstream(slow, Signature(X, Y, True), clock)
    waiter = upstream.infer(FEED, rows=1, outputs=(), deadline=clock.monotonic() + 10)
    clock.advance(1.0)

    got = await asyncio.wait_for(waiter, 30)

    assert (got.queue_seconds, got.compute_seconds, got.batch_rows) == (1.0, 2.0, 1)
