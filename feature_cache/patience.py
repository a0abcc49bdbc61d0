"""Ends waits that take too long, all of them with one timer."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Patience"]

_Due = tuple[float, "asyncio.Future[Any]", Any]
"""When somebody has waited long enough (loop seconds), by what, and the result to go on with."""


class Patience:
    """Gives a waiter that waits too long its result. Needs a running loop.

    Args:
        seconds: anybody waits at most.
        gave_up: called when a waiter has, with the loop's time.
    """

    __slots__ = ("_due", "_gave_up", "_loop", "_timer", "seconds")

    def __init__(self, seconds: float, gave_up: Callable[[float], None]) -> None:
        self.seconds = seconds
        self._gave_up = gave_up
        self._loop = asyncio.get_running_loop()
        self._due: deque[_Due] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def limit(
        self, waiter: "asyncio.Future[Any]", now: float, deadline: float, result: Any
    ) -> None:
        """Have a wait that begins now end with `result`: by `deadline`, and after `seconds`."""
        usual = now + self.seconds
        if deadline < usual:
            handle = self._loop.call_at(deadline, self._give_up, waiter, result)
            waiter.add_done_callback(lambda _: handle.cancel())
            return
        due = self._due
        while due and due[0][1].done():  # or a long wait would keep all waiters until then
            due.popleft()
        due.append((usual, waiter, result))
        if self._timer is None:
            self._timer = self._loop.call_at(usual, self._overdue)

    def _overdue(self) -> None:
        """With the same seconds for all, waiters run out in the order they came."""
        now, due = self._loop.time(), self._due
        self._timer = None
        while due and (due[0][0] <= now or due[0][1].done()):
            _, waiter, result = due.popleft()
            if not waiter.done():
                # A busy loop is late everywhere: what has come meanwhile is read first.
                self._loop.call_soon(self._give_up, waiter, result)
        if due:
            self._timer = self._loop.call_at(due[0][0], self._overdue)

    def _give_up(self, waiter: "asyncio.Future[Any]", result: Any) -> None:
        if not waiter.done():
            self._gave_up(self._loop.time())
            waiter.set_result(result)

    def close(self) -> None:
        """Let everybody go who still waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._due:
            _, waiter, result = self._due.popleft()
            if not waiter.done():
                waiter.set_result(result)
