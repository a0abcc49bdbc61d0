"""Rules of other rollout tools, over counts minute by minute: shape [trials, minutes] each.

Argo Rollouts' success rate of each interval with a `failureLimit`, as in its documentation's
analysis templates; Flagger's checks with a `threshold` of failed ones over the whole analysis,
where a minute without data is a failed check; and the z-test of pooled counts, one-sided, at every
minute, plain and with the significance divided by the number of looks (Bonferroni).
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["RIVALS", "Minutes"]

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEAST_SUCCESS: Final = 0.99
ALPHA: Final = 0.05


class Minutes(NamedTuple):
    """Counts of each minute."""

    canary: Ints
    canary_errors: Ints
    production: Ints
    production_errors: Ints


def argo(minutes: Minutes, *, interval: int, failure_limit: int) -> Flags:
    """More than so many intervals with a success rate below the limit; without data: none."""
    requests, errors = (_summed(counts, interval) for counts in minutes[:2])
    failed = errors > (1 - LEAST_SUCCESS) * requests
    return np.cumsum(failed, axis=1) > failure_limit


def flagger(minutes: Minutes, *, threshold: int) -> Flags:
    """So many minutes with a success rate below the limit, or without data."""
    failed = (minutes.canary == 0) | (minutes.canary_errors > (1 - LEAST_SUCCESS) * minutes.canary)
    return np.cumsum(failed, axis=1) >= threshold


def pooled_z(minutes: Minutes, *, bonferroni: bool) -> Flags:
    """The shares of all requests so far, compared at every minute."""
    n, s, m, f = (np.cumsum(counts, axis=1).astype(float) for counts in minutes)
    looks = n.shape[1] if bonferroni else 1
    limit = NormalDist().inv_cdf(1 - ALPHA / looks)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = (s + f) / (n + m)
        z = (s / n - f / m) / np.sqrt(both * (1 - both) * (1 / n + 1 / m))
    return np.nan_to_num(z) > limit


def _summed(counts: Ints, interval: int) -> Ints:
    trials, minutes = counts.shape
    whole = minutes // interval * interval
    return counts[:, :whole].reshape(trials, -1, interval).sum(axis=2)


RIVALS: Final[dict[str, Callable[[Minutes], Flags]]] = {
    "Argo fl=0": lambda minutes: argo(minutes, interval=5, failure_limit=0),
    "Argo fl=3": lambda minutes: argo(minutes, interval=5, failure_limit=3),
    "Flagger 5": lambda minutes: flagger(minutes, threshold=5),
    "z": lambda minutes: pooled_z(minutes, bonferroni=False),
    "z/60": lambda minutes: pooled_z(minutes, bonferroni=True),
}
"""By name: whether the rollout is stopped by then, shape [trials, looks]."""
