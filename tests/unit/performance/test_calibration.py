import numpy as np
import pytest

from serving.performance.calibration import GROUPS, calibration_curve
from serving.performance.counts import ScoreBins


def scored(count: int, *, shift: float = 0.0) -> ScoreBins:
    """Rows whose chance to come true is their score plus a shift."""
    source = np.random.default_rng(7)
    scores = source.uniform(0.1, 0.8, count)
    return ScoreBins.of(scores, source.random(count) < scores + shift)


def test_honest_scores_lie_on_the_diagonal() -> None:
    """Nearly every group's interval holds its mean score, and the groups are of equal size."""
    points = calibration_curve(scored(30_000), 30_000)

    assert len(points) == GROUPS
    assert sum(point.low <= point.score <= point.high for point in points) >= GROUPS - 2
    assert [point.share for point in points] == pytest.approx([1 / GROUPS] * GROUPS, abs=0.02)
    assert points == sorted(points, key=lambda point: point.score)


def test_scores_that_promise_too_little_lie_above_it() -> None:
    """A shift of the truth shows as a shift of every group."""
    points = calibration_curve(scored(30_000, shift=0.15), 30_000)

    assert all(point.low > point.score for point in points)


def test_nothing_is_told_of_no_rows() -> None:
    """No score, no curve."""
    assert calibration_curve(ScoreBins.of([], []), 0) == []
