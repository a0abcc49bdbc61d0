"""How many events a proof needs, how long they take to come, and what cannot be seen by then.

An event of a canary that is r times as bad adds KL(θ(r, ρ) ‖ θ(r₀, ρ)) to the logarithm of the
evidence against r₀, on average, if the bet on r is among the J of the mixture; that costs ln J
once. So about (ln(1/α) + ln J) / KL events are needed. Neighbours of r in the mixture help, so
this is on the safe side: of simulated rollouts 55 to 75 % need fewer (`docs/decisions.md`).
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.rollout.evidence.relative_risk import (
    FACTORS,
    Counts,
    CountsArray,
    log_breach_array,
    log_proof_array,
    theta,
)

__all__ = [
    "detection_events",
    "divergence",
    "event_rate",
    "missing_for_breach",
    "missing_for_proof",
    "proof_events",
    "seconds_to",
    "shared",
    "smallest_detectable",
]

_WORST: Final = 1000.0
"""No regression is looked for beyond this ratio."""

_MOST_DOUBLINGS: Final = 41
_POINTS: Final = 65


def shared(alpha: float, deciding: int) -> float:
    """What each of so many deciding rules may spend of the rollout's α; they add up to it."""
    return alpha / max(1, deciding)


def divergence(true: float, null: float, rho: float) -> float:
    """What one event tells on average, in nats: KL(θ(true, ρ) ‖ θ(null, ρ))."""
    p, q = theta(true, rho), theta(null, rho)
    part = p * math.log(p / q) if p else 0.0
    return part + (1 - p) * math.log((1 - p) / (1 - q))


def detection_events(
    ratio: float, tolerance: float, rho: float, alpha: float, averaged: int = 1
) -> float:
    """Events of both versions until a regression is found; infinite up to the tolerance.

    Args:
        ratio: how many times as bad the canary is.
        tolerance: the rule's.
        rho: probability of the canary.
        alpha: what the rule may spend, see `shared`.
        averaged: of how many e-values the rule takes the mean: bounds of a latency, twice the
            bins of a shift. One that is alone in seeing it has to pay for the others.
    """
    if ratio <= tolerance:
        return math.inf
    return _events(divergence(ratio, tolerance, rho), alpha / averaged)


def proof_events(prove: float, rho: float, alpha: float, ratio: float = 1.0) -> float:
    """Events of both versions until it is proven that the ratio is below `prove`.

    Args:
        prove: the rule's.
        rho: probability of the canary.
        alpha: the rollout's: every rule has to be proven, so none has to share.
        ratio: what it really is; from `prove` on it takes for ever.
    """
    if ratio >= prove:
        return math.inf
    return _events(divergence(ratio, prove, rho), alpha)


def event_rate(production: float, rho: float, ratio: float = 1.0) -> float:
    """Events a second of both versions together.

    Args:
        production: events a second if production had all the traffic. Where users count once,
            users a second who have their first.
        rho: probability of the canary.
        ratio: how many times as bad it is.
    """
    return production * (rho * ratio + 1 - rho)


def seconds_to(events: float, rate: float) -> float:
    """How long so many events take; for ever if none come."""
    if events <= 0:
        return 0.0
    return events / rate if rate > 0 else math.inf


def smallest_detectable(
    seconds: float,
    production: float,
    tolerance: float,
    rho: float,
    alpha: float,
    *,
    averaged: int = 1,
) -> float:
    """The smallest ratio that is found within so many seconds, on average; infinite above 1000.

    Args:
        seconds: of the step.
        production: events a second, as in `event_rate`.
        tolerance: the rule's.
        rho: probability of the canary.
        alpha: what the rule may spend.
        averaged: as in `detection_events`.
    """

    def found(ratio: float) -> bool:
        needed = detection_events(ratio, tolerance, rho, alpha, averaged)
        return seconds_to(needed, event_rate(production, rho, ratio)) <= seconds

    low, high = tolerance, _WORST
    if not found(high):
        return math.inf
    while high - low > 1e-3 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def missing_for_proof(counts: Counts, prove: float, rho: float, alpha: float) -> int | None:
    """Events still needed if from now on the versions are alike; None if no number is enough.

    Args:
        counts: what has been seen.
        prove: the rule's.
        rho: probability of the canary now.
        alpha: the rollout's.
    """
    return _missing(counts, rho, 1.0, alpha, lambda seen: log_proof_array(seen, prove))


def missing_for_breach(
    counts: Counts, ratio: float, tolerance: float, rho: float, alpha: float
) -> int | None:
    """Events still needed if from now on the canary is `ratio` times as bad; see above."""
    return _missing(counts, rho, ratio, alpha, lambda seen: log_breach_array(seen, tolerance))


def _events(nats_each: float, alpha: float) -> float:
    if nats_each <= 0:
        return math.inf
    return (math.log(1 / alpha) + math.log(len(FACTORS))) / nats_each


def _missing(
    counts: Counts,
    rho: float,
    ratio: float,
    alpha: float,
    log_e: Callable[[CountsArray], NDArray[np.float64]],
) -> int | None:
    """The first number of events, divided as they are on average, that is enough."""
    share, limit = theta(ratio, rho), -math.log(alpha)
    known = {one: (np.array(s), np.array(f)) for one, (s, f) in counts.items()}
    canary, production = counts.get(rho, (0, 0))

    def enough(more: NDArray[np.float64]) -> NDArray[np.bool_]:
        seen = {**known, rho: (canary + more * share, production + more * (1 - share))}
        found: NDArray[np.bool_] = log_e(seen) >= limit
        return found

    points = np.concatenate(([0.0], np.exp2(np.arange(_MOST_DOUBLINGS))))
    while True:
        found = enough(points)
        first = int(found.argmax())
        if not found[first]:
            return None
        if first == 0 or points[first] - points[first - 1] <= 1:
            return int(points[first])
        low, high = points[first - 1], points[first]
        points = np.unique(np.round(np.linspace(low, high, _POINTS)))
