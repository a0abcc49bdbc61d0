"""The stop at once: a canary that plainly fails, while production does not, seen by one worker."""

from collections import deque
from typing import Final

from serving.config.schema import HardStops
from serving.rollout.alone import fails_alone, nearly_all

__all__ = ["HardStop"]

_MOST: Final = 4096
"""Requests of the window that are kept; a busier worker looks at its last ones only."""


_MANY: Final = 200
_PAUSE: Final = 0.05

# Plain tuples: a named one costs as much as all the rest of a request here.
_Ended = tuple[float, bool, int | None]
"""A request of the canary: when it ended, whether it failed, the place of its key."""

_Failed = tuple[float, int | None, int]
"""A request of production that failed: when, its key's place, requests of production before it."""


class HardStop:
    """Looks at each request of the canary as it ends. Costs the same however many there were.

    Args:
        stops: as configured.
        rho: probability of the canary; 1: there is no production beside it.
    """

    def __init__(self, stops: HardStops, rho: float = 1.0) -> None:
        self._stops = stops
        self._rho = rho
        self._window = float(stops.window)
        self._in_a_row = 0
        self._recent: deque[_Ended] = deque()
        self._failed = 0
        self._production: deque[_Failed] = deque(maxlen=_MOST)
        self.production_requests = 0
        """Requests of production that have ended; whoever sees them adds them here."""

        self._asked = -_PAUSE
        self.tripped = ""
        """Why the canary gets no more requests, in words; empty: it does."""

    def ended(self, now: float, *, failed: bool, place: int | None = None) -> bool:
        """Take down one request of the canary.

        Args:
            now: when it ended, monotonic.
            failed: whether it did.
            place: of its key; None: it had none.

        Returns:
            Whether this one was the last straw.
        """
        recent = self._recent
        recent.append((now, failed, place))
        if failed:
            self._failed += 1
            self._in_a_row += 1
        else:
            self._in_a_row = 0
        oldest = now - self._window
        while recent[0][0] < oldest or len(recent) > _MOST:
            self._failed -= recent.popleft()[1]
        if failed and not self.tripped and self._is_obvious() and self._is_alone(now):
            self.tripped = self._verdict()
            return True
        return False

    def production_failed(self, now: float, place: int | None = None) -> None:
        """Take down a request of production that failed; it is in `production_requests` already."""
        self._production.append((now, place, self.production_requests - 1))

    def _is_obvious(self) -> bool:
        stops = self._stops
        if 0 < stops.consecutive_errors <= self._in_a_row:
            return True
        requests = len(self._recent)
        return requests >= stops.min_requests and self._failed >= stops.error_rate * requests

    def _is_alone(self, now: float) -> bool:
        """Whether production does better in the same time, by users and not by their requests."""
        production, oldest = self._production, self._recent[0][0]
        if len(self._recent) + len(production) > _MANY:
            # Half a millisecond of work, at each failure of an incident: not so often.
            if now < self._asked + _PAUSE:
                return False
            self._asked = now
        while production and production[0][0] < oldest:
            production.popleft()
        # As far back as both are known.
        since = production[0][0] if len(production) == _MOST else oldest
        mine = [place for at, failed, place in self._recent if failed and at >= since]
        theirs = [place for _, place, _ in production]
        if fails_alone(_different(mine), _different(theirs), self._rho):
            return True
        requests, least = len(self._recent), 2 * self._stops.min_requests
        if requests < least or not nearly_all(self._failed, requests):
            return False
        beside = self.production_requests - production[0][2] if production else 0
        return nearly_all(beside - len(production), beside)

    def _verdict(self) -> str:
        stops = self._stops
        if 0 < stops.consecutive_errors <= self._in_a_row:
            return f"{self._in_a_row} requests failed one after another"
        return f"{self._failed} of the last {len(self._recent)} requests failed"


def _different(places: list[int | None]) -> int:
    """Keys, and requests without one."""
    keyed = [place for place in places if place is not None]
    return len(set(keyed)) + len(places) - len(keyed)
