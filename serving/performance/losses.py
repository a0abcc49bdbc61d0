"""What a version loses: its own first labelled windows, kept, beside its last ones. Pure.

The reference period of a loss is the version's own beginning: a loss on the training data would
be too good, and another version's says nothing about whether this one has got worse.
"""

from collections.abc import Sequence

import msgspec

from serving.performance.counts import Moments

__all__ = ["Baseline", "LossWindow", "first_windows", "last_windows"]


class LossWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Losses of predictions made from `start` to `end`, seconds since 1970."""

    start: float
    end: float
    losses: Moments


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A version's first windows together; once there are labels enough it never changes."""

    start: float
    end: float
    losses: Moments


def first_windows(windows: Sequence[LossWindow], *, least: int, now: float) -> Baseline | None:
    """The earliest windows that are over and have `least` labels together; None if too few.

    Args:
        windows: of one version, oldest first.
        least: labels.
        now: seconds since 1970.
    """
    total = Moments()
    for window in windows:
        if window.end > now:
            break
        total += window.losses
        if total.rows >= least:
            return Baseline(start=windows[0].start, end=window.end, losses=total)
    return None


def last_windows(windows: Sequence[LossWindow], baseline: Baseline, *, least: int) -> Moments:
    """The newest windows after the baseline, back until they have `least` labels together.

    All of them, if they have fewer.
    """
    total = Moments()
    for window in reversed(windows):
        if window.start < baseline.end or total.rows >= least:
            break
        total += window.losses
    return total
