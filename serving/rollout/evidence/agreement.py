"""Shadow copies come in pairs with production's answer: do they say the same, which one fails?

Agreement is one share. With a mixture of Beta(½, ½) over what it could be, S of t copies agreeing
give against "the share is p" the e-value

    E(p) = B(½ + S, ½ + t − S) / B(½, ½) / (p^S · (1 − p)^(t − S))        (Robbins 1970),

which is smallest at S/t and grows to both sides, so {p : E(p) < 1/α} is an interval, the
confidence sequence; and against "the share is at least p" the smallest E of those shares.

Failures are compared among copies where only one of the two failed: each is the shadow's with
probability ½ if they are alike (McNemar's test, here at every look), whatever fails for both.
"""

import math
from typing import Final

from serving.rollout.evidence.relative_risk import Interval, log_breach

__all__ = ["log_failing_more", "log_share", "log_share_below", "share_interval"]

_HALF: Final = 0.5
_LOG_BETA_HALF: Final = math.log(math.pi)
_HALVINGS: Final = 60


def log_share(agreeing: int, copies: int, share: float) -> float:
    """Natural logarithm of E(share); infinite where the share is impossible."""
    differing = copies - agreeing
    mixed = (
        math.lgamma(agreeing + _HALF)
        + math.lgamma(differing + _HALF)
        - math.lgamma(copies + 1)
        - _LOG_BETA_HALF
    )
    for count, chance in ((agreeing, share), (differing, 1 - share)):
        if count:
            if chance <= 0:
                return math.inf
            mixed -= count * math.log(chance)
    return mixed


def log_share_below(agreeing: int, copies: int, share: float) -> float:
    """Natural logarithm of the e-value against "at least `share` agree"."""
    if not copies:
        return 0.0
    return log_share(agreeing, copies, max(share, agreeing / copies))


def share_interval(agreeing: int, copies: int, alpha: float) -> Interval:
    """Confidence sequence for the share that agrees.

    Args:
        agreeing: copies that said the same.
        copies: all that could be compared.
        alpha: error of both ends together.
    """
    if not copies:
        return Interval(0.0, 1.0)
    limit, found = -math.log(alpha), agreeing / copies
    return Interval(
        _end(agreeing, copies, found, 0.0, limit), _end(agreeing, copies, found, 1.0, limit)
    )


def log_failing_more(shadow_alone: int, production_alone: int, tolerance: float = 1.0) -> float:
    """Natural logarithm of the e-value against "the shadow fails no more than `tolerance` times".

    Args:
        shadow_alone: copies where only the shadow failed.
        production_alone: copies where only production failed.
        tolerance: ratio of the two that is still fine.
    """
    return log_breach({_HALF: (shadow_alone, production_alone)}, tolerance)


def _end(agreeing: int, copies: int, inside: float, outside: float, limit: float) -> float:
    if log_share(agreeing, copies, outside) < limit:
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if log_share(agreeing, copies, middle) < limit:
            inside = middle
        else:
            outside = middle
    return outside
