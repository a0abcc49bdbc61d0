"""Waiting for what another process does: looked at again and again, and not for ever."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_NEVER = "it never came to that"


def until(
    holds: Callable[[], T], what: str = _NEVER, *, seconds: float = 60.0, pause: float = 0.02
) -> T:
    """Wait until something holds, and give it.

    Raises:
        AssertionError: with `what`, after `seconds`.
    """
    give_up = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < give_up, what
        time.sleep(pause)
    return found


async def soon(holds: Callable[[], T], *, seconds: float = 20.0, pause: float = 0.01) -> T:
    """Wait until something holds that this loop brings about; the loop goes on meanwhile."""
    async with asyncio.timeout(seconds):
        while not (found := holds()):
            await asyncio.sleep(pause)
        return found
