"""Whether keys went to the canary as often as they were drawn for it.

If they did not, requests are lost or kept on the way to one version, and every comparison with the
other is between different users. A key that meets a version for the first time meets the canary
with the probability ρ of its draw, so this is the relative risk of `relative_risk` with r = 1,
asked in both directions.
"""

import math
from typing import Final

from serving.rollout.evidence.relative_risk import (
    Counts,
    average,
    estimate,
    log_breach,
    log_proof,
    total,
)

__all__ = ["ALPHA", "log_mismatch", "words_of"]

ALPHA: Final = 0.001
"""How often a right split is called a wrong one, in a whole rollout. Strict, as usual for this
check, because what it says accuses the machinery and not the version."""

_FACTORS: Final = (1.02, 1.05, 1.1, 1.25, 2.0, 10.0)
"""Closer to 1 than for events: losing a twentieth of the canary's users is a fault already."""


def log_mismatch(exposures: Counts) -> float:
    """Natural logarithm of the e-value against "each key was drawn as its probability says".

    Args:
        exposures: by that probability: keys that first met the canary, that first met production.
    """
    return average([log_breach(exposures, 1.0, _FACTORS), log_proof(exposures, 1.0, _FACTORS)])


def words_of(exposures: dict[float, tuple[int, int]]) -> str:
    """What is wrong with the shares; empty if nothing is proven."""
    if log_mismatch(exposures) < -math.log(ALPHA):
        return ""
    canary, production = total(exposures)
    drawn = sum(rho * sum(pair) for rho, pair in exposures.items())
    ratio = estimate(exposures)
    side = "fewer" if ratio is not None and ratio < 1 else "more"
    return (
        f"{canary} of {canary + production} keys met the canary, {side} than the {drawn:.0f} that "
        "were drawn for it: requests of one version are lost on the way, or sent twice. What the "
        "rules say compares different users"
    )
