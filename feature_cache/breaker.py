"""A circuit breaker: an outage costs its first few requests the timeout, and nobody after them."""

from typing import Final, Literal

__all__ = ["Breaker"]

_LONGEST_SECONDS: Final = 1.0


class Breaker:
    """Opens after `threshold` failures in a row; then lets one probe through from time to time.

    A pure state machine: the caller passes monotonic seconds in. While it is open, one caller
    every `pause` seconds may try (half-open); success closes it, failure doubles the pause, up
    to a second.
    """

    __slots__ = ("_failures", "_first_pause", "_pause", "_probe_at", "_threshold", "opened")

    def __init__(self, *, threshold: int = 5, pause: float = 0.1) -> None:
        self._threshold = threshold
        self._first_pause = self._pause = pause
        self._failures = 0
        self._probe_at = 0.0
        self.opened = 0
        """How often it has opened."""

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        """`half-open`: the next caller is a probe."""
        if self._failures < self._threshold:
            return "closed"
        return "open" if now < self._probe_at else "half-open"

    def allows(self, now: float) -> bool:
        """Whether a caller may try now. A true answer while it is open makes it the probe."""
        if self._failures < self._threshold:
            return True
        if now < self._probe_at:
            return False
        self._probe_at = now + self._pause
        return True

    def succeeded(self) -> None:
        """An answer came in time."""
        self._failures = 0
        self._pause = self._first_pause

    def failed(self, now: float) -> None:
        """An answer did not come in time."""
        self._failures += 1
        if self._failures == self._threshold:
            self.opened += 1
        elif self._failures > self._threshold:
            self._pause = min(2 * self._pause, _LONGEST_SECONDS)
        if self._failures >= self._threshold:
            self._probe_at = now + self._pause
