"""Requests per second, from counters that only grow."""

from collections import deque
from typing import Final

import msgspec

from serving.metrics import Samples

__all__ = ["Rate", "Rates"]

_WINDOW_SECONDS: Final = 10.0
_REQUESTS: Final = "sluice_requests_total"
_COPIES: Final = "sluice_mirrored_total"
_HOURS: Final = 24
_HOUR_SECONDS: Final = 3600.0
_ANSWERING: Final = ("production", "canary")


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of one model version in one role over the last seconds, per second.

    `failed_per_second` counts everything not answered OK, whoever's fault. For the role `shadow`
    the copies that were run count, not those dropped for want of time.
    """

    model: str
    version: str
    role: str
    requests_per_second: float
    failed_per_second: float


_Key = tuple[str, str, str]
_Counts = dict[_Key, tuple[float, float]]


def _counted(family: str, labels: tuple[str, ...]) -> tuple[_Key, bool] | None:
    """Whose request a counter counts, and whether it failed; None: it counts something else."""
    if family == _REQUESTS:
        model, version, role, _, code = labels
        return (model, version, role), code != "OK"
    if family == _COPIES:
        model, version, outcome = labels
        return None if outcome == "dropped" else ((model, version, "shadow"), outcome == "failed")
    return None


class Rates:
    """Keeps a few samples of the counters, at most `window` seconds old.

    And for each of the last 24 hours the busiest window of each model.
    """

    def __init__(self, window: float = _WINDOW_SECONDS) -> None:
        self._window = window
        self._samples: deque[tuple[float, _Counts]] = deque()
        self._hours: deque[tuple[float, dict[str, float]]] = deque(maxlen=_HOURS)

    def observe(self, samples: Samples, now: float) -> None:
        """Take a sample at `now`, monotonic seconds."""
        counts: _Counts = {}
        for (family, labels), slots in samples.items():
            counted = _counted(family, labels)
            if counted is not None:
                key, failed = counted
                total, failures = counts.get(key, (0.0, 0.0))
                counts[key] = (total + slots[0], failures + (slots[0] if failed else 0.0))
        self._samples.append((now, counts))
        # One sample older than the window stays, or the window would always be cut short.
        while len(self._samples) > 2 and self._samples[1][0] <= now - self._window:
            self._samples.popleft()
        self._remember(now)

    def busiest(self, model: str) -> float:
        """Requests a second that a model answered in its busiest window of the last 24 hours."""
        return max((hour.get(model, 0.0) for _, hour in list(self._hours)), default=0.0)

    def _remember(self, now: float) -> None:
        if not self._hours or now - self._hours[-1][0] >= _HOUR_SECONDS:
            self._hours.append((now, {}))
        _, hour = self._hours[-1]
        together: dict[str, float] = {}
        for one in self.now():
            if one.role in _ANSWERING:
                together[one.model] = together.get(one.model, 0.0) + one.requests_per_second
        for model, rate in together.items():
            hour[model] = max(rate, hour.get(model, 0.0))

    def now(self) -> list[Rate]:
        """Rates over the window, one per version and role that was ever asked; none at first."""
        if len(self._samples) < 2:
            return []
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        seconds = ended - began
        if seconds <= 0:
            return []
        return [
            Rate(
                model=key[0],
                version=key[1],
                role=key[2],
                requests_per_second=round((total - first.get(key, (0, 0))[0]) / seconds, 3),
                failed_per_second=round((failed - first.get(key, (0, 0))[1]) / seconds, 3),
            )
            for key, (total, failed) in sorted(last.items())
        ]
