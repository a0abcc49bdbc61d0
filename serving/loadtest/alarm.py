"""Waking an event loop at an exact time.

Timers of libuv and of asyncio's selectors are rounded to milliseconds, which would have requests
that are due in the same one leave together. Linux's timerfd (timerfd_create(2)) wakes the loop like
a socket, within 0.1 ms even on a busy machine (docs/decisions.md, "Load tests").
"""

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Final

__all__ = ["Alarm"]

_MONOTONIC: Final = 1
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE: Final = 1


class _Spec(ctypes.Structure):
    """`struct itimerspec`: no interval, then the time."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class Alarm:
    """Calls `ring` in the running loop at the time set last; times are `time.monotonic()`."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_MONOTONIC, _FLAGS)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._wake)

    def set(self, at: float) -> None:
        """Ring at this time, at once if it is past, and no more at the one set before."""
        if self._fd < 0:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._loop.time() + at - _now(), self._ring)
            return
        seconds = int(at)
        # All zeros would turn it off.
        spec = _Spec(0, 0, seconds, max(int((at - seconds) * 1e9), 1))
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(spec), None)

    def close(self) -> None:
        """Never ring again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            self._ring()


def _now() -> float:
    import time  # noqa: PLC0415 - only where there is no timerfd

    return time.monotonic()
