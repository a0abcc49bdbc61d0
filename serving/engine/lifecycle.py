"""The life of a supervised process, as decisions: nothing here reads, waits or kills.

A process is STARTING until it answers its first probe, then READY. If it stops answering it
is UNHEALTHY, which means a SIGKILL is on its way: a worker that is silent but alive still
holds a listening socket, and the kernel goes on handing it connections nobody will answer
(design, section 2). Whenever a process ends unasked it is BACKING_OFF, and then STARTING
again. Asked to stop, a living process is DRAINING until it exits; one that does not live is
STOPPED at once. STOPPED is where a process begins and ends.

              START            ANSWERED
    STOPPED ────────▶ STARTING ────────▶ READY
       ▲                │   ▲              │ FELL_SILENT
       │ EXITED         │   │ BACK_OFF_    ▼
    DRAINING ◀──────────┤   │ OVER      UNHEALTHY
      (STOP_ASKED from  │ BACKING_OFF ◀───┘ EXITED
       any living one)  └────▶ EXITED
"""

from enum import StrEnum
from typing import Final

__all__ = [
    "BACK_OFF_FIRST_SECONDS",
    "BACK_OFF_LONGEST_SECONDS",
    "HEALTHY_AGAIN_SECONDS",
    "NEXT",
    "Event",
    "IllegalTransition",
    "Silence",
    "State",
    "after",
    "back_off_seconds",
    "failures_after_exit",
]


class State(StrEnum):
    """Where a supervised process is in its life."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    BACKING_OFF = "backing_off"
    DRAINING = "draining"
    STOPPED = "stopped"


class Event(StrEnum):
    """What can happen to it."""

    START = "start"
    ANSWERED = "answered"
    FELL_SILENT = "fell_silent"
    EXITED = "exited"
    BACK_OFF_OVER = "back_off_over"
    STOP_ASKED = "stop_asked"


NEXT: Final[dict[tuple[State, Event], State]] = {
    (State.STOPPED, Event.START): State.STARTING,
    (State.STARTING, Event.ANSWERED): State.READY,
    (State.STARTING, Event.FELL_SILENT): State.UNHEALTHY,
    (State.STARTING, Event.EXITED): State.BACKING_OFF,
    (State.STARTING, Event.STOP_ASKED): State.DRAINING,
    (State.READY, Event.FELL_SILENT): State.UNHEALTHY,
    (State.READY, Event.EXITED): State.BACKING_OFF,
    (State.READY, Event.STOP_ASKED): State.DRAINING,
    (State.UNHEALTHY, Event.EXITED): State.BACKING_OFF,
    (State.UNHEALTHY, Event.STOP_ASKED): State.DRAINING,
    (State.BACKING_OFF, Event.BACK_OFF_OVER): State.STARTING,
    (State.BACKING_OFF, Event.STOP_ASKED): State.STOPPED,
    (State.DRAINING, Event.EXITED): State.STOPPED,
}
"""Every pair that may happen; `after` raises for the rest."""


class IllegalTransition(Exception):
    """An event that cannot happen in this state; a mistake in the supervisor, not outside it."""


def after(state: State, event: Event) -> State:
    """The state that follows. Raises IllegalTransition for a pair that is not in `NEXT`."""
    try:
        return NEXT[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} cannot happen to a process that is {state}") from None


BACK_OFF_FIRST_SECONDS: Final = 0.1
BACK_OFF_LONGEST_SECONDS: Final = 10.0
HEALTHY_AGAIN_SECONDS: Final = 30.0


def failures_after_exit(failures: int, ready_seconds: float) -> int:
    """Consecutive failures once a process has exited unasked.

    One that had been ready for `HEALTHY_AGAIN_SECONDS` has paid for its past: it counts as one.
    """
    return 1 if ready_seconds >= HEALTHY_AGAIN_SECONDS else failures + 1


def back_off_seconds(failures: int, fraction: float) -> float:
    """Wait before the next start after `failures` ≥ 1 in a row.

    0.1 s doubling to 10 s, then spread over the upper half by `fraction` in [0, 1), so that
    workers that died together do not all come back in the same instant.
    """
    doublings = min(failures - 1, 32)
    longest = min(BACK_OFF_LONGEST_SECONDS, BACK_OFF_FIRST_SECONDS * 2.0**doublings)
    return longest * (0.5 + 0.5 * fraction)


class Silence:
    """How long a process has not answered, as far as we were there to hear it.

    Time between two ticks counts for at most `longest_tick` seconds: when the supervisor
    itself was stopped or starved, the gap says nothing about the process, and without the cut
    every process would be killed the moment the supervisor wakes up.
    """

    def __init__(self, bound: float, *, longest_tick: float, now: float) -> None:
        self._bound = bound
        self._longest_tick = longest_tick
        self._ticked = now
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds without an answer."""
        return self._seconds

    def tick(self, now: float, *, answered: bool) -> bool:
        """Account for the time up to `now` (monotonic seconds); True once the bound is reached."""
        step = min(now - self._ticked, self._longest_tick)
        self._ticked = now
        self._seconds = 0.0 if answered else self._seconds + step
        return self._seconds >= self._bound
