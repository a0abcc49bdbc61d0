"""Counts become figures: accuracy, AUC, Brier, log loss, calibration, errors, with intervals.

An interval is None where too little is known to give one that holds.
"""

import math
from typing import Final

import msgspec
import numpy as np

from serving.performance.calibration import score_groups
from serving.performance.counts import Counts, Moments, ScoreBins
from serving.performance.intervals import CONFIDENCE, Interval, quantile, student, wilson

__all__ = ["Figure", "auc", "calibration_error", "figures", "mean", "share"]

_ENOUGH_CLUSTERS: Final = 30
"""From here on an estimated variance is believed."""

_SHARES: Final = (
    "accuracy", "selection_rate", "recall", "false_positive_rate", "precision", "base_rate",
    "coverage",
)  # fmt: skip


_MEANS: Final = (
    ("calibration_gap", (-1.0, 1.0)), ("brier", (0.0, 1.0)), ("log_loss", None),
    ("absolute_error", None), ("bias", None),
)  # fmt: skip
"""Names, and the bounds of one value."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: its value and interval, the rows it is of, and how many they are worth.

    `effective` is smaller than `rows` where rows resemble each other or weigh differently.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    rows: int
    effective: float


def _figure(name: str, value: float, interval: Interval | None, of: Moments) -> Figure:
    return Figure(
        name=name,
        value=value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        rows=of.rows,
        effective=of.effective,
    )


def share(moments: Moments, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's interval of a share, over the number of rows that these are worth.

    That number is taken from the variance between clusters where there are enough of them; it is
    never fewer than the clusters tell, nor more than the rows.
    """
    value = moments.mean
    if value is None:
        return Interval(0.0, 1.0)
    worth = moments.effective
    if moments.clusters >= _ENOUGH_CLUSTERS and moments.variance > 0:
        worth = min(max(value * (1 - value) / moments.variance, worth), float(moments.rows))
    return wilson(min(max(value, 0.0), 1.0), worth, confidence)


def mean(
    moments: Moments, bounds: tuple[float, float] | None = None, confidence: float = CONFIDENCE
) -> Interval | None:
    """Student's interval of a mean.

    Where the variance is not known well enough, the widest one that values within `bounds` can
    have stands in for it; without bounds there is no interval.
    """
    value = moments.mean
    if value is None:
        return None
    if moments.clusters >= _ENOUGH_CLUSTERS and (moments.variance > 0 or bounds is None):
        half = student(moments.effective - 1, confidence) * math.sqrt(moments.variance)
        low, high = bounds or (-math.inf, math.inf)
        return Interval(max(low, value - half), min(high, value + half))
    if bounds is None:
        return None
    low, width = bounds[0], bounds[1] - bounds[0]
    scaled = wilson(min(max((value - low) / width, 0.0), 1.0), moments.effective, confidence)
    return Interval(low + width * scaled.low, low + width * scaled.high)


def auc(
    scores: ScoreBins, positives: float, negatives: float, confidence: float = CONFIDENCE
) -> tuple[float, Interval] | None:
    """The chance that what came true was scored higher than what did not; ties count half.

    The variance is that of DeLong, DeLong and Clarke-Pearson 1988, from the bins, on the scale of
    log-odds, where it holds near 1.

    Args:
        scores: rows by score.
        positives: what the rows that came true are worth, in independent ones.
        negatives: the same of the others.
        confidence: of the interval.

    Returns:
        None where one of both kinds is missing.
    """
    of_positive, of_negative = scores.positive.sum(), scores.negative.sum()
    if of_positive <= 0 or of_negative <= 0 or min(positives, negatives) <= 0:
        return None
    positive, negative = scores.positive / of_positive, scores.negative / of_negative
    below = np.cumsum(negative) - negative / 2
    above = 1 - np.cumsum(positive) + positive / 2
    value = float(positive @ below)
    smaller = min(positives, negatives)
    spread = float(positive @ (below - value) ** 2) / max(positives - 1, 1.0)
    spread += float(negative @ (above - value) ** 2) / max(negatives - 1, 1.0)
    if spread <= 0 or not 0 < value < 1:
        # All above all others: each of the smaller kind has been seen to be so once.
        nearest = ((1 - confidence) / 2) ** (1 / smaller)
        if value >= 1:
            return 1.0, Interval(nearest, 1.0)
        return (0.0, Interval(0.0, 1 - nearest)) if value <= 0 else (value, Interval(0.0, 1.0))
    middle = math.log(value / (1 - value))
    half = quantile(confidence) * math.sqrt(spread) / (value * (1 - value))
    return value, Interval(_from_odds(middle - half), _from_odds(middle + half))


def _from_odds(log_odds: float) -> float:
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


def calibration_error(
    scores: ScoreBins, worth: float, confidence: float = CONFIDENCE
) -> tuple[float, Interval] | None:
    """Expected calibration error over groups of about as many rows each, and its interval.

    The estimate is never below the true one by more than noise adds, nor above it by more:
    |estimate - truth| is at most the sum over groups of their share times their noise. The
    interval takes a high quantile of that sum, so it is wide, and reaches down to 0 where noise
    alone explains what is seen.

    Args:
        scores: rows by score.
        worth: what all rows are worth, in independent ones.
        confidence: of the interval.
    """
    groups = score_groups(scores)
    if groups is None or worth <= 0:
        return None
    part, observed, expected = groups.share, groups.observed, groups.expected
    value = float(part @ np.abs(expected - observed))
    # One pseudo-row of each kind: a group in which all came true is not free of noise.
    count = part * worth
    smoothed = (observed * count + 1) / (count + 2)
    deviation = part * np.sqrt(smoothed * (1 - smoothed) / count)
    # Of |N(0, s)| the mean is s √(2/π), the variance s² (1 - 2/π); one side, hence the quantile.
    noise = float(deviation.sum()) * math.sqrt(2 / math.pi)
    noise += quantile(2 * confidence - 1) * math.sqrt(
        float(deviation @ deviation) * (1 - 2 / math.pi)
    )
    return value, Interval(max(0.0, value - noise), min(1.0, value + noise))


def figures(counts: Counts) -> list[Figure]:
    """Every figure that the counts give, in the order in which they are read."""
    found: list[Figure] = []
    for name in _SHARES:
        of = counts.measure(name)
        if of.mean is not None:
            found.append(_figure(name, of.mean, share(of), of))
    found += _score_figures(counts)
    for name, bounds in _MEANS:
        of = counts.measure(name)
        if of.mean is not None:
            found.append(_figure(name, of.mean, mean(of, bounds), of))
    squares = counts.measure("squared_error")
    if squares.mean is not None:
        around = mean(squares)
        rooted = None if around is None else Interval(_root(around.low), _root(around.high))
        found.append(_figure("rmse", _root(squares.mean), rooted, squares))
    return found


def _score_figures(counts: Counts) -> list[Figure]:
    """AUC and the calibration error, of the rows that have a score and a label."""
    if counts.scores is None:
        return []
    found = []
    all_rows = counts.measure("calibration_gap")
    area = auc(
        counts.scores,
        counts.measure("scored_true").effective,
        counts.measure("scored_false").effective,
    )
    if area is not None:
        found.append(_figure("auc", *area, all_rows))
    error = calibration_error(counts.scores, all_rows.effective)
    if error is not None:
        found.append(_figure("calibration_error", *error, all_rows))
    return found


def _root(value: float) -> float:
    return math.sqrt(max(0.0, value))
