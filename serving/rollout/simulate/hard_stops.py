"""When a hard stop trips, look by look.

As in one worker that has all requests: with several, each sees fewer of them and is no quicker.
Requests of many users come in random order, so that each fails by itself with the share of the
look. A window reaches back to the beginning of its block of looks at most, as a worker's does to
the beginning of its step.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.config.schema import HardStops
from serving.rollout.alone import LOG_ALONE
from serving.rollout.evidence.relative_risk import log_breach_array
from serving.rollout.simulate.arrivals import Arrivals, Floats, Ints
from serving.rollout.simulate.world import Signal

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
        self._seen = np.zeros(trials, np.int64)

    def first(
        self, arrivals: Arrivals, errors: Signal, requests: Ints, offset: int, rho: float
    ) -> Ints:
        """The look at which a stop trips first, shape [trials]; a very late one for none.

        Args:
            arrivals: where events come from.
            errors: what is a failure.
            requests: of the canary, shape [trials, looks].
            offset: looks of the step before these.
            rho: probability of the canary.
        """
        looks = requests.shape[1]
        failing, others = arrivals.failing(errors, offset, looks)
        failed = self._random.binomial(requests, np.broadcast_to(failing, requests.shape))
        runs = self._runs(requests, failing)
        # A run is failures that have happened.
        failed = np.maximum(failed, np.where(runs, self._stops.consecutive_errors, 0))
        total, bad = _within(requests, self._window), _within(failed, self._window)
        obvious = runs
        if float(failing.max(initial=0.0)) * _FAR >= self._stops.error_rate > 0:
            enough = total >= self._stops.min_requests
            obvious = obvious | (enough & (bad >= self._stops.error_rate * total))
        first = np.full(len(requests), _NEVER)
        throughout = (total >= 2 * self._stops.min_requests) & (bad >= 0.9 * total)
        trial, look = np.nonzero(obvious & throughout & (others <= 0.1))
        np.minimum.at(first, trial, look)
        trial, look = self._asked(obvious)
        if len(trial):
            since = np.maximum(0, offset + look + 1 - self._window)
            mine, theirs = arrivals.affected(errors, trial, since, offset + look + 1)
            alone = log_breach_array({rho: (mine, theirs)}, 1.0) >= LOG_ALONE
            np.minimum.at(first, trial[alone], look[alone])
        return first

    def _asked(self, obvious: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Looks at which production is asked: the first ten, then two in each window.

        Others have nearly the same window before them, and it takes long to count its users.
        """
        looks = np.arange(obvious.shape[1])
        rank = np.cumsum(obvious, axis=1)
        chosen = obvious & ((rank <= 10) | (looks % max(1, self._window // 2) == 0))
        trial, look = np.nonzero(chosen)
        return trial, look

    def _runs(self, requests: Ints, share: Floats) -> NDArray[np.bool_]:
        """Whether so many failures one after another are there, shape [trials, looks].

        Runs of N or more begin at (1 − q) qᴺ of the requests, and the first takes
        (1 − qᴺ) / ((1 − q) qᴺ) of them on average; where nothing else comes, N.
        """
        needed = self._stops.consecutive_errors
        if not needed:
            return np.zeros(requests.shape, np.bool_)
        run = share**needed
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(share < 1, (1 - share) * run / (1 - run), 1.0)
        came = self._random.poisson(requests * rate) > 0
        seen = self._seen[:, None] + np.cumsum(requests * (share >= 0.5), axis=1)
        self._seen = seen[:, -1]
        found: NDArray[np.bool_] = came & ((share < 0.5) | (seen >= needed))
        return found | ((share >= 1) & (seen >= needed) & (requests > 0))


def _within(counts: Ints, window: int) -> Ints:
    sums = np.cumsum(counts, axis=1)
    sums[:, window:] = sums[:, window:] - sums[:, :-window]
    return sums
