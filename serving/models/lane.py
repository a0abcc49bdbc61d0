"""A thread that makes calls one after another."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["Lane"]

T = TypeVar("T")


class Lane:
    """One thread that makes calls in the order they were posted.

    It starts with the first call. Being a daemon it never holds up the end of the process:
    a run that cannot be stopped would. The queue has no bound of its own; a batcher posts
    one run at a time, and loading posts one call per model version.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # what it holds must not live until the next one comes

    def post(self, call: Callable[[], object]) -> None:
        """Make a call in the thread, soon. It must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)

    async def call(self, work: Callable[[], T]) -> T:
        """Make a call in the thread and wait for what it returns or raises.

        Cancelling the wait does not stop the call; its outcome is then forgotten.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if waiter.done():
                return
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(result)  # type: ignore[arg-type] # None only if T allows it

        def run() -> None:
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                failure = error
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, failure)

        self.post(run)
        return await waiter

    def close(self) -> None:
        """Let the thread end after the calls already posted."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread = None
