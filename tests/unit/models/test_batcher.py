"""Batches: what shares a run, in which order, where it runs, and how a batcher ends."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from batcher_kit import BOUND, Bench, Gate, answers
from model_kit import FunctionRunner, row

from serving import metrics
from serving.clock import SystemClock
from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotReady,
)
from serving.models.waiting import Inference


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Provide a clock and a metrics file."""
    with Bench(tmp_path / "numbers.metrics") as made:
        yield made


# --- batches ---------------------------------------------------------------------------------


async def test_what_arrives_in_one_turn_of_the_loop_shares_a_run(bench: Bench) -> None:
    """Nothing waits for company, and company that is there is taken along."""
    runner = FunctionRunner()
    batcher = bench.batcher(runner)

    got = await answers(bench.send(batcher, 1), bench.send(batcher, 2, 3), bench.send(batcher, 4))

    assert got == [[2], [4, 6], [8]]
    assert runner.runs == [[1, 2, 3, 4]]


async def test_a_lone_request_runs_in_the_next_turn(bench: Bench) -> None:
    """Its future is done after the loop has gone round once."""
    waiter = bench.send(bench.batcher(FunctionRunner()), 5)
    assert not waiter.done()

    await asyncio.sleep(0)

    assert waiter.result().batch_rows == 1
    assert waiter.result().outputs[0].tolist() == [[10]]


def test_requests_of_sixteen_sockets_share_runs_on_uvloop(tmp_path: Path) -> None:
    """Sockets that are ready in one turn are all read before the batch is run."""

    async def serve() -> list[float]:
        bench = Bench(tmp_path / "numbers")
        runner = FunctionRunner()
        batcher = bench.batcher(runner)
        waiters: list[asyncio.Future[Inference]] = []
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(16)]

        def readable(one: socket.socket) -> None:
            waiters.append(bench.send(batcher, float(one.recv(1)[0])))
            if len(waiters) == 16:
                arrived.set()

        for i, (near, far) in enumerate(pairs):
            near.setblocking(False)
            loop.add_reader(near, readable, near)
            far.send(bytes([i]))
        await asyncio.wait_for(arrived.wait(), BOUND)
        await answers(*waiters)
        for near, far in pairs:
            loop.remove_reader(near)
            near.close()
            far.close()
        bench.metrics.close()
        return [len(run) for run in runner.runs]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        sizes = loop.run(serve())

    assert sum(sizes) == 16
    assert max(sizes) > 1


async def test_a_batch_stops_at_max_batch_size(bench: Bench) -> None:
    """What does not fit waits for the next run."""
    runner = FunctionRunner(limit=4)
    batcher = bench.batcher(runner, rows=4)

    await answers(*[bench.send(batcher, i) for i in range(10)])

    assert [len(run) for run in runner.runs] == [4, 4, 2]


async def test_runs_go_by_deadline(bench: Bench) -> None:
    """The most urgent request runs first, whenever it came."""
    runner = FunctionRunner(limit=1)
    batcher = bench.batcher(runner, rows=1)

    await answers(*[bench.send(batcher, s, within=s) for s in (30, 10, 20, 40)])

    assert runner.runs == [[10], [20], [30], [40]]


async def test_a_model_that_mixes_rows_gets_one_request_per_run(bench: Bench) -> None:
    """However many wait, and whatever their first dimension."""
    runner = FunctionRunner(batchable=False, limit=1)
    batcher = bench.batcher(runner, rows=2)

    got = await answers(bench.send(batcher, 1), bench.send(batcher, 2, 3, 4))

    assert got == [[2], [4, 6, 8]]
    assert runner.runs == [[1], [2, 3, 4]]


async def test_an_answer_says_how_long_it_took_and_in_what_company(bench: Bench) -> None:
    """Queue and compute seconds are the clock's, rows those of the whole run."""

    def take_two_seconds(x: np.ndarray) -> np.ndarray:
        bench.clock.advance(2.0)
        return x

    batcher = bench.batcher(FunctionRunner(take_two_seconds))
    first = bench.send(batcher, 1)
    bench.clock.advance(0.5)
    second = bench.send(batcher, 2)

    await answers(first, second)

    assert (first.result().queue_seconds, second.result().queue_seconds) == (0.5, 0.0)
    assert first.result().compute_seconds == second.result().compute_seconds == 2.0
    assert first.result().batch_rows == second.result().batch_rows == 2


async def test_runs_are_counted_by_size(bench: Bench) -> None:
    """Batch sizes, runs and their seconds are in the metrics file, queue length too."""
    batcher = bench.batcher(FunctionRunner(lambda x: (bench.clock.advance(0.25), x)[1]))
    await answers(bench.send(batcher, 1), bench.send(batcher, 2))
    await answers(bench.send(batcher, 3))

    samples = metrics.read(bench.metrics.path)

    assert samples["sluice_batches_total", ("m", "v1", "2")] == [1.0]
    assert samples["sluice_batch_seconds_total", ("m", "v1", "2")] == [0.25]
    assert samples["sluice_batches_total", ("m", "v1", "1")] == [1.0]
    assert samples["sluice_batch_rows", ("m", "v1")][-1] == 3.0
    assert samples["sluice_queue_requests", ("m", "v1")] == [0.0]


