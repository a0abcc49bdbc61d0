from typing import Any

import numpy as np
import pytest

from serving.performance.counts import Moments, ScoreBins
from serving.performance.measures import Rows, count_delays, count_rows

COUNT = 600
random = np.random.default_rng(0)
SCORE = random.random(COUNT)
TRUTH = np.where(random.random(COUNT) < 0.6, (random.random(COUNT) < SCORE) * 1.0, np.nan)
WEIGHT = random.integers(1, 4, COUNT).astype(float)
CLUSTER = random.integers(0, 150, COUNT).astype(np.uint64)
GROUP = random.integers(0, 3, COUNT)


def rows(**columns: Any) -> Rows:
    """Rows with scores, of which some have labels."""
    known = ~np.isnan(TRUTH)
    decision = (SCORE >= 0.5).astype(float)
    given = {
        "group": GROUP, "cluster": CLUSTER, "weight": WEIGHT, "labelled": known, "truth": TRUTH,
        "right": np.where(known, decision == TRUTH, np.nan), "decision": decision, "score": SCORE,
        "due": np.arange(COUNT) % 2 == 0, "age": np.arange(COUNT) * 60.0,
        "delay": np.where(known, 30.0 * np.arange(COUNT), np.nan),
    }  # fmt: skip
    return Rows(**(given | columns))


def same(found: Moments, expected: Moments) -> bool:
    """Equal but for the order of adding."""
    return all(
        getattr(found, name) == pytest.approx(getattr(expected, name))
        for name in Moments.__struct_fields__
    )


def test_every_group_is_counted_as_if_it_were_alone() -> None:
    """Moments of a measure in a group are those of its own rows, clusters and weights."""
    counts = count_rows(rows(), 3, "binary")

    for group, found in enumerate(counts):
        own = group == GROUP
        true = own & (TRUTH == 1)
        known = own & ~np.isnan(TRUTH)
        decided = (SCORE >= 0.5).astype(float)
        assert (found.rows, found.labelled) == (own.sum(), known.sum())
        for name, where, values in (
            ("selection_rate", own, decided),
            ("recall", true, decided),
            ("accuracy", known, (decided == TRUTH) * 1.0),
            ("brier", known, (SCORE - TRUTH) ** 2),
            ("coverage", own & (np.arange(COUNT) % 2 == 0), ~np.isnan(TRUTH) * 1.0),
        ):
            expected = Moments.of(values[where], WEIGHT[where], CLUSTER[where])
            assert same(found.measure(name), expected), (group, name)
        bins = ScoreBins.of(SCORE[known], TRUTH[known], WEIGHT[known])
        assert found.scores is not None
        np.testing.assert_allclose(found.scores.positive, bins.positive)
        np.testing.assert_allclose(found.scores.score, bins.score)


def test_parts_with_whole_clusters_add_up() -> None:
    """What is counted of the even and of the odd clusters is the count of all."""
    whole = count_rows(rows(), 3, "binary")
    everything = rows()
    parts = []
    for rest in (0, 1):
        chosen = rest == CLUSTER % 2
        part = Rows(**{name: getattr(everything, name)[chosen] for name in Rows.__struct_fields__})
        parts.append(count_rows(part, 3, "binary"))

    for all_of_it, one, other in zip(whole, *parts, strict=True):
        for name in all_of_it.measures:
            assert same((one + other).measure(name), all_of_it.measure(name)), name


def test_scores_that_are_no_probabilities_and_labels_that_are_no_classes_are_left_out() -> None:
    """They are neither right nor wrong; the decision still counts where it can."""
    score = SCORE.copy()
    score[:10] = 1.5
    truth = TRUTH.copy()
    truth[10:20] = 7.0

    [found] = count_rows(rows(score=score, truth=truth, group=GROUP * 0), 1, "binary")

    known = ~np.isnan(TRUTH)
    known[10:20] = False
    assert found.measure("accuracy").rows == known.sum()
    known[:10] = False
    assert found.measure("brier").rows == known.sum()


def test_a_certain_mistake_costs_much_and_not_everything() -> None:
    """The loss of a score of 0 for what came true is that of float32's smallest step."""
    zero = np.zeros(COUNT)

    [found] = count_rows(rows(score=zero, truth=zero + 1, group=GROUP * 0), 1, "binary")

    assert found.measure("log_loss").mean == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_other_tasks_have_their_own_measures() -> None:
    """Classes are right or wrong, numbers are off by something, an unknown task has neither."""
    one = {"group": GROUP * 0}

    [multiclass] = count_rows(rows(**one), 1, "multiclass")
    [regression] = count_rows(rows(**one), 1, "regression")
    [unknown] = count_rows(rows(**one), 1, "")

    assert multiclass.measures.keys() == {"coverage", "accuracy"}
    assert regression.measures.keys() == {
        "coverage", "absolute_error", "squared_error", "bias",
    }  # fmt: skip
    assert unknown.measures.keys() == {"coverage"}
    assert regression.measure("bias").rows == (~np.isnan(TRUTH)).sum()


def test_no_rows_give_empty_counts() -> None:
    """A group without rows has none, and nothing fails."""
    nothing = Rows(**{name: getattr(rows(), name)[:0] for name in Rows.__struct_fields__})

    [found] = count_rows(nothing, 1, "binary")

    assert (found.rows, found.measure("accuracy").mean, found.scores) == (0, None, None)
    assert count_delays(nothing, [60.0])[0].rows == 0


def test_a_delay_is_of_rows_that_are_at_least_as_old() -> None:
    """Labels come after half the row's age here."""
    [early, late] = count_delays(rows(), [600.0, 6000.0])

    known = ~np.isnan(TRUTH)
    old = np.arange(COUNT) * 60.0 >= 6000.0
    within = known & (30.0 * np.arange(COUNT) <= 6000.0)
    assert late.rows == old.sum()
    assert late.wx == pytest.approx(WEIGHT[old & within].sum())
    assert early.rows == (np.arange(COUNT) * 60.0 >= 600.0).sum()
