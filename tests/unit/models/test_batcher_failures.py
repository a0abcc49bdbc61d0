"""One of a batch fails or leaves, and the others do not notice."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import model_kit
import numpy as np
import pytest
from batcher_kit import BOUND, Bench, Gate, answers
from model_kit import FunctionRunner, row

from serving import metrics
from serving.errors import (
    InferenceFailed,
    InvalidRequest,
)
from serving.models.waiting import Inference


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Provide a clock and a metrics file."""
    with Bench(tmp_path / "numbers.metrics") as made:
        yield made


async def test_only_the_guilty_request_of_a_batch_fails(bench: Bench) -> None:
    """Its companions are answered, and only runs that answered are counted."""

    def refuse_nine(x: np.ndarray) -> np.ndarray:
        if 9.0 in x:
            raise InferenceFailed("nine")
        return x * 2

    batcher = bench.batcher(FunctionRunner(refuse_nine))
    good, guilty, fine = bench.send(batcher, 1), bench.send(batcher, 9), bench.send(batcher, 2)

    assert await answers(good, fine) == [[2], [4]]

    with pytest.raises(InferenceFailed):
        guilty.result()
    samples = metrics.read(bench.metrics.path)
    assert samples["sluice_batches_total", ("m", "v1", "1")] == [2.0]
    assert good.result().batch_rows == 1


async def test_a_failed_run_lets_go_of_its_arrays(bench: Bench) -> None:
    """No traceback keeps a request's tensors alive until the collector happens to come by."""

    def fail(_: np.ndarray) -> np.ndarray:
        raise InferenceFailed("always")

    batcher = bench.batcher(FunctionRunner(fail))
    gc.disable()
    try:
        feed = row(1)
        array = weakref.ref(feed["X"])
        waiter = batcher.infer(feed, rows=1, outputs=("Y",), deadline=bench.clock.monotonic() + 1)
        await asyncio.wait([waiter], timeout=BOUND)
        del feed
        await asyncio.sleep(0)

        assert array() is None
        assert isinstance(waiter.exception(), InferenceFailed)
    finally:
        gc.enable()


async def test_one_cancelled_caller_does_not_disturb_its_batch(bench: Bench) -> None:
    """The rest of a batch is answered when one member left before the run."""
    runner = FunctionRunner()
    batcher = bench.batcher(runner)
    first, second = bench.send(batcher, 1), bench.send(batcher, 2)

    first.cancel()

    assert await answers(second) == [[4]]
    assert runner.runs == [[2]]


async def test_a_caller_who_leaves_during_the_run_does_not_disturb_it(bench: Bench) -> None:
    """The rest of a batch in the thread is answered when one member leaves meanwhile."""
    gate = Gate()
    batcher = bench.batcher(FunctionRunner(gate, seconds=1.0))
    first, second = bench.send(batcher, 1), bench.send(batcher, 2)
    await asyncio.to_thread(gate.entered.wait, BOUND)

    first.cancel()
    gate.opened.set()

    assert await answers(second) == [[4]]


async def test_if_everybody_left_nothing_runs(bench: Bench) -> None:
    """And the batcher goes on."""
    runner = FunctionRunner()
    batcher = bench.batcher(runner)
    for waiter in [bench.send(batcher, i) for i in range(3)]:
        waiter.cancel()
    await asyncio.sleep(0)

    assert await answers(bench.send(batcher, 7)) == [[14]]
    assert runner.runs == [[7]]


async def test_bytes_that_are_not_text_fail_their_own_request_only(bench: Bench) -> None:
    """They are found before the request can join a batch."""
    import onnx_models

    session = model_kit.session(onnx_models.string_identity())
    batcher = bench.batcher(session)  # type: ignore[arg-type]

    def send(text: bytes) -> "asyncio.Future[Inference]":
        feed = {"INPUT0": np.array([[text]], object)}
        return batcher.infer(feed, rows=1, outputs=(), deadline=bench.clock.monotonic() + 1)

    good = send(b"good")
    with pytest.raises(InvalidRequest, match="'INPUT0'"):
        send(b"\xff")

    await asyncio.wait([good], timeout=BOUND)
    assert good.result().outputs[0].tolist() == [[b"good"]]
