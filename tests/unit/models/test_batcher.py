import asyncio
import gc
import socket
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import model_kit
import numpy as np
import pytest
import uvloop
from model_kit import FunctionRunner, row

from serving import metrics
from serving.clock import Clock, ManualClock, SystemClock
from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
)
from serving.models.batcher import Batcher
from serving.models.waiting import Inference

BOUND = 30.0
"""Seconds after which a test gives up waiting for what should happen at once."""


class Bench:
    """Builds batchers that share a clock and a metrics file."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.metrics = metrics.MetricsFile(path)

    def batcher(
        self,
        runner: FunctionRunner,
        *,
        rows: int = 64,
        queue: int = 256,
        clock: Clock | None = None,
    ) -> Batcher:
        """Put a batcher in front of a runner."""
        return Batcher(
            runner,
            model="m",
            version="v1",
            max_batch_size=rows,
            max_queue_size=queue,
            metrics=self.metrics,
            clock=clock or self.clock,
        )

    def send(
        self, batcher: Batcher, *values: float, within: float = 10.0, shadow: bool = False
    ) -> "asyncio.Future[Inference]":
        """Send one request of these rows."""
        return batcher.infer(
            row(*values),
            rows=len(values),
            outputs=("Y",),
            deadline=self.clock.monotonic() + within,
            shadow=shadow,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Provide a clock and a metrics file."""
    made = Bench(tmp_path / "numbers.metrics")
    yield made
    made.metrics.close()


class Gate:
    """Holds a run in its thread until it is opened, or the run is stopped."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Pass through when the gate opens."""
        self.entered.set()
        assert self.opened.wait(BOUND)
        return x * 2


async def answers(*waiters: "asyncio.Future[Inference]") -> list[list[float]]:
    """Await answers and flatten them."""
    done = await asyncio.wait_for(asyncio.gather(*waiters), BOUND)
    return [inference.outputs[0].ravel().tolist() for inference in done]


# --- batches ----------------------------------------------------------------------------------


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


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 5])
async def test_too_many_rows_or_none_are_refused_with_the_limit(bench: Bench, rows: int) -> None:
    """The message names the limit and its key in the configuration."""
    batcher = bench.batcher(FunctionRunner(), rows=4)

    with pytest.raises(InvalidRequest, match=rf"has {rows} rows.* 1 to 4 \(serve\.max_batch_size"):
        bench.send(batcher, *range(rows))


async def test_a_deadline_that_has_passed_costs_no_run(bench: Bench) -> None:
    """It is refused on arrival and counted."""
    runner = FunctionRunner()
    batcher = bench.batcher(runner)

    with pytest.raises(DeadlineExceeded):
        bench.send(batcher, 1, within=0.0)

    assert batcher.expired == 1
    assert runner.runs == []


async def test_a_deadline_that_passes_in_the_queue_costs_no_run(bench: Bench) -> None:
    """The run before it took too long; it is ended, and the next one is answered."""
    runner = FunctionRunner(lambda x: (bench.clock.advance(5.0), x)[1], limit=1)
    batcher = bench.batcher(runner, rows=1)
    first, late, last = (bench.send(batcher, i, within=w) for i, w in enumerate((1, 4, 60)))

    await answers(first, last)

    with pytest.raises(DeadlineExceeded):
        late.result()
    assert runner.runs == [[0], [2]]
    assert batcher.expired == 1


async def test_a_full_queue_refuses_and_says_when_to_return(bench: Bench) -> None:
    """`max_queue_size` requests wait; one more is refused at once."""
    batcher = bench.batcher(FunctionRunner(), queue=3)
    waiters = [bench.send(batcher, i) for i in range(3)]

    with pytest.raises(Overloaded, match=r"serve\.max_queue_size") as refusal:
        bench.send(batcher, 3)

    assert refusal.value.reason == "queue_full"
    assert 0 <= refusal.value.retry_after_seconds < 1
    assert await answers(*waiters) == [[0], [2], [4]]


