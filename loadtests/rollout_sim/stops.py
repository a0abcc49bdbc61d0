"""What a worker's hard stop does to a good version while an incident makes both versions fail.

Request by request, through the class that workers use; beside it the same without looking at
production, as a plain circuit breaker does.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from serving.config.schema import HardStops
from serving.rollout.simulate.scenarios import INCIDENT_SECONDS
from serving.worker.evidence.hard_stop import HardStop

__all__ = ["Incident", "incidents"]

SEED: Final = 13


class Incident(NamedTuple):
    """A row of the table."""

    rho: float
    per_second: float
    """Requests of the canary."""

    share: float
    """Of all requests that fail."""

    stopped: int
    plain: int
    """Stopped by a breaker that looks at the canary alone."""


def incidents(runs: int, *, quick: bool = False) -> Iterator[Incident]:
    """Five minutes each."""
    for rho, rate in ((0.01, 1.0), (0.05, 5.0), (0.05, 50.0), (0.5, 50.0)):
        for share in (0.1,) if quick else (0.05, 0.1, 0.2, 0.5, 1.0):
            random = np.random.default_rng(SEED)
            found = [_one(random, rho, rate, share) for _ in range(runs)]
            stopped, plain = (sum(each) for each in zip(*found, strict=True))
            yield Incident(rho, rate, share, stopped, plain)


def _one(random: np.random.Generator, rho: float, rate: float, share: float) -> tuple[bool, bool]:
    """Whether it stops, and whether a plain breaker does."""
    number = int(random.poisson(rate * INCIDENT_SECONDS / rho))
    at = np.sort(random.uniform(0, INCIDENT_SECONDS, number))
    canary, failed = random.random(number) < rho, random.random(number) < share
    before = np.cumsum(~canary)
    told = canary | failed
    ours, breaker = HardStop(HardStops(), rho), HardStop(HardStops())
    each = (at[told], canary[told], failed[told], before[told])
    for now, mine, bad, ended in zip(*(values.tolist() for values in each), strict=True):
        ours.production_requests = ended
        if mine:
            ours.ended(now, failed=bad)
            breaker.ended(now, failed=bad)
        else:
            ours.production_failed(now)
        if ours.tripped:
            break
    return bool(ours.tripped), bool(breaker.tripped)
