"""Whether the new version fails alone, or everything does.

A hard stop acts on what is obvious, in one worker, within seconds: so many failures in a row, such
a share of the last ones. During an incident that both versions share this happens to a version as
good as production too: where a tenth of all requests fails, five in a row come within minutes at
50 requests a second. So a stop also asks what production did in the same window. The evidence is
that of the rule for errors (`evidence.relative_risk`), of users with a failure in the window, since
failures of one user come together; and it has to be far beyond what a rule needs, since it is asked
again in each window. Where the canary has too few users for that, it must fail nearly always, and
production hardly ever.
"""

import math
from typing import Final

from serving.rollout.evidence.relative_risk import log_breach

__all__ = ["LOG_ALONE", "fails_alone", "nearly_all"]

LOG_ALONE: Final = math.log(10_000)
"""Logarithm of the e-value from which on it does. With a twentieth of the traffic and a production
without failures five failures have it, with a quarter nine, with a half seventeen."""


def fails_alone(failed: int, production_failed: int, rho: float) -> bool:
    """Whether the canary's failures are its own.

    Args:
        failed: users of the canary who had a failure in the window, and requests without a key.
        production_failed: the same of production.
        rho: probability of the canary; without a production beside it, at 1, nothing is asked.
    """
    if not 0 < rho < 1:
        return True
    return log_breach({rho: (failed, production_failed)}, 1.0) >= LOG_ALONE


def nearly_all(part: int, whole: int) -> bool:
    """Whether nine of ten are; of none, all are."""
    return part >= 0.9 * whole
