"""The traffic of a trial as other tools see it: all requests and errors, minute by minute."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from rivals import Minutes

from serving.rollout.simulate.arrivals import Requests
from serving.rollout.simulate.crowd import Crowd
from serving.rollout.simulate.scenarios import Traffic
from serving.rollout.simulate.stages import Stage
from serving.rollout.simulate.world import Signal

__all__ = ["by_minute"]

MINUTE: Final = 60
Ints = NDArray[np.int64]


def by_minute(
    arrivals: Requests | Crowd,
    plan: list[Stage],
    errors: Signal,
    *,
    traffic: Traffic,
    per_second: float,
    trials: int,
    random: np.random.Generator,
) -> Minutes:
    """Take the traffic through all steps, whatever it shows; looks are seconds."""
    parts: list[Minutes] = []
    began = np.zeros(trials, np.int64)
    had = (
        np.zeros((trials, len(arrivals.activity)), np.bool_)
        if isinstance(arrivals, Crowd)
        else None
    )
    for stage in plan:
        looks = round(stage.at_least)
        arrivals.begin(stage.rho, began)
        first = [_minutes(one[0]) for one in arrivals.events(errors, 0, looks)]
        canary = _minutes(arrivals.requests(0, looks))
        volume = traffic.volume[int(began[0]) : int(began[0]) + looks] * per_second
        total = random.poisson(volume.reshape(-1, MINUTE).sum(1), (trials, looks // MINUTE))
        if isinstance(arrivals, Crowd):
            assert had is not None
            again, had = _again(
                arrivals, errors, had, began[0], minutes=looks // MINUTE, random=random
            )
            first = [one + more for one, more in zip(first, again, strict=True)]
        production = np.maximum(total - canary, 0)
        parts.append(Minutes(
            canary, np.minimum(first[0], canary), production, np.minimum(first[1], production)
        ))  # fmt: skip
        arrivals.end(np.full(trials, looks))
        began = began + looks
    return Minutes(*(np.concatenate(counts, axis=1) for counts in zip(*parts, strict=True)))


def _minutes(counts: Ints) -> Ints:
    return counts.reshape(len(counts), -1, MINUTE).sum(2)


def _again(
    crowd: Crowd,
    errors: Signal,
    had: NDArray[np.bool_],
    began: int,
    *,
    minutes: int,
    random: np.random.Generator,
) -> tuple[list[Ints], NDArray[np.bool_]]:
    """Errors of users who have had one, of canary and production; and who has had one by the end.

    From the minute after the first on; what is left of that minute is small.
    """
    trials = len(had)
    first, kinds = crowd.first(errors), crowd.kinds()
    since = np.where(had, 0, np.minimum(first // MINUTE + 1, minutes))
    found = [np.zeros((trials, minutes), np.int64) for _ in range(2)]
    ends = began + np.arange(minutes + 1) * MINUTE
    for kind, curve in enumerate(crowd.cumulated(errors)):
        trial, key = np.nonzero((kinds == kind) & (since < minutes))
        cells = trial * minutes + since[trial, key]
        active = np.bincount(cells, crowd.activity[key], trials * minutes)
        running = np.cumsum(active.reshape(trials, minutes), axis=1)
        rate = np.diff(curve[np.minimum(ends, len(curve) - 1)])
        found[0 if kind >= 2 else 1] += random.poisson(running * rate)
    return found, had | (first < minutes * MINUTE)
