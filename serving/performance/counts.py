"""What has to be counted so that figures with intervals can be had: small states that add up.

Rows of one entity (or of one request, where there is none) resemble each other: a person who is
asked about a hundred times is one person. So sums are taken per cluster first, and squares are of
clusters. With clusters of one row and weights of 1 this is the textbook's variance. Weights are
1/p of the row's having been kept; a weighted mean is sum(w x) / sum(w), and its variance is
linearised (Särndal, Swensson and Wretman 1992, 5.6).
"""

from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BINS", "PER_UNIT", "UNITS", "Counts", "Moments", "ScoreBins", "score_bins"]

PER_UNIT: Final = 64
UNITS: Final = 16
BINS: Final = 2 * PER_UNIT * UNITS + 2
"""Bins of a score, evenly in log-odds: 0 is in the first, 1 in the last.

64 a unit is 1.6 % of the odds, at 0.001 as at 0.5 or 0.999; even steps of the score itself would
put all of a rare event's scores into one bin.
"""


def _sums(
    place: NDArray[np.int64], values: NDArray[np.float64], least: int = 0
) -> NDArray[np.float64]:
    """Sums of values by place; numpy's stubs say that bincount gives integers."""
    return np.bincount(place, values, least).astype(np.float64, copy=False)


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over clusters c of W = sum(w) and X = sum(w x).

    They add up where the clusters of both are different ones.
    """

    rows: int = 0
    clusters: int = 0
    w: float = 0.0
    """Sum of W."""
    wx: float = 0.0
    """Sum of X."""
    ww: float = 0.0
    """Sum of W²."""
    wwx: float = 0.0
    """Sum of W X."""
    wwxx: float = 0.0
    """Sum of X²."""

    @classmethod
    def of(
        cls, values: ArrayLike, weights: ArrayLike | None = None, clusters: ArrayLike | None = None
    ) -> Self:
        """Count values of shape [n], with their weights and the names of their clusters."""
        x = np.asarray(values, np.float64)
        w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
        if clusters is None:
            whole, part = w, w * x
        else:
            _, place = np.unique(np.asarray(clusters), return_inverse=True)
            whole, part = _sums(place, w), _sums(place, w * x)
        return cls(
            rows=len(x),
            clusters=len(whole),
            w=float(whole.sum()),
            wx=float(part.sum()),
            ww=float(whole @ whole),
            wwx=float(whole @ part),
            wwxx=float(part @ part),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            **{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        )

    @property
    def mean(self) -> float | None:
        """The weighted mean; None of nothing."""
        return self.wx / self.w if self.w > 0 else None

    @property
    def effective(self) -> float:
        """Clusters of equal weight that would tell as much (Kish 1965)."""
        return self.w**2 / self.ww if self.ww > 0 else 0.0

    @property
    def variance(self) -> float:
        """Of the mean; 0 where there are not two clusters."""
        if self.mean is None or self.clusters < 2:
            return 0.0
        spread = self.wwxx - 2 * self.mean * self.wwx + self.mean**2 * self.ww
        return max(0.0, spread) / self.w**2 * self.clusters / (self.clusters - 1)


def score_bins(scores: ArrayLike) -> NDArray[np.int64]:
    """The bin, 0 to BINS - 1, of scores of shape [n]."""
    score = np.asarray(scores, np.float64)
    inside = (score > 0) & (score < 1)
    odds = np.where(inside, score, 0.5)
    steps = np.floor(PER_UNIT * np.log(odds / (1 - odds)))
    half = PER_UNIT * UNITS
    middle = np.clip(steps, -half, half - 1).astype(np.int64) + half + 1
    return np.where(inside, middle, np.where(score <= 0, 0, BINS - 1))


class ScoreBins(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows by score and by what came true: float64[BINS] each.

    `score` is the sum of the scores themselves, so that a bin's mean is exact.
    """

    positive: NDArray[np.float64]
    negative: NDArray[np.float64]
    score: NDArray[np.float64]

    @classmethod
    def of(cls, scores: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """Count scores of shape [n] of rows that came true (1) or not (0)."""
        score = np.asarray(scores, np.float64)
        true = np.asarray(truth, np.float64)
        weight = np.ones_like(score) if weights is None else np.asarray(weights, np.float64)
        place = score_bins(score)
        return cls(
            positive=_sums(place, weight * true, BINS),
            negative=_sums(place, weight * (1 - true), BINS),
            score=_sums(place, weight * score, BINS),
        )

    def __add__(self, other: "ScoreBins") -> "ScoreBins":
        return ScoreBins(
            positive=self.positive + other.positive,
            negative=self.negative + other.negative,
            score=self.score + other.score,
        )


class Counts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything counted of one group of rows.

    `measures` by name: `accuracy` (right or not), `selection_rate`, `recall` (of those that came
    true), `false_positive_rate` (of those that did not), `precision`, `base_rate`, `brier`,
    `log_loss`, `calibration_gap` (score less truth), `absolute_error`, `squared_error`, `bias`,
    `coverage` (labelled, of those past the horizon); `scored_true` and `scored_false` only count.
    Those that make no sense are left out.
    """

    rows: int = 0
    """How many there are."""
    labelled: int = 0
    """How many of them have a label."""
    measures: dict[str, Moments]
    scores: ScoreBins | None = None

    def __add__(self, other: "Counts") -> "Counts":
        names = self.measures.keys() | other.measures.keys()
        both = [one.scores for one in (self, other) if one.scores is not None]
        return Counts(
            rows=self.rows + other.rows,
            labelled=self.labelled + other.labelled,
            measures={name: self.measure(name) + other.measure(name) for name in names},
            scores=both[0] + both[1] if len(both) == 2 else next(iter(both), None),
        )

    def measure(self, name: str) -> Moments:
        """The moments of one measure; none counted if it is not there."""
        return self.measures.get(name, Moments())
