"""Joined rows become counts: every measure of every group at once."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.performance.counts import BINS, Counts, Moments, ScoreBins, score_bins

__all__ = ["Rows", "count_delays", "count_rows"]

_SMALLEST: Final = float(np.finfo(np.float32).eps)
"""A score of 0 for what came true would be infinitely wrong; this is as near to it as counts."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Rows(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Answered rows by column, each of shape [n]; NaN where a row has no such value.

    `group` is a number from 0 for what rows are told apart by, `cluster` is the same for rows of
    one entity. `weight` is 1/p of being kept. `truth` is the label as a number, `right` whether
    the decision is the label, `due` whether the row's time for a label is over; `age` and `delay`
    are seconds since the prediction until now, and until the label was known.
    """

    group: NDArray[np.int64]
    cluster: NDArray[np.uint64]
    weight: Floats
    labelled: Mask
    truth: Floats
    right: Floats
    decision: Floats
    score: Floats
    due: Mask
    age: Floats
    delay: Floats


class _Clusters:
    """Where each row's cluster is, clusters of several groups counted for each."""

    def __init__(self, group: NDArray[np.int64], cluster: NDArray[np.uint64], groups: int) -> None:
        self.groups = groups
        self._group = group
        _, place = np.unique(cluster, return_inverse=True)
        if groups > 1:
            both, place = np.unique(place * groups + group, return_inverse=True)
            self._of = both % groups
        else:
            self._of = np.zeros(int(place.max(initial=-1)) + 1, np.int64)
        self._place = place

    def moments(self, values: Floats, weights: Floats, rows: Mask) -> list[Moments]:
        """Moments of each group, over these rows."""
        chosen = np.flatnonzero(rows)
        place, weight = self._place[chosen], weights[chosen]
        size = len(self._of)
        there = np.bincount(place, minlength=size) > 0
        whole = np.bincount(place, weight, size)
        part = np.bincount(place, weight * values[chosen], size)

        def by_group(of_cluster: NDArray[Any]) -> list[float]:
            if self.groups == 1:
                return [float(of_cluster.sum())]
            return [float(one) for one in np.bincount(self._of, of_cluster, self.groups)]

        columns = zip(
            np.bincount(self._group[chosen], minlength=self.groups).tolist(),
            by_group(there), by_group(whole), by_group(part),
            by_group(whole * whole), by_group(whole * part), by_group(part * part),
            strict=True,
        )  # fmt: skip
        return [
            Moments(rows=rows, clusters=int(clusters), w=w, wx=wx, ww=ww, wwx=wwx, wwxx=wwxx)
            for rows, clusters, w, wx, ww, wwx, wwxx in columns
        ]


def count_rows(rows: Rows, groups: int, task: str) -> list[Counts]:
    """Count every measure of a task for each group.

    Args:
        rows: none of them has a group of `groups` or more.
        groups: how many there are.
        task: `binary`, `multiclass` or `regression`; of another one only coverage is counted.
    """
    clusters = _Clusters(rows.group, rows.cluster, groups)
    measures = {
        name: clusters.moments(values, rows.weight, where)
        for name, values, where in _measures(rows, task)
    }
    sizes = np.bincount(rows.group, minlength=groups).tolist()
    labelled = np.bincount(rows.group[rows.labelled], minlength=groups).tolist()
    scores = _scores(rows, groups) if task == "binary" else [None] * groups
    return [
        Counts(
            rows=sizes[group],
            labelled=labelled[group],
            measures={name: of[group] for name, of in measures.items()},
            scores=scores[group],
        )
        for group in range(groups)
    ]


def _measures(rows: Rows, task: str) -> list[tuple[str, Floats, Mask]]:
    """Name, values, and the rows that count, of every measure."""
    truth, decision = rows.truth, rows.decision
    found: list[tuple[str, Floats, Mask]] = [
        ("coverage", rows.labelled.astype(np.float64), rows.due)
    ]
    if task == "multiclass":
        found.append(("accuracy", rows.right, ~np.isnan(rows.right)))
    elif task == "regression":
        error = decision - truth
        known = np.isfinite(error)
        found += [
            ("absolute_error", np.abs(error), known),
            ("squared_error", error * error, known),
            ("bias", error, known),
        ]
    elif task == "binary":
        decided, true, false = ~np.isnan(decision), truth == 1, truth == 0
        known = true | false
        chosen = (decision == 1).astype(np.float64)
        found += [
            ("accuracy", (decision == truth).astype(np.float64), decided & known),
            ("selection_rate", chosen, decided),
            ("recall", chosen, decided & true),
            ("false_positive_rate", chosen, decided & false),
            ("precision", truth, (decision == 1) & known),
            ("base_rate", truth, known),
            *_score_measures(rows, true, false),
        ]
    return found


def _score_measures(rows: Rows, true: Mask, false: Mask) -> list[tuple[str, Floats, Mask]]:
    within = (rows.score >= 0) & (rows.score <= 1)
    scored = within & (true | false)
    gap = rows.score - rows.truth
    surprise = np.ones_like(gap)
    surprise[scored] = np.maximum(1 - np.abs(gap[scored]), _SMALLEST)
    one = np.ones_like(gap)
    return [
        ("calibration_gap", gap, scored),
        ("brier", gap * gap, scored),
        ("log_loss", -np.log(surprise), scored),
        ("scored_true", one, within & true),
        ("scored_false", one, within & false),
    ]


def _scores(rows: Rows, groups: int) -> list[ScoreBins | None]:
    known = (rows.truth == 1) | (rows.truth == 0)
    chosen = np.flatnonzero((rows.score >= 0) & (rows.score <= 1) & known)
    if len(chosen) == 0:
        return [None] * groups
    score, truth, weight = rows.score[chosen], rows.truth[chosen], rows.weight[chosen]
    place = rows.group[chosen] * BINS + score_bins(score)

    def by_group(values: Floats) -> Floats:
        sums = np.bincount(place, values, groups * BINS).astype(np.float64, copy=False)
        return sums.reshape(groups, BINS)

    positive, negative = by_group(weight * truth), by_group(weight * (1 - truth))
    score_sums = by_group(weight * score)
    return [
        ScoreBins(positive=positive[group], negative=negative[group], score=score_sums[group])
        for group in range(groups)
    ]


def count_delays(rows: Rows, seconds: Sequence[float]) -> list[Moments]:
    """For each delay: labelled within it, of the rows that are at least that old."""
    clusters = _Clusters(np.zeros(len(rows.group), np.int64), rows.cluster, 1)
    moments = []
    for delay in seconds:
        within = (rows.delay <= delay).astype(np.float64)
        moments += clusters.moments(within, rows.weight, rows.age >= delay)
    return moments