# --- the thread ------------------------------------------------------------------------------


async def test_a_long_run_leaves_the_loop_free_and_gathers_the_next_batch(bench: Bench) -> None:
    """What arrives while the thread is busy forms the next run."""
    gate = Gate()
    runner = FunctionRunner(gate, seconds=0.001)
    batcher = bench.batcher(runner)
    first = bench.send(batcher, 1)
    await asyncio.to_thread(gate.entered.wait, BOUND)

    others = [bench.send(batcher, i) for i in (2, 3)]
    waiting = metrics.read(bench.metrics.path)["sluice_queue_requests", ("m", "v1")]
    gate.opened.set()

    assert await answers(first, *others) == [[2], [4], [6]]
    assert runner.runs == [[1], [2, 3]]
    assert waiting == [2.0]


async def test_a_queued_request_ends_at_its_deadline_while_the_session_is_busy(
    bench: Bench,
) -> None:
    """It does not have to wait for the run in front of it, which has more time."""
    gate = Gate()
    runner = FunctionRunner(gate, seconds=0.001, limit=1)
    clock = SystemClock()
    batcher = bench.batcher(runner, rows=1, clock=clock)
    feed: dict[str, Any] = {"rows": 1, "outputs": ("Y",)}
    running = batcher.infer(row(1), deadline=clock.monotonic() + BOUND, **feed)
    await asyncio.to_thread(gate.entered.wait, BOUND)

    queued = batcher.infer(row(2), deadline=clock.monotonic() + 0.05, **feed)
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(queued, BOUND)

    assert not running.done()
    gate.opened.set()
    assert await answers(running) == [[2]]
    assert runner.runs == [[1]]


async def test_a_run_past_its_deadline_is_not_waited_for_and_is_stopped(bench: Bench) -> None:
    """Running and queued requests end at their deadlines; then the run itself is ended."""
    runner = FunctionRunner(seconds=0.001, limit=1)
    stopped = threading.Event()

    def until_stopped(_: np.ndarray) -> np.ndarray:
        if runner.switches[-1].set.wait(BOUND):
            stopped.set()
        raise InferenceFailed("terminated")

    runner.function = until_stopped
    clock = SystemClock()
    batcher = bench.batcher(runner, rows=1, clock=clock)
    feed: dict[str, Any] = {"rows": 1, "outputs": ("Y",)}
    running = batcher.infer(row(1), deadline=clock.monotonic() + 0.05, **feed)
    await asyncio.sleep(0)
    queued = batcher.infer(row(2), deadline=clock.monotonic() + 0.02, **feed)

    for waiter in (queued, running):
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(waiter, BOUND)

    assert await asyncio.to_thread(stopped.wait, BOUND)
    assert len(runner.runs) == 1
    assert batcher.expired == 2
    await asyncio.wait_for(batcher.close(), BOUND)
    assert runner.times.expect(1) > 0.05


# --- the end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-6, 1.0], ids=["inline", "thread"])
async def test_closing_finishes_what_is_queued_then_refuses(bench: Bench, seconds: float) -> None:
    """Production and shadow requests are answered; new ones are not taken."""
    batcher = bench.batcher(FunctionRunner(seconds=seconds))
    waiters = [bench.send(batcher, i, shadow=i == 2) for i in range(3)]

    closing = asyncio.ensure_future(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(ModelNotReady):
        bench.send(batcher, 9)
    await asyncio.wait_for(closing, BOUND)

    assert sorted(await answers(*waiters)) == [[0], [2], [4]]
    await asyncio.wait_for(batcher.close(), BOUND)


async def test_giving_up_on_closing_ends_everybody(bench: Bench) -> None:
    """When the wait is cancelled the run is stopped and all waiters get ModelNotReady."""
    runner = FunctionRunner(seconds=1.0, limit=1)
    entered = threading.Event()

    def until_stopped(x: np.ndarray) -> np.ndarray:
        entered.set()
        assert runner.switches[-1].set.wait(BOUND)
        return x

    runner.function = until_stopped
    batcher = bench.batcher(runner, rows=1)
    running = bench.send(batcher, 1, within=1e6)
    await asyncio.to_thread(entered.wait, BOUND)
    queued, shadow = bench.send(batcher, 2, within=1e6), bench.send(batcher, 3, shadow=True)
    closing = asyncio.ensure_future(batcher.close())
    await asyncio.sleep(0)

    closing.cancel()
    await asyncio.wait([closing, running, queued, shadow], timeout=BOUND)

    for waiter in (running, queued, shadow):
        assert isinstance(waiter.exception(), ModelNotReady)
    assert runner.switches[-1].terminate
    await asyncio.wait_for(batcher.close(), BOUND)
