"""When a hard stop trips, look by look.

As in one worker that has all of the canary's requests: with several, each sees fewer of them, and
is no quicker. Requests of many users come in random order, so that each fails by itself with the
share of the look.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.config.rollout import HardStops
from serving.rollout.simulate.arrivals import Floats, Ints

__all__ = ["HardStopWatch"]

_NEVER: Final = np.iinfo(np.int64).max // 2
_FAR: Final = 10.0
"""A share of errors so many times below the limit does not reach it in a window: with 20 requests
and 5 %, once in 10⁷ windows."""


class HardStopWatch:
    """Hard stops of many trials, over the blocks of a rollout.

    Args:
        stops: as configured.
        look: seconds between looks.
        trials: how many.
        random: where chance comes from.
    """

    def __init__(
        self, stops: HardStops, look: float, trials: int, random: np.random.Generator
    ) -> None:
        self._stops = stops
        self._window = max(1, round(float(stops.window) / look))
        self._random = random
        self._left = random.exponential(size=trials)
        self._seen = np.zeros(trials, np.int64)

    def first(self, requests: Ints, failing: Floats) -> Ints:
        """The look at which a stop trips first, shape [trials]; a very late one for none.

        Args:
            requests: of the canary, shape [trials, looks].
            failing: share that fails, shape [trials or 1, looks].
        """
        first = self._run(requests, failing)
        if float(failing.max(initial=0.0)) * _FAR >= self._stops.error_rate > 0:
            first = np.minimum(first, self._share(requests, failing))
        return first

    def _run(self, requests: Ints, failing: Floats) -> Ints:
        """So many failures one after another.

        Runs of N or more begin at (1 − q) qᴺ of the requests; the first is nearly as far as an
        exponential number whose mean is that of a run of N, (1 − qᴺ) / ((1 − q) qᴺ) requests.
        """
        needed = self._stops.consecutive_errors
        if not needed:
            return np.full(len(requests), _NEVER)
        share = np.clip(failing, 0.0, 1.0)
        run = share**needed
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(share < 1, (1 - share) * run / (1 - run), 0.0)
        passed = np.cumsum(requests * rate, axis=1)
        seen = self._seen[:, None] + np.cumsum(requests * (share >= 0.5), axis=1)
        certain = (share >= 1) & (seen >= needed)
        tripped = certain | ((passed >= self._left[:, None]) & ((share < 0.5) | (seen >= needed)))
        self._left = np.maximum(self._left - passed[:, -1], 0.0)
        self._seen = seen[:, -1]
        return _first(tripped)

    def _share(self, requests: Ints, failing: Floats) -> Ints:
        """Such a share of at least so many, within the window."""
        failed = self._random.binomial(requests, np.broadcast_to(failing, requests.shape))
        total, bad = (_within(counts, self._window) for counts in (requests, failed))
        return _first((total >= self._stops.min_requests) & (bad >= self._stops.error_rate * total))


def _within(counts: Ints, window: int) -> Ints:
    sums = np.cumsum(counts, axis=1)
    sums[:, window:] = sums[:, window:] - sums[:, :-window]
    return sums


def _first(tripped: NDArray[np.bool_]) -> Ints:
    return np.where(tripped.any(1), tripped.argmax(1), _NEVER)