async def test_those_who_left_make_room_in_a_full_queue(bench: Bench) -> None:
    """A cancelled request does not keep a live one out."""
    batcher = bench.batcher(FunctionRunner(), queue=2)
    first, second = bench.send(batcher, 1), bench.send(batcher, 2)
    first.cancel()

    third = bench.send(batcher, 3)

    assert await answers(second, third) == [[4], [6]]


async def test_a_request_that_could_not_be_answered_in_time_is_refused(bench: Bench) -> None:
    """With 10 ms a run, 60 % of 99 ms are spent after five runs; the rest is refused at once."""
    gate = Gate()
    runner = FunctionRunner(gate, limit=1, seconds=0.010)
    batcher = bench.batcher(runner, rows=1)
    waiters = [bench.send(batcher, 0, within=0.099)]
    await asyncio.to_thread(gate.entered.wait, BOUND)

    waiters += [bench.send(batcher, i, within=0.099) for i in range(4)]
    with pytest.raises(Overloaded) as refusal:
        bench.send(batcher, 9, within=0.099)
    patient = bench.send(batcher, 10, within=1.0)

    assert refusal.value.reason == "deadline"
    assert refusal.value.retry_after_seconds == pytest.approx(0.06)
    gate.opened.set()
    await answers(*waiters, patient)


async def test_an_idle_session_takes_whatever_comes(bench: Bench) -> None:
    """A wrong estimate cannot shut a version off: it is corrected by running."""
    runner = FunctionRunner(seconds=100.0)
    batcher = bench.batcher(runner)

    assert await answers(bench.send(batcher, 1, within=0.5)) == [[2]]


# --- failures ----------------------------------------------------------------------------------


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


# --- callers who leave ----------------------------------------------------------------------------


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


# --- the thread --------------------------------------------------------------------------------


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


# --- shadows -----------------------------------------------------------------------------------


async def test_shadows_run_after_production_and_one_by_one(bench: Bench) -> None:
    """They share no batch with production, nor with each other."""
    runner = FunctionRunner()
    batcher = bench.batcher(runner)
    shadows = [bench.send(batcher, i, within=1.0, shadow=True) for i in (7, 8)]
    production = [bench.send(batcher, i) for i in (1, 2)]

    await answers(*production, *shadows)

    assert runner.runs == [[1, 2], [7], [8]]


async def test_a_new_shadow_pushes_out_the_oldest(bench: Bench) -> None:
    """Their queue is bounded, and the newest copy is worth the most."""
    batcher = bench.batcher(FunctionRunner(), queue=2)
    oldest, *others = [bench.send(batcher, i, shadow=True) for i in range(3)]

    assert await answers(*others) == [[2], [4]]

    with pytest.raises(Overloaded) as dropped:
        oldest.result()
    assert dropped.value.reason == "shadow_dropped"


async def test_a_shadow_whose_time_is_up_is_dropped_not_late(bench: Bench) -> None:
    """It counts as dropped for lack of capacity, not as somebody's missed deadline."""
    runner = FunctionRunner(lambda x: (bench.clock.advance(5.0), x)[1])
    batcher = bench.batcher(runner)
    shadow = bench.send(batcher, 7, within=1.0, shadow=True)

    await answers(bench.send(batcher, 1))
    await asyncio.wait([shadow], timeout=BOUND)

    with pytest.raises(Overloaded, match="idle capacity"):
        shadow.result()
    assert batcher.expired == 0
    assert runner.runs == [[1]]


async def test_waiting_shadows_keep_no_production_request_out(bench: Bench) -> None:
    """They do not count against the queue or the estimate of waiting."""
    batcher = bench.batcher(FunctionRunner(seconds=1e-4), queue=2)
    shadows = [bench.send(batcher, i, shadow=True) for i in range(2)]

    got = await answers(*[bench.send(batcher, i, within=0.002) for i in range(2)])

    assert got == [[0], [2]]
    await answers(*shadows)


# --- the end -----------------------------------------------------------------------------------


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
