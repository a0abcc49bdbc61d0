"""Requests slower than a bound: an event like any other, one bound at a time or several together.

A bound sees regressions of the tail alone, which a mean hides, and an incident that slows both
versions drops out. Without `exceeds` there are three bounds, production's own percentiles from
before the step. Of several e-values the mean is one. For a proof each bound has to be proven.
"""

from collections.abc import Sequence

from serving.rollout.evidence.relative_risk import Counts, average, log_breach, log_proof

__all__ = ["log_not_slower", "log_slower", "worst"]


def log_slower(bounds: Sequence[Counts], tolerance: float) -> float:
    """Natural logarithm of the e-value against "beyond no bound more often than `tolerance` times".

    Args:
        bounds: for each, requests slower than it, by the canary's probability.
        tolerance: ratio that is still fine.
    """
    return average(log_breach(counts, tolerance) for counts in bounds)


def log_not_slower(bounds: Sequence[Counts], proves: Sequence[float]) -> float:
    """Natural logarithm of the e-value against "beyond one of them at least so many times".

    Args:
        bounds: as in `log_slower`.
        proves: for each, the ratio that must not be reached.
    """
    found = [log_proof(counts, prove) for counts, prove in zip(bounds, proves, strict=True)]
    return min(found, default=0.0)


def worst(bounds: Sequence[Counts], tolerance: float) -> int:
    """Place of the bound with the most evidence against the canary; 0 if there is none."""
    found = [log_breach(counts, tolerance) for counts in bounds]
    return max(range(len(found)), key=found.__getitem__, default=0)
