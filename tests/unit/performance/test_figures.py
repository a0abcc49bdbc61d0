import numpy as np
import pytest
from sklearn import metrics

from serving.performance.counts import Counts, Moments, ScoreBins
from serving.performance.figures import auc, calibration_error, figures, mean, share

ROUNDS = 300
LEAST = 0.905
"""Of 300 rounds with a chance of 95 % each, fewer than 272 hits come once in 2,000 times
(binomial); an interval that is too narrow by a third hits 81 %."""


def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and what came true; calibrated but for a slope of 0.8."""
    odds = random.normal(-1, 1.5, count)
    true = random.random(count) < 1 / (1 + np.exp(-0.8 * odds + 0.1))
    return 1 / (1 + np.exp(-odds)), true.astype(float)


def counted(scores: np.ndarray, true: np.ndarray, clusters: np.ndarray | None = None) -> Counts:
    """The counts of some rows."""

    def moments(values: np.ndarray, rows: np.ndarray | None = None) -> Moments:
        rows = np.ones(len(true), bool) if rows is None else rows
        return Moments.of(values[rows], clusters=None if clusters is None else clusters[rows])

    decided = (scores >= 0.5).astype(float)
    one = np.ones(len(true))
    return Counts(
        measures={
            "accuracy": moments((decided == true).astype(float)),
            "recall": moments(decided, true > 0),
            "false_positive_rate": moments(decided, true == 0),
            "scored_true": moments(one, true > 0),
            "scored_false": moments(one, true == 0),
            "calibration_gap": moments(scores - true),
            "brier": moments((scores - true) ** 2),
            "log_loss": moments(-np.log(np.where(true > 0, scores, 1 - scores))),
            "squared_error": moments((scores - true) ** 2),
        },
        scores=ScoreBins.of(scores, true),
    )


TRUTH = {one.name: one.value for one in figures(counted(*draw(np.random.default_rng(9), 400_000)))}


@pytest.mark.parametrize("count", [60, 400])
@pytest.mark.parametrize("repeats", [1, 4])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int, repeats: int) -> None:
    """95 % of them do, for independent rows and for rows that come four times each."""
    random = np.random.default_rng(count + repeats)
    hits: dict[str, int] = {}
    for _ in range(ROUNDS):
        scores, true = (np.repeat(one, repeats) for one in draw(random, count))
        clusters = np.repeat(np.arange(count), repeats)
        for one in figures(counted(scores, true, clusters)):
            assert one.low is not None
            assert one.high is not None
            hits[one.name] = hits.get(one.name, 0) + (one.low <= TRUTH[one.name] <= one.high)

    assert len(hits) == 9
    assert {name: hit for name, hit in hits.items() if hit < LEAST * ROUNDS} == {}


def test_the_area_agrees_with_scikit_learn() -> None:
    """Ties within a bin of 1.6 % of the odds cost less than a thousandth."""
    scores, true = draw(np.random.default_rng(1), 5000)

    found = auc(ScoreBins.of(scores, true), true.sum(), (1 - true).sum())

    assert found is not None
    assert found[0] == pytest.approx(metrics.roc_auc_score(true, scores), abs=1e-4)


def test_weighted_scores_give_scikit_learns_weighted_area() -> None:
    """A row of weight three is three rows."""
    random = np.random.default_rng(2)
    scores, true = draw(random, 3000)
    weights = random.integers(1, 4, 3000).astype(float)

    found = auc(ScoreBins.of(scores, true, weights), 100.0, 100.0)

    assert found is not None
    expected = metrics.roc_auc_score(true, scores, sample_weight=weights)
    assert found[0] == pytest.approx(expected, abs=2e-4)


def test_a_perfect_order_of_few_rows_is_no_proof() -> None:
    """With five rows of a kind the interval reaches down to 0.48; with none there is no area."""
    scores = np.array([0.1] * 5 + [0.9] * 5)
    true = np.array([0.0] * 5 + [1.0] * 5)

    found = auc(ScoreBins.of(scores, true), 5, 5)
    turned = auc(ScoreBins.of(1 - scores, true), 5, 5)

    assert found is not None
    assert turned is not None
    assert found[0] == 1.0
    assert found[1].low == pytest.approx(0.025 ** (1 / 5))
    assert turned[1].high == pytest.approx(1 - 0.025 ** (1 / 5))
    assert auc(ScoreBins.of(scores[:5], true[:5]), 0, 5) is None


def test_a_calibrated_model_may_have_no_calibration_error() -> None:
    """The interval reaches 0 where noise explains what is seen, and not where it does not."""
    random = np.random.default_rng(3)
    scores = random.random(2000)
    honest = (random.random(2000) < scores).astype(float)
    boastful = (random.random(2000) < scores**2).astype(float)

    good = calibration_error(ScoreBins.of(scores, honest), 2000)
    bad = calibration_error(ScoreBins.of(scores, boastful), 2000)

    assert good is not None
    assert bad is not None
    assert good[1].low == 0.0
    assert bad[1].low > 0.05
    # The mean of s - s² over 0 to 1.
    assert bad[0] == pytest.approx(1 / 6, abs=0.03)


def test_too_little_has_no_interval_or_the_widest() -> None:
    """Unbounded means of few rows have none; bounded ones that of the largest variance."""
    few = Moments.of([0.1, 0.2, 0.3])
    same = Moments.of([1.0] * 40)

    assert mean(few) is None
    around = mean(few, (0.0, 1.0))
    assert around is not None
    assert around.high - around.low > 0.5
    surely = mean(same, (0.0, 1.0))
    assert surely is not None
    assert surely.low == pytest.approx(share(same).low)
    assert mean(Moments()) is None


def test_nothing_counted_gives_no_figures() -> None:
    """No rows, no figures; nothing is divided by zero."""
    assert figures(Counts(measures={})) == []
    assert share(Moments()).low == 0.0
