"""One thread for all calls into Ray: they block, and Ray's servers live as long as it does."""

import asyncio
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["RayThread", "take_signals_back"]

T = TypeVar("T")


class RayThread:
    """Makes calls one after the other, in a thread that lives as long as this process."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._make_calls, name="ray", daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` there; what it raises is raised here."""
        outcome: Future[T] = Future()

        def make() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        self._calls.put(make)
        return await asyncio.wrap_future(outcome)

    def _make_calls(self) -> None:
        while True:
            self._calls.get()()


def take_signals_back() -> None:
    """Ray's core has put its own handlers over Python's; ours are to decide what a signal means."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.getsignal(number))
        signal.siginterrupt(number, False)
