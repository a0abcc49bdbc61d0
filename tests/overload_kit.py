"""Overload in simulated time: a real batcher on an event loop whose clock the simulation moves.

Nothing waits and nothing is measured, so a minute takes a second or two and comes out the same each
time. What costs time is said: a run of the model, and what the loop does for a request.
"""

import asyncio
import selectors
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from model_kit import Feed, FunctionRunner, row
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded, Overloaded
from serving.metrics import MetricsFile
from serving.models.batcher import Batcher
from serving.models.lane import Lane
from serving.models.waiting import Inference

__all__ = ["Arrival", "Ended", "Tally", "poisson", "simulate"]

LOOP_SECONDS = 100e-6
"""What the loop spends on a request that is taken: read, decode, join, answer."""

REFUSED_SECONDS = 70e-6
"""And on one that is refused."""


class Arrival(msgspec.Struct, frozen=True):
    """A request: when it comes, and how many seconds it has."""

    at: float
    within: float
    kind: str = ""


class Ended(msgspec.Struct, frozen=True):
    """What became of one: `good`, `late`, `refused` or `expired`, and when."""

    arrival: Arrival
    how: str
    at: float

    @property
    def took(self) -> float:
        """Seconds from when it came."""
        return self.at - self.arrival.at


class Tally(msgspec.Struct):
    """What became of all, in the order in which they ended."""

    ended: list[Ended] = msgspec.field(default_factory=list)

    def among(self, *, since: float = 0.0, until: float = 1e9, kind: str = "") -> "Tally":
        """Those that came in this time, and are of this kind if one is named."""
        return Tally(
            [
                one
                for one in self.ended
                if since <= one.arrival.at < until and kind in ("", one.arrival.kind)
            ]
        )

    def count(self, how: str) -> int:
        """How many ended so."""
        return sum(one.how == how for one in self.ended)

    def share(self, how: str) -> float:
        """Their share of all."""
        return self.count(how) / len(self.ended)


def poisson(rate: float, seconds: float, within: float, *, seed: int, kind: str = "") -> Any:
    """Random arrivals at so many a second, each with so many seconds."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.exponential(1 / rate, int(rate * seconds * 1.2) + 50))
    return [Arrival(float(at), within, kind) for at in times[times < seconds]]


class _NoWait(selectors.SelectSelector):
    """Finds nothing ready, and moves the clock by the time it would have waited."""

    loop: "_Loop"

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the time pass."""
        assert timeout is not None, "the simulation waits for something that will never come"
        self.loop.now += max(timeout, 0.0)
        return []


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in simulated seconds; `thread_now` while the model's thread is played."""

    def __init__(self) -> None:
        self.now = 0.0
        self.thread_now: float | None = None
        selector = _NoWait()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """From the model's thread: when it has got there."""
        if self.thread_now is None:
            return super().call_soon_threadsafe(callback, *args, context=context)
        return self.call_at(self.thread_now, callback, *args, context=context)

    # The clock of the batcher.

    def monotonic(self) -> float:
        """Now, on whichever thread this is."""
        return self.now if self.thread_now is None else self.thread_now

    def wall(self) -> float:
        """The same."""
        return self.monotonic()

    def thread_time(self) -> float:
        """The same: nothing here waits for the interpreter."""
        return self.monotonic()

    def spend(self, seconds: float) -> None:
        """Be busy."""
        if self.thread_now is None:
            self.now += seconds
        else:
            self.thread_now += seconds


class _Lane(Lane):
    """The model's thread: a call begins when it is posted and takes what it spends."""

    def __init__(self, loop: _Loop) -> None:
        super().__init__("simulated")
        self._loop = loop

    def post(self, call: Callable[[], object]) -> None:
        self._loop.thread_now = self._loop.now
        call()
        self._loop.thread_now = None


class _Runner(FunctionRunner):
    """A model of which a run takes `seconds(now, rows)`."""

    def __init__(
        self, loop: _Loop, seconds: Callable[[float, int], float], *, batchable: bool
    ) -> None:
        super().__init__(batchable=batchable, seconds=seconds(0.0, 1))
        self._loop = loop
        self._seconds = seconds

    def run(self, feed: Feed, outputs: Sequence[str], stop: Any = None) -> list[NDArray[Any]]:
        """Spend the time."""
        del outputs, stop
        self._loop.spend(self._seconds(self._loop.monotonic(), len(feed["X"])))
        return [feed["X"]]


def simulate(
    arrivals: Iterable[Arrival],
    seconds: Callable[[float, int], float],
    *,
    batchable: bool = False,
    queue: int = 256,
) -> Tally:
    """Send requests to a batcher of a model of which a run takes `seconds(now, rows)`.

    A request that comes while the loop is busy is seen when it no longer is, and its deadline
    counts from then, as with what waits in a socket; whether it is good counts from when it came.
    """
    loop = _Loop()
    tally = Tally()
    due = sorted(arrivals, key=lambda one: one.at)

    async def run() -> None:
        metrics = MetricsFile(Path(folder) / "simulated.metrics")
        batcher = Batcher(
            _Runner(loop, seconds, batchable=batchable),
            model="m",
            version="v1",
            max_batch_size=64,
            max_queue_size=queue,
            metrics=metrics,
            clock=loop,
            lane=_Lane(loop),
        )
        waiting: set[asyncio.Future[Inference]] = set()

        def arrive(one: Arrival) -> None:
            try:
                waiter = batcher.infer(
                    row(1.0), rows=1, outputs=("Y",), deadline=loop.now + one.within
                )
            except (Overloaded, DeadlineExceeded):
                loop.spend(REFUSED_SECONDS)
                tally.ended.append(Ended(one, "refused", loop.now))
                return
            loop.spend(LOOP_SECONDS)
            waiting.add(waiter)
            waiter.add_done_callback(lambda waiter: end(one, waiter))

        def end(one: Arrival, waiter: "asyncio.Future[Inference]") -> None:
            waiting.discard(waiter)
            if waiter.exception() is not None:
                how = "expired"
            else:
                how = "good" if loop.now <= one.at + one.within else "late"
            tally.ended.append(Ended(one, how, loop.now))

        for one in due:
            loop.call_at(one.at, arrive, one)
        await asyncio.sleep(due[-1].at + 1e-6)
        while waiting:
            await asyncio.wait(waiting)
        await batcher.close()
        metrics.close()

    try:
        with tempfile.TemporaryDirectory() as folder:
            loop.run_until_complete(run())
    finally:
        loop.close()
    assert len(tally.ended) == len(due), "everybody is answered exactly once"
    return tally
