"""The stop without statistics: a canary that plainly fails, seen by one worker alone."""

from collections import deque
from typing import Final

from serving.config.rollout import HardStops

__all__ = ["HardStop"]

_MOST: Final = 4096
"""Requests of the window that are kept; a busier worker looks at its last ones only."""


class HardStop:
    """Looks at each request of the canary as it ends. Costs the same however many there were."""

    def __init__(self, stops: HardStops) -> None:
        self._stops = stops
        self._window = float(stops.window)
        self._in_a_row = 0
        self._recent: deque[tuple[float, bool]] = deque()
        self._failed = 0
        self.tripped = ""
        """Why the canary gets no more requests, in words; empty: it does."""

    def ended(self, now: float, *, failed: bool) -> bool:
        """Take down one request of the canary that ended at `now`, in monotonic seconds.

        Returns:
            Whether this one was the last straw.
        """
        recent = self._recent
        recent.append((now, failed))
        if failed:
            self._failed += 1
            self._in_a_row += 1
        else:
            self._in_a_row = 0
        oldest = now - self._window
        while recent[0][0] < oldest or len(recent) > _MOST:
            self._failed -= recent.popleft()[1]
        if failed and not self.tripped:
            self.tripped = self._verdict()
            return bool(self.tripped)
        return False

    def _verdict(self) -> str:
        stops = self._stops
        if 0 < stops.consecutive_errors <= self._in_a_row:
            return f"{self._in_a_row} requests failed one after another"
        requests = len(self._recent)
        if requests >= stops.min_requests and self._failed >= stops.error_rate * requests:
            return f"{self._failed} of the last {requests} requests failed"
        return ""
