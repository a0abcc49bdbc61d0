"""Time as a collaborator: durations from the monotonic clock, event times from the wall clock."""

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Where code asks for the time, so that tests can pass it in."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def thread_time(self) -> float:
        """Seconds for which the calling thread had a core; costs a system call."""
        ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    thread_time = staticmethod(time.thread_time)


class ManualClock:
    """A clock that moves when told to; ships so that users can test policies too."""

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Seconds, as last set."""
        return self._monotonic

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, as last set."""
        return self._wall

    def thread_time(self) -> float:
        """Like `monotonic`: whoever moves this clock pretends to work."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move all clocks forward together."""
        self._monotonic += seconds
        self._wall += seconds
