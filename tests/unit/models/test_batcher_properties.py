"""What must hold for any sizes, any interleaving, any cancellations: with real sessions."""

import asyncio
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import model_kit
import msgspec
import numpy as np
import onnx_models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.clock import SystemClock
from serving.errors import InferenceFailed
from serving.metrics import MetricsFile
from serving.models import probe
from serving.models.batcher import Batcher
from serving.models.session import Session
from serving.models.waiting import Inference

BOUND = 60.0
MAX_ROWS = 8

MODELS = {
    "doubler": onnx_models.doubler(2),
    "simple": onnx_models.simple(),
    "identity": onnx_models.identity("INT64"),
    "text": onnx_models.string_identity(),
    "bfloat16": onnx_models.identity("BF16"),
    "free": onnx_models.flexible_identity("FP64"),
    "mlp": onnx_models.mlp(),
    "batch mean": onnx_models.batch_mean(),
}


class Sent(msgspec.Struct):
    """One request of an example: rows, wanted outputs, and when its caller leaves."""

    rows: int
    seed: int
    free: int
    wish: int
    urgency: int
    shadow: bool
    turns: int
    leaves: int | None


REQUESTS = st.lists(
    st.builds(
        Sent,
        rows=st.integers(1, MAX_ROWS),
        seed=st.integers(0, 9),
        free=st.integers(1, 2),
        wish=st.integers(0, 5),
        urgency=st.integers(0, 5),
        shadow=st.sampled_from([False, False, False, True]),
        turns=st.integers(0, 2),
        leaves=st.sampled_from([None, None, None, 0, 1, 2]),
    ),
    min_size=1,
    max_size=25,
)


@cache
def session(name: str, in_thread: bool) -> Session:
    """Load a model once for all examples."""
    return model_kit.session(MODELS[name], limit=MAX_ROWS, in_thread=in_thread)


def wishes(one: Session) -> list[tuple[str, ...]]:
    """List ways to ask for outputs: all, each alone, reversed."""
    names = tuple(tensor.name for tensor in one.signature.outputs)
    return [(), names, names[::-1], *[(name,) for name in names]]


def feed_of(one: Session, sent: Sent) -> dict[str, Any]:
    """Make up a request's tensors; text goes in as bytes."""
    inputs = one.signature.inputs
    feed = probe.random(inputs, sent.rows, free=sent.free, seed=sent.seed)
    for tensor in inputs:
        if tensor.datatype == "BYTES":
            flat = [text.encode() for text in feed[tensor.name].flat]
            feed[tensor.name] = np.array(flat, object).reshape(feed[tensor.name].shape)
    return feed


async def drive(one: Session, requests: list[Sent]) -> list["asyncio.Future[Inference]"]:
    """Send requests turn by turn, have some callers leave, wait for all, close."""
    complaints: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as directory:
        numbers = MetricsFile(Path(directory) / "numbers")
        batcher = Batcher(
            one,
            model="m",
            version="v1",
            max_batch_size=MAX_ROWS,
            max_queue_size=1000,
            metrics=numbers,
            clock=clock,
        )
        waiters = []
        leaving: list[tuple[int, asyncio.Future[Inference]]] = []
        for sent in requests:
            ways = wishes(one)
            waiter = batcher.infer(
                feed_of(one, sent),
                rows=sent.rows,
                outputs=ways[sent.wish % len(ways)],
                deadline=clock.monotonic() + BOUND + sent.urgency,
                shadow=sent.shadow,
            )
            waiters.append(waiter)
            if sent.leaves is not None:
                leaving.append((sent.leaves, waiter))
            for _ in range(sent.turns):
                await asyncio.sleep(0)
                leaving = [
                    (turns - 1, left)
                    for turns, left in leaving
                    if not (turns <= 0 and (left.cancel() or True))
                ]
        for _, left in leaving:
            left.cancel()
        done, pending = await asyncio.wait(waiters, timeout=BOUND)
        await asyncio.wait_for(batcher.close(), BOUND)
        numbers.close()
    assert not pending
    assert len(done) == len(requests)
    # Resolving a waiter a second time raises InvalidStateError inside a callback.
    assert complaints == []
    return waiters


@pytest.mark.parametrize("in_thread", [False, True], ids=["inline", "thread"])
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12, deadline=None)
@given(requests=REQUESTS)
def test_a_batch_answers_exactly_what_single_calls_answer(
    name: str, in_thread: bool, requests: list[Sent]
) -> None:
    """Every caller who stays gets the rows a call of its own would have got, and only those."""
    one = session(name, in_thread)

    waiters = asyncio.run(drive(one, requests))

    for sent, waiter in zip(requests, waiters, strict=True):
        if waiter.cancelled():
            assert sent.leaves is not None
            continue
        ways = wishes(one)
        names = ways[sent.wish % len(ways)] or ways[1]
        alone = one.run(one.prepare(feed_of(one, sent)), names)
        for together, single in zip(waiter.result().outputs, alone, strict=True):
            assert together.shape == single.shape
            assert together.dtype == single.dtype
            if name == "mlp" and single.dtype.kind == "f":
                # Matrix products are summed in another order for other batch sizes.
                np.testing.assert_allclose(together, single, rtol=1e-6, atol=1e-6)
            else:
                assert np.array_equal(together, single)


@pytest.mark.parametrize("in_thread", [False, True], ids=["inline", "thread"])
@settings(max_examples=20, deadline=None)
@given(
    indices=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=4), min_size=1, max_size=20)
)
def test_in_any_mixture_exactly_the_bad_requests_fail(
    in_thread: bool, indices: list[list[int]]
) -> None:
    """The table has ten entries: a request fails if, and only if, it reaches beyond them."""
    one = picky(in_thread)

    async def run() -> list["asyncio.Future[Inference]"]:
        clock = SystemClock()
        with tempfile.TemporaryDirectory() as directory:
            numbers = MetricsFile(Path(directory) / "numbers")
            batcher = Batcher(
                one,
                model="m",
                version="v1",
                max_batch_size=MAX_ROWS,
                max_queue_size=1000,
                metrics=numbers,
                clock=clock,
            )
            waiters = [
                batcher.infer(
                    {"X": np.array(values).reshape(-1, 1)},
                    rows=len(values),
                    outputs=("Y",),
                    deadline=clock.monotonic() + BOUND,
                )
                for values in indices
            ]
            await asyncio.wait(waiters, timeout=BOUND)
            await asyncio.wait_for(batcher.close(), BOUND)
            numbers.close()
            return waiters

    for values, waiter in zip(indices, asyncio.run(run()), strict=True):
        if max(values) > 9:
            assert isinstance(waiter.exception(), InferenceFailed)
        else:
            assert waiter.result().outputs[0].ravel().tolist() == [10 * v for v in values]


@cache
def picky(in_thread: bool) -> Session:
    """Load the model that fails beyond its table once."""
    return model_kit.session(onnx_models.picky(10), limit=MAX_ROWS, in_thread=in_thread)
