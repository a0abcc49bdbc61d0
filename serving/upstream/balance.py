"""Which of several hosts gets a request, which gets none for a while, and how often to try again.

Decisions only: nothing here connects, waits or knows what a host is.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

__all__ = ["EJECTED_FIRST_SECONDS", "EJECTED_LONGEST_SECONDS", "Health", "RetryBudget", "pick"]

EJECTED_FIRST_SECONDS: Final = 1.0
EJECTED_LONGEST_SECONDS: Final = 30.0
_FAILURES: Final = 3
_SMOOTHING: Final = 0.2
_LEAST_SECONDS: Final = 1e-4
"""Differences below this are noise, and a host that has answered nothing is no miracle."""


class Health:
    """One host as its answers show it: how slow, how loaded, whether it is ejected.

    Three failures in a row eject it for a second, and each further time in a row twice as long,
    at most 30 s; an answer makes all good (the shape is that of Envoy's outlier detection,
    `consecutive_gateway_failure`). Failures are what says something about the host: no
    connection, a cut one, silence until the deadline, 502, 503 and 504 — never what the model
    made of an input.
    """

    __slots__ = ("_ejections", "_failures", "ejected_until", "in_flight", "seconds")

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests that it has not answered."""

        self.seconds = 0.0
        """Smoothed time of an answer."""

        self.ejected_until = -math.inf
        """Monotonic second."""

        self._failures = 0
        self._ejections = 0

    @property
    def work(self) -> float:
        """Estimated seconds until one request more would be answered."""
        return (self.in_flight + 1) * max(self.seconds, _LEAST_SECONDS)

    def answered(self, seconds: float) -> None:
        """It gave an answer after this time."""
        self._failures = self._ejections = 0
        self.seconds += (seconds - self.seconds) * (_SMOOTHING if self.seconds else 1.0)

    def failed(self, now: float) -> bool:
        """It gave none; whether that ejects it."""
        self._failures += 1
        if self._failures < _FAILURES:
            return False
        self._failures = 0
        seconds = EJECTED_FIRST_SECONDS * 2.0 ** min(self._ejections, 16)
        self._ejections += 1
        self.ejected_until = now + min(seconds, EJECTED_LONGEST_SECONDS)
        return True


class _Host(Protocol):
    @property
    def health(self) -> Health: ...


H = TypeVar("H", bound=_Host)


def pick(
    hosts: Sequence[H], now: float, draw: Callable[[int], int], avoid: H | None = None
) -> H | None:
    """The one with less work of two drawn at random; None if there is no host.

    Two random ones instead of the least loaded of all, so that many callers with the same view
    do not all run to the same host (Mitzenmacher, The Power of Two Choices, 2001).

    Args:
        hosts: all of them.
        now: monotonic seconds.
        draw: a whole number below its argument, at random.
        avoid: the one that has just failed; taken only if there is no other.
    """
    open_ = [host for host in hosts if host.health.ejected_until <= now]
    # With most of them ejected the others would be next: then ejection is no help to anybody
    # (Envoy's panic threshold, at half).
    if 2 * len(open_) < len(hosts):
        open_ = list(hosts)
    if avoid is not None and len(open_) > 1:
        open_ = [host for host in open_ if host is not avoid]
    if len(open_) < 2:
        return open_[0] if open_ else None
    first = draw(len(open_))
    second = draw(len(open_) - 1)
    if second >= first:
        second += 1
    one, other = open_[first], open_[second]
    return one if one.health.work <= other.health.work else other


class RetryBudget:
    """Retries as a share of requests, so that they cannot multiply an outage.

    Each request earns a fifth of a retry; ten can be saved up. With everything failing, the
    load on what is left grows by a fifth at most.
    """

    EARNED: Final = 0.2
    MOST: Final = 10.0

    def __init__(self) -> None:
        self._saved = self.MOST

    def earn(self) -> None:
        """A request was sent."""
        self._saved = min(self.MOST, self._saved + self.EARNED)

    def spend(self) -> bool:
        """Whether one may be tried again; if so, it is paid for."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
