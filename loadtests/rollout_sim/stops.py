"""What hard stops do to a good version while an incident makes both versions fail more often."""

from collections.abc import Iterator

import numpy as np

from serving.config.rollout import HardStops
from serving.rollout.simulate.hard_stops import HardStopWatch
from serving.rollout.simulate.scenarios import INCIDENT_SECONDS

__all__ = ["stops"]

SEED = 13


def stops(runs: int) -> Iterator[tuple[str, float, int]]:
    """How many of `runs` are stopped: rate of the canary in words, share that fails, number."""
    looks = round(INCIDENT_SECONDS)
    for rate in (5.0, 50.0, 250.0):
        for share in (0.02, 0.05, 0.1, 0.2, 0.5):
            random = np.random.default_rng(SEED)
            watch = HardStopWatch(HardStops(), 1.0, runs, random)
            requests = random.poisson(rate, (runs, looks))
            first = watch.first(requests, np.full((1, looks), share))
            yield f"{rate:g}/s", share, int((first < looks).sum())
