"""End background tasks for certain."""

import asyncio
from typing import Any, Final

__all__ = ["end"]

_AGAIN_SECONDS: Final = 0.1


async def end(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait until they are over; their results and errors are dropped.

    Asking once is not enough on Python 3.11: `asyncio.wait_for` forgets a cancellation that
    arrives together with its result (bpo-37658, mended in 3.12), redis-py sends every command
    under one, and a loop that never ends then keeps its waiter for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at, or asyncio complains that nobody did
