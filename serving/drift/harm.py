"""Whether a stream of losses has got worse: ADWIN over losses in the order of their labels. Pure.

The verdict compares means of windows at every report; of many looks one is wrong some day. A
change that ADWIN sees as well is one.
"""

import msgspec

from serving.drift.changes import Adwin, AdwinState, Change

__all__ = ["LossStream", "bounded", "follow"]

_LARGEST_LOG_LOSS = 16.0
"""-ln of float32's machine epsilon, rounded up: the most that one row can lose."""

_TOLERANCES = 20.0


class LossStream(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one version's losses so far."""

    adwin: AdwinState
    losses: int = 0
    """Seen so far."""

    worse: bool = False
    """The last change was for the worse."""

    change: Change | None = None
    """The last change, on ADWIN's scale; see `bounded`."""


def bounded(loss: float, metric: str, tolerance: float) -> float:
    """A loss on the scale 0 to 1 that ADWIN's bound is for.

    `error` and `brier` are on it. The regression losses have no upper end: x / (x + 20 · tolerance)
    has, keeps their order, and is 1/2 where the tolerance is a twentieth of the loss.
    """
    if metric == "log_loss":
        return min(1.0, loss / _LARGEST_LOG_LOSS)
    if metric in ("absolute_error", "squared_error"):
        return loss / (loss + _TOLERANCES * tolerance)
    return loss


def follow(
    stream: LossStream | None, losses: list[float], metric: str, tolerance: float
) -> LossStream | None:
    """Take losses in their order; None as long as there was none."""
    if not losses:
        return stream
    adwin = Adwin() if stream is None else Adwin.resume(stream.adwin)
    worse = stream is not None and stream.worse
    change = stream.change if stream is not None else None
    for loss in losses:
        seen = adwin.update(bounded(loss, metric, tolerance))
        if seen is not None:
            worse, change = seen.grew, seen
    before = stream.losses if stream is not None else 0
    return LossStream(adwin=adwin.state, losses=before + len(losses), worse=worse, change=change)
