"""Do scores mean what they say? Rows in groups of similar scores, and what came true in each."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.performance.counts import ScoreBins
from serving.performance.intervals import CONFIDENCE, wilson

__all__ = ["GROUPS", "CalibrationPoint", "ScoreGroups", "calibration_curve", "score_groups"]

GROUPS: Final = 15


class ScoreGroups(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Groups by score, ascending, float64[groups] each; empty ones are left out."""

    share: NDArray[np.float64]
    """Of all rows, by weight."""
    observed: NDArray[np.float64]
    """Share of the group that came true."""
    expected: NDArray[np.float64]
    """Mean score of the group."""


class CalibrationPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One group of rows: its mean score, and the share of it that came true, with its interval."""

    score: float
    value: float
    low: float
    high: float
    share: float
    """Of all rows that have a score and a label."""


def score_groups(scores: ScoreBins) -> ScoreGroups | None:
    """Cut rows by score into `GROUPS` groups of about as many rows each; None of no rows."""
    weight = scores.positive + scores.negative
    total = float(weight.sum())
    if total <= 0:
        return None
    middle = (np.cumsum(weight) - weight / 2) / total
    group = np.minimum((middle * GROUPS).astype(int), GROUPS - 1)

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(group, values, GROUPS).astype(np.float64, copy=False)

    size = summed(weight)
    filled = size > 0
    size = size[filled]
    return ScoreGroups(
        share=size / total,
        observed=summed(scores.positive)[filled] / size,
        expected=summed(scores.score)[filled] / size,
    )


def calibration_curve(
    scores: ScoreBins, worth: float, confidence: float = CONFIDENCE
) -> list[CalibrationPoint]:
    """What came true against what was scored, by ascending score.

    Args:
        scores: rows by score.
        worth: what all rows are worth, in independent ones.
        confidence: of the intervals (Wilson's).
    """
    groups = score_groups(scores)
    if groups is None or worth <= 0:
        return []
    points = []
    for share, observed, expected in zip(
        groups.share.tolist(), groups.observed.tolist(), groups.expected.tolist(), strict=True
    ):
        around = wilson(min(max(observed, 0.0), 1.0), share * worth, confidence)
        points.append(
            CalibrationPoint(
                score=expected, value=observed, low=around.low, high=around.high, share=share
            )
        )
    return points
