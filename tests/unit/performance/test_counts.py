import numpy as np
import pytest

from serving.performance.counts import BINS, Counts, Moments, ScoreBins, score_bins

random = np.random.default_rng(0)
VALUES = random.random(300)
WEIGHTS = random.integers(1, 6, 300).astype(float)


def test_the_mean_and_its_variance_are_the_textbooks() -> None:
    """With weights of one and no clusters: mean and s²/n."""
    found = Moments.of(VALUES)

    assert found.mean == pytest.approx(VALUES.mean())
    assert found.variance == pytest.approx(VALUES.var(ddof=1) / 300)
    assert found.effective == pytest.approx(300)


def test_rows_that_are_copies_tell_no_more() -> None:
    """A cluster of ten copies has the variance of one row."""
    copies = Moments.of(np.repeat(VALUES, 10), clusters=np.repeat(np.arange(300), 10))

    assert copies.rows == 3000
    assert copies.variance == pytest.approx(Moments.of(VALUES).variance)
    assert copies.effective == pytest.approx(300)


def test_parts_add_up_to_the_whole() -> None:
    """Counting two halves and adding is counting all."""
    halves = [slice(0, 120), slice(120, 300)]
    truth = (VALUES > 0.5).astype(float)

    whole = Counts(
        measures={"accuracy": Moments.of(VALUES, WEIGHTS)},
        scores=ScoreBins.of(VALUES, truth, WEIGHTS),
    )
    one, other = (
        Counts(
            measures={"accuracy": Moments.of(VALUES[part], WEIGHTS[part])},
            scores=ScoreBins.of(VALUES[part], truth[part], WEIGHTS[part]),
        )
        for part in halves
    )
    added = one + other

    for name in Moments.__struct_fields__:
        expected = getattr(whole.measure("accuracy"), name)
        assert getattr(added.measure("accuracy"), name) == pytest.approx(expected)
    assert added.scores is not None
    assert whole.scores is not None
    np.testing.assert_allclose(added.scores.positive, whole.scores.positive)
    np.testing.assert_allclose(added.scores.score, whole.scores.score)
    assert (one + Counts(measures={})).scores is one.scores


def test_bins_are_in_the_scores_order_and_reach_both_ends() -> None:
    """0 is in the first bin, 1 in the last, and a larger score never in an earlier one."""
    scores = np.sort(np.concatenate([[0.0, 1.0, 1e-300, 1 - 1e-16], random.random(1000)]))

    bins = score_bins(scores)

    assert (bins[0], bins[-1]) == (0, BINS - 1)
    assert (np.diff(bins) >= 0).all()


def test_rare_scores_are_told_apart() -> None:
    """A thousandth and a thousandth and a twentieth more are in different bins."""
    assert len(set(score_bins([0.001, 0.00105, 0.0011]).tolist())) == 3
