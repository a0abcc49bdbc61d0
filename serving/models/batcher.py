"""Work-conserving batching, earliest deadline first, without a timer.

What arrives in one turn of the event loop, or while the session is busy, forms the next
batch; nothing ever waits for company. On an idle session a lone request costs a future and
a `call_soon`. While a short run holds the loop, sockets fill, and the next turn reads them
all: batches grow with load by themselves.

Runs of under 200 µs happen on the loop, longer ones in this version's own thread; which it is
is learned per batch size. Every waiter is resolved exactly once, by whoever comes first: the
answer, its deadline, its own cancellation, or the close of the batcher.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from serving.clock import Clock
from serving.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    ServingError,
)
from serving.metrics import MetricsFile
from serving.models.batch import Answer, Feed, Runner, alone, answer
from serving.models.lane import Lane
from serving.models.meter import BatchMeter
from serving.models.runtime import Stop
from serving.models.timing import Backlog
from serving.models.waiting import SHARE, DeadlineQueue, Inference, Waiter, Waiting

__all__ = ["Batcher"]

_NEVER: Final = float("inf")


class _Run:
    """A batch in the thread."""

    __slots__ = ("answers", "busy", "ended", "members", "rows", "started", "stop", "whole")

    def __init__(self, members: list[Waiting], rows: int, stop: Stop, now: float) -> None:
        self.members = members
        self.rows = rows
        self.stop = stop
        self.started = self.ended = now
        self.busy = 0.0
        self.answers: list[Answer] = []
        self.whole = False


class Batcher:
    """The queue in front of one session. Belongs to the event loop it was made in.

    Holds at most `max_queue_size` production requests; past that, or when a request could
    not be answered in time anyway, it is refused with Overloaded before it costs anything.
    Shadow requests wait in a second queue of the same size, run one by one and only when no
    production request waits; when that queue is full its oldest gives way.

    Args:
        runner: The session.
        model: Name for messages and metric labels.
        version: Name for messages and metric labels.
        max_batch_size: Most rows in one run, and so in one request. Ignored where the
            signature is not batchable: then every run is one request.
        max_queue_size: Most requests waiting, per class.
        metrics: Where runs are counted.
        clock: Whose monotonic seconds deadlines are in, and how busy a run kept its thread.
        lane: The thread for long runs; one of its own if none is given. Closed with the batcher.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        model: str,
        version: str,
        max_batch_size: int,
        max_queue_size: int,
        metrics: MetricsFile,
        clock: Clock,
        lane: Lane | None = None,
    ) -> None:
        self.expired = 0
        """Production requests that ran out of time in the queue or during their run."""
        signature = runner.signature
        self._runner = runner
        self._times = runner.times
        self._prepare = runner.prepare if runner.has_texts else None
        self._name = f"model '{model}' version '{version}'"
        self._all_outputs = tuple(one.name for one in signature.outputs)
        self._batchable = signature.batchable
        self._max_rows = max_batch_size if signature.batchable else 1
        self._max_queue = max_queue_size
        self._now = clock.monotonic
        self._thread_time = clock.thread_time
        self._loop = asyncio.get_running_loop()
        self._meter = BatchMeter(metrics, model, version)
        self._backlog = Backlog()
        self._one_run = 0.0  # seconds that a full batch is expected to take, once asked for
        self._learned = False  # something, since that was worked out
        self._lane = lane or Lane(f"sluice-{model}-{version}")
        inputs = tuple(one.name for one in signature.inputs)
        self._queue = DeadlineQueue(inputs, alive=self._alive, drop=self._drop)
        self._shadows: deque[Waiting] = deque()
        self._sequence = 0
        self._scheduled = False
        self._pruned = False
        self._running: _Run | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._closed = False
        self._drained = asyncio.Event()

    # --- arrival ------------------------------------------------------------------------

    def infer(
        self,
        feed: Feed,
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
        shadow: bool = False,
    ) -> "asyncio.Future[Inference]":
        """Queue one request; refuses at once or returns a future. Cancel the future to give up.

        Args:
            feed: Inputs by name; the first dimension of each is `rows` where the model batches.
            rows: Rows in this request.
            outputs: Names of the outputs wanted; empty means all.
            deadline: Monotonic second by which the answer is needed.
            shadow: Nobody waits: run on idle capacity only.

        Raises:
            InvalidRequest: Too many rows, none, or BYTES that are not UTF-8.
            DeadlineExceeded: The deadline has passed.
            Overloaded: The queue is full or too slow for this deadline (`reason` is
                `queue_full` or `deadline`).
            ModelNotReady: The batcher is closed.

        The future ends with InferenceFailed, DeadlineExceeded, Overloaded (`shadow_dropped`,
        shadows only) or, if closing was cut short, ModelNotReady.
        """
        waiter: asyncio.Future[Inference] = self._loop.create_future()
        self.answer(waiter, feed, rows=rows, outputs=outputs, deadline=deadline, shadow=shadow)
        return waiter

    def answer(
        self,
        waiter: Waiter,
        feed: Feed,
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
        shadow: bool = False,
    ) -> None:
        """`infer` for somebody who is told. What is refused at once is raised, and not told."""
        now = self._now()
        if not self._batchable:
            rows = 1
        if self._closed or deadline <= now or not 0 < rows <= self._max_rows:
            raise self._refusal(rows)
        if self._prepare is not None:
            feed = self._prepare(feed)
        if shadow:
            self._make_room_for_shadow()
        elif self._crowded(rows, deadline - now):
            self._admit(rows, deadline, now)
        self._sequence += 1
        outputs = outputs or self._all_outputs
        one = Waiting(deadline, self._sequence, waiter, feed, rows, outputs, now, shadow)
        if shadow:
            self._shadows.append(one)
        else:
            self._queue.push(one)
        if self._running is not None:
            self._meter.waits(len(self._queue))
            if deadline < self._timer_at:
                self._set_timer(deadline, now)
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _crowded(self, rows: int, remaining: float) -> bool:
        """Whether a request finds so many before it that its wait must be estimated.

        Not if all that waits fits one run and there is ample time for one.
        """
        return self._running is not None or (
            self._queue.rows > 0
            and (
                self._queue.rows + rows > self._times.preferred
                or len(self._queue) >= self._max_queue
                or self._full_run() >= SHARE * remaining
            )
        )

    def _full_run(self) -> float:
        """Seconds that a full batch is expected to take.

        Worked out once after a run, and only where somebody waits: who comes alone has no use for
        it, and sizes that nobody has run for long take a guess over all of them.
        """
        if self._learned:
            self._learned = False
            most = min(self._times.preferred, self._max_rows)
            self._one_run = self._times.expect(most) * self._backlog.slowdown
        return self._one_run

    def _refusal(self, rows: int) -> ServingError:
        """Say why a request cannot even be considered."""
        if self._closed:
            return ModelNotReady(f"{self._name} is being unloaded")
        if not 0 < rows <= self._max_rows:
            return InvalidRequest(
                f"the request has {rows} rows; {self._name} takes 1 to {self._max_rows} "
                "(serve.max_batch_size)"
            )
        self.expired += 1
        return DeadlineExceeded("the deadline had passed before inference")

    def _wait(self, rows: int, now: float) -> float:
        """Estimate the seconds until this many more rows have run, behind all that is queued."""
        times = self._times
        most = min(times.preferred, self._max_rows)
        total = self._queue.rows + rows
        runs = -(-total // most)
        wait = runs * times.expect(min(total, most)) * self._backlog.slowdown
        if self._running is not None:
            left = times.expect(self._running.rows) - (now - self._running.started)
            wait += max(0.0, left)
        return wait

    def _admit(self, rows: int, deadline: float, now: float) -> None:
        """Refuse a request that finds others before it, if it will not make it in time."""
        if len(self._queue) >= self._max_queue and not self._pruned:
            # Those who left make room, but not for every refusal again: that must stay cheap.
            self._pruned = True
            self._queue.prune(now)
        wait = self._wait(rows, now)
        if len(self._queue) >= self._max_queue:
            raise Overloaded(
                f"{len(self._queue)} requests are waiting for {self._name} (serve.max_queue_size)",
                wait,
                "queue_full",
            )
        if wait >= SHARE * (deadline - now) and not self._overtakes(rows, deadline, now, wait):
            raise Overloaded(
                f"{self._name} is busy: about {wait * 1e3:.0f} ms to wait with "
                f"{(deadline - now) * 1e3:.0f} ms left",
                wait,
                "deadline",
            )

    def _overtakes(self, rows: int, deadline: float, now: float, wait: float) -> bool:
        """Whether a request that cannot wait for all may go before those with more time.

        Only where runs are in the thread. The wait for a quick model is the loop's, which looking
        at everybody for every refusal only makes longer: at 6,000 requests/s of the demo that
        halved what was answered in time (docs/decisions.md, "Overload").
        """
        queue = self._queue
        return self._running is not None and queue.yields(
            deadline, rows, now, each=wait / (queue.rows + rows)
        )

    def _make_room_for_shadow(self) -> None:
        if len(self._shadows) >= self._max_queue:
            self._drop(self._shadows.popleft())

    # --- ends without an answer ---------------------------------------------------------

    def _drop(self, one: Waiting) -> None:
        """End a request for lack of time, or of idle capacity if it is a shadow."""
        if one.waiter.done():
            return
        if one.shadow:
            error: ServingError = Overloaded(
                f"{self._name} had no idle capacity for a shadow copy", reason="shadow_dropped"
            )
        else:
            self.expired += 1
            error = DeadlineExceeded("the deadline passed before the model answered")
        one.waiter.set_exception(error)

    def _alive(self, one: Waiting, now: float) -> bool:
        """Whether somebody still waits; ends the request if its deadline has passed."""
        if one.waiter.done():  # its caller hung up
            return False
        if one.deadline <= now:
            self._drop(one)
            return False
        return True

    # --- running ------------------------------------------------------------------------

    def _take_shadow(self, now: float) -> list[Waiting]:
        """Take one shadow request; alone, so that production never waits for a batch of them."""
        while self._shadows:
            one = self._shadows.popleft()
            if self._alive(one, now):
                return [one]
        return []

    def _flush(self) -> None:
        """Run the next batch, on the loop or in the thread."""
        self._scheduled = False
        if self._running is not None:
            return
        self._pruned = False
        now = self._now()
        members = self._queue.take(now, self._times, self._max_rows) or self._take_shadow(now)
        if members:
            rows = members[0].rows if len(members) == 1 else sum([one.rows for one in members])
            if self._times.slow(rows):
                self._hand_over(members, rows, now)
                return
            # Asking for CPU time is a system call; for most runs nobody needs to know.
            busy = self._thread_time() if self._times.doubtful else None
            answers, whole = self._answer(members, None)
            ended = self._now()
            if busy is not None:
                busy = self._thread_time() - busy
            self._settle(members, rows, answers, now, ended, busy=busy, whole=whole)
        self._go_on()

    def _answer(self, members: Sequence[Waiting], stop: Stop | None) -> tuple[list[Answer], bool]:
        if len(members) == 1:
            one = members[0]
            its = alone(self._runner, one.feed, one.outputs, stop)
            return [its], not isinstance(its, ServingError)
        return answer(
            self._runner,
            [one.feed for one in members],
            [one.rows for one in members],
            [one.outputs for one in members],
            stop,
        )

    def _settle(
        self,
        members: Sequence[Waiting],
        rows: int,
        answers: Sequence[Answer],
        started: float,
        ended: float,
        *,
        busy: float | None,
        whole: bool,
    ) -> None:
        """Give every member that still waits its answer, then learn from the run."""
        seconds = ended - started
        for one, its in zip(members, answers, strict=True):
            if one.waiter.done():  # its caller hung up or ran out of time
                continue
            if isinstance(its, ServingError):
                one.waiter.set_exception(its)
            else:
                together = rows if whole else one.rows
                one.waiter.set_result(Inference(its, started - one.queued_at, seconds, together))
        self._backlog.finished(ended, seconds, more=self._queue.rows > 0)
        if whole:
            self._times.observe(rows, seconds, busy)
            self._learned = True
            self._meter.ran(rows, seconds)
        else:  # its members ran one by one; their share of the time is as good as measured
            for one, its in zip(members, answers, strict=True):
                if not isinstance(its, ServingError):
                    self._meter.ran(one.rows, seconds * one.rows / rows)

    def _go_on(self) -> None:
        """Run again if anything waits, but let the sockets be read first."""
        if self._queue.rows or self._shadows:
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._flush)
        elif self._closed:
            self._drained.set()
        self._meter.waits(len(self._queue))

    # --- running in the thread ----------------------------------------------------------

    def _hand_over(self, members: list[Waiting], rows: int, now: float) -> None:
        run = _Run(members, rows, self._runner.stop_switch(), now)
        self._running = run
        self._arm(now)
        self._lane.post(partial(self._run_in_thread, run))
        self._meter.waits(len(self._queue))

    def _run_in_thread(self, run: _Run) -> None:
        busy = self._thread_time()
        run.started = self._now()
        run.answers, run.whole = self._answer(run.members, run.stop)
        run.ended = self._now()
        run.busy = self._thread_time() - busy
        with suppress(RuntimeError):  # the loop has closed, nobody waits
            self._loop.call_soon_threadsafe(self._returned, run)

    def _returned(self, run: _Run) -> None:
        """Take the thread's answers, back on the loop."""
        self._running = None
        self._disarm()
        if run.stop.terminate:
            self._times.observe_stopped(run.rows, run.ended - run.started)
        self._settle(
            run.members,
            run.rows,
            run.answers,
            run.started,
            run.ended,
            busy=run.busy,
            whole=run.whole,
        )
        self._flush()

    # --- deadlines during a run: one timer, for the earliest ----------------------------

    def _set_timer(self, deadline: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        # A loop's timers count whole milliseconds and may be early; late by one is fine.
        self._timer = self._loop.call_later(max(0.0, deadline - now) + 0.001, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, _NEVER

    def _arm(self, now: float) -> None:
        """Wake up at the earliest deadline of anybody who waits."""
        self._disarm()
        earliest = self._queue.earliest
        if self._running is not None:
            for one in self._running.members:
                if one.deadline < earliest and not one.waiter.done():
                    earliest = one.deadline
        if earliest < _NEVER:
            self._set_timer(earliest, now)

    def _expire(self) -> None:
        """End whoever's time has come while the session is busy; stop a run nobody waits for."""
        run = self._running
        if run is None:
            return
        now = self._now()
        if sum([self._alive(one, now) for one in run.members]) == 0:
            run.stop.terminate = True
        self._queue.expire(now)
        self._arm(now)
        self._meter.waits(len(self._queue))

    # --- the end ------------------------------------------------------------------------

    async def close(self) -> None:
        """Refuse new requests, finish the queued ones, then let the thread end.

        Cancelling this wait gives up: the run is stopped and whoever waits gets ModelNotReady.
        """
        self._closed = True
        try:
            if self._queue.rows or self._shadows or self._running is not None:
                await self._drained.wait()
        except asyncio.CancelledError:
            self._give_up()
            raise
        finally:
            self._lane.close()

    def _give_up(self) -> None:
        run = self._running
        left = [*self._queue.clear(), *self._shadows]
        self._shadows.clear()
        if run is not None:
            run.stop.terminate = True
            left += run.members
        for one in left:
            if not one.waiter.done():
                one.waiter.set_exception(ModelNotReady(f"{self._name} was unloaded"))
