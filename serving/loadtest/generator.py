"""Sends each request when it is due, whatever became of those before: an open loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from serving.loadtest.alarm import Alarm
from serving.loadtest.outcomes import Outcomes
from serving.loadtest.turns import Turns

__all__ = ["Client", "Generator"]

_AT_ONCE: Final = 64
"""Requests sent before the loop may read answers again, if the generator is behind."""

_SWEEP_SECONDS: Final = 0.05
_GRACE_SECONDS: Final = 5.0
"""How much longer than anybody waits the run may last, should a request never end."""


class Client(Protocol):
    """Connections to a listener."""

    async def open(self) -> None:
        """Connect."""
        ...

    def free(self) -> bool:
        """Whether a request can leave now."""
        ...

    def send(self, index: int) -> None:
        """Send a request."""
        ...

    def give_up(self) -> None:
        """End requests that have waited too long."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class Generator:
    """The sending of one process's requests.

    A request that finds no connection free waits for one, in order; the queue holds what is due and
    not yet over, and what is over before its turn never leaves.
    """

    def __init__(self, turns: Turns, outcomes: Outcomes) -> None:
        self.due = 0
        """Requests whose time has come so far."""

        self.cpu_share = 0.0
        self.interrupted = False
        self._turns = turns
        self._outcomes = outcomes
        self._waiting: deque[int] = deque()
        self._patience = min(turns.timeout, turns.deadline or math.inf)
        self._stopping = False
        self._client: Client | None = None
        self._finished = asyncio.Event()
        self._alarm = Alarm(self._ring)

    async def run(self, client: Client, start: float, sweep: Callable[[], None]) -> None:
        """Send everything from `time.monotonic()` = `start` on; return when all has ended.

        `sweep` is called some times a second.
        """
        self._client = client
        self._turns.start = start
        self._alarm.set(start)
        sweeper = asyncio.create_task(self._sweep(sweep))
        await asyncio.sleep(max(start - time.monotonic(), 0.0))
        cpu, wall = time.thread_time(), time.monotonic()
        await self._finished.wait()
        # The loop's own thread: when that is busy, requests are late.
        self.cpu_share = (time.thread_time() - cpu) / max(time.monotonic() - wall, 1e-9)
        sweeper.cancel()
        self._alarm.close()

    def stop(self) -> None:
        """Send nothing more; what has left may still be answered."""
        if self.due < len(self._turns) or self._waiting or self._outcomes.in_flight:
            self.interrupted = True
        self._stopping = True
        self._end()

    def freed(self) -> None:
        """A connection can take another request."""
        waiting, client = self._waiting, self._client
        while waiting and client is not None and client.free():
            index = waiting.popleft()
            now = self._turns.now()
            if now - self._turns.times[index] > self._patience:
                self._outcomes.unsent(index, now)
            else:
                self._outcomes.wait[index] = now - self._turns.times[index]
                client.send(index)
        self._end()

    def _ring(self) -> None:
        turns, outcomes, client = self._turns, self._outcomes, self._client
        assert client is not None
        times, last = turns.times, len(turns)
        for _ in range(_AT_ONCE):
            if self.due >= last or self._stopping:
                self._end()
                return
            index = self.due
            late = turns.now() - times[index]
            if late < 0:
                break
            self.due += 1
            outcomes.lag[index] = late
            if self._waiting or not client.free():
                self._waiting.append(index)
            else:
                client.send(index)
        if self.due < last:
            self._alarm.set(turns.start + times[self.due])
        else:
            self._end()

    def _end(self) -> None:
        nothing_left = self._stopping or (self.due >= len(self._turns) and not self._waiting)
        if nothing_left and not self._outcomes.in_flight:
            self._finished.set()

    async def _sweep(self, sweep: Callable[[], None]) -> None:
        """Several times a second: end what has waited too long."""
        turns = self._turns
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            if self._client is not None:
                self._client.give_up()
            now = turns.now()
            while self._waiting and now - turns.times[self._waiting[0]] > self._patience:
                self._outcomes.unsent(self._waiting.popleft(), now)
            sweep()
            self._end()
            last = turns.times[-1] if len(turns) else 0.0
            if now > last + turns.timeout + _GRACE_SECONDS:
                self._finished.set()
