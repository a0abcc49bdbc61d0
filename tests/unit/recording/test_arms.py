"""Joined rows as units of a comparison: who was drawn, in which order labels came."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import parquet_log
import pytest
from parquet_log import START, prediction_id, row

from serving.recording.arms import (
    labelled_rows,
    labelled_units,
    loss_pairs,
    loss_units,
)
from serving.recording.joined import JoinPlan, LogLacks, join
from serving.recording.label import Label
from serving.recording.labels import LabelStore
from serving.recording.losses import loss_of

SIDES = ("v2", "v1")
BRIER = loss_of("binary", "brier", scored=True)


def made(number: int, person: int, rho: float, arm: str = "production", **more: Any) -> Any:
    """Request `number`, of a person who was drawn at probability `rho` of the canary."""
    canary = arm == "canary"
    given = {
        "version": "v2" if canary else "v1",
        "role": arm,
        "assignment_reason": "assigned",
        "assignment_probability": rho if canary else 1 - rho,
        "entity.person_id": person,
        "feature.sex": 1.0,
    }
    return row(START + number, number, **(given | more))


def copied(number: int, person: int, **more: Any) -> Any:
    """The shadow copy of request `number`."""
    given = {"assignment_reason": "only", "assignment_probability": 1.0, "version": "v2"}
    return made(number, person, 0.5, role="shadow", **(given | more))


def came(log: Path, values: Sequence[tuple[int, float]]) -> None:
    """Labels of requests, in the order in which they arrived."""
    store = LabelStore(log / "labels")
    labels = [
        Label(
            model="demo", prediction_id=prediction_id(START + number, number), row=0, entity="",
            time=0, tolerance=0.0, number=value, text="", label_time=int((START + 500) * 1e6),
            source="test",
        )
        for number, value in values
    ]  # fmt: skip
    store.append(labels, actor="test", received=1)
    store.close()


def joined(
    log: Path, rows: list[Any], labels: Sequence[tuple[int, float]], **more: Any
) -> duckdb.DuckDBPyConnection:
    """The table over these."""
    parquet_log.write_log(log, rows)
    came(log, labels)
    connection = duckdb.connect()
    given = {
        "model": "demo", "task": "binary", "score": "probabilities[1]", "entity": ["person_id"],
        "slices": ["sex"], "units": "person_id", "horizon": 1e9, "until": START + 1e6,
        "now": START + 1000.0,
    }  # fmt: skip
    join(connection, log, JoinPlan(**(given | more)))  # type: ignore[arg-type]
    return connection


def test_units_come_in_the_order_of_their_first_label(tmp_path: Path) -> None:
    """Whoever is told of late comes late, with all that is known of them."""
    rows = [
        made(1, 7, 0.1, score=0.5),
        made(2, 8, 0.1, "canary", score=0.5),
        made(3, 7, 0.1, score=1.0),
        made(4, 9, 0.1, score=0.0),
    ]
    connection = joined(tmp_path, rows, [(2, 1.0), (3, 1.0), (1, 1.0)])

    units = loss_units(connection, BRIER, SIDES)

    assert units.canary.tolist() == [True, False]
    assert units.value == pytest.approx([0.25, (0.25 + 0.0) / 2])
    assert units.rho == pytest.approx([0.1, 0.1])


def test_a_key_that_moved_to_the_canary_counts_where_it_was_drawn_first(tmp_path: Path) -> None:
    """When the weight rose nobody drew again: the later rows are left out."""
    rows = [made(1, 7, 0.05, score=0.5), made(2, 7, 0.25, "canary", score=0.0)]
    connection = joined(tmp_path, rows, [(1, 1.0), (2, 1.0)])

    units = loss_units(connection, BRIER, SIDES)

    assert (units.canary.tolist(), units.value.tolist()) == ([False], [0.25])


def test_both_versions_have_the_same_probability_to_the_last_bit(tmp_path: Path) -> None:
    """1 - (1 - ρ) is another number than ρ for many ρ."""
    rows = [
        made(n, n, rho, arm)
        for n, (rho, arm) in enumerate(
            [(0.01, "canary"), (0.01, "production"), (0.07, "canary"), (0.07, "production")], 1
        )
    ]
    connection = joined(tmp_path, rows, [(n, 1.0) for n in range(1, 5)])

    assert loss_units(connection, BRIER, SIDES).rho.tolist() == [0.01, 0.01, 0.07, 0.07]


@pytest.mark.parametrize(
    "more",
    [
        {"assignment_reason": "override"},
        {"assignment_reason": "only", "assignment_probability": 1.0},
        {"assignment_probability": 0.0},
        {"version": "v3"},
        {"role": "pinned"},
    ],
)
def test_who_was_not_drawn_for_these_versions_does_not_count(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    """Overridden, before the canary, of another version."""
    rows = [made(1, 7, 0.1, **more), made(2, 8, 0.1)]
    connection = joined(tmp_path, rows, [(1, 1.0), (2, 1.0)])

    assert len(loss_units(connection, BRIER, SIDES).value) == 1


def test_requests_drawn_by_themselves_are_units(tmp_path: Path) -> None:
    """Of one person two, where the key was missing or there is none."""
    rows = [made(n, 7, 0.1, assignment_reason="random") for n in (1, 2)]
    labels = [(1, 1.0), (2, 1.0)]

    assert len(loss_units(joined(tmp_path, rows, labels), BRIER, SIDES).value) == 2
    keyless = joined(tmp_path / "other", [made(n, 7, 0.1) for n in (1, 2)], labels, units="")
    assert len(loss_units(keyless, BRIER, SIDES).value) == 2


def test_a_unit_is_in_each_slice_that_it_has_rows_of(tmp_path: Path) -> None:
    """With the mean of those rows; without a value it is in `(none)`."""
    rows = [
        made(1, 7, 0.1, score=0.5),
        made(2, 7, 0.1, score=0.0, **{"feature.sex": 2.0}),
        made(3, 8, 0.1, score=1.0, **{"feature.sex": None}),
    ]
    connection = joined(tmp_path, rows, [(1, 1.0), (2, 1.0), (3, 1.0)])

    units = loss_units(connection, BRIER, SIDES, "slice0")

    assert dict(zip(units.slice.tolist(), units.value.tolist(), strict=True)) == {
        "1": 0.25, "2": 1.0, "(none)": 0.0,
    }  # fmt: skip


def test_copies_are_paired_with_the_answer_they_are_of(tmp_path: Path) -> None:
    """Both have the same label; a copy whose answer is missing is no pair."""
    only = {"assignment_reason": "only", "assignment_probability": 1.0}
    rows = [
        made(1, 7, 0.5, score=1.0, **only),
        copied(1, 7, score=0.5),
        made(2, 7, 0.5, score=1.0, **only),
        copied(2, 7, score=1.0),
        copied(3, 8, score=0.5),
        made(4, 9, 0.5, score=1.0, assignment_reason="override"),
        copied(4, 9, score=0.5),
    ]
    connection = joined(tmp_path, rows, [(n, 1.0) for n in range(1, 5)])

    pairs = loss_pairs(connection, BRIER, SIDES)

    assert pairs.canary.tolist() == [(0.25 + 0.0) / 2]
    assert pairs.production.tolist() == [0.0]


def test_coverage_is_in_the_order_of_predictions(tmp_path: Path) -> None:
    """The share of each unit's rows that have a label, of those old enough."""
    rows = [made(1, 7, 0.1), made(2, 8, 0.1, "canary"), made(3, 7, 0.1), made(90, 9, 0.1)]
    connection = joined(tmp_path, rows, [(3, 1.0), (2, 0.0)])

    units = labelled_units(connection, SIDES, before=START + 50.0)

    assert (units.value.tolist(), units.canary.tolist()) == ([0.5, 1.0], [False, True])


def test_labels_of_the_new_version_are_counted_with_its_copies(tmp_path: Path) -> None:
    """Not those of production; and the median delay is of all."""
    rows = [made(1, 7, 0.1), copied(1, 7), made(2, 8, 0.1, "canary"), made(3, 9, 0.1, "canary")]
    connection = joined(tmp_path, rows, [(1, 1.0), (2, 1.0)])

    labels, delay = labelled_rows(connection, "v2")

    assert labels == 2
    assert delay == pytest.approx(499, abs=1)


def test_a_key_that_the_log_does_not_have_is_named(tmp_path: Path) -> None:
    """Without it nobody can tell who was drawn."""
    with pytest.raises(LogLacks, match="no key 'household', by which versions are drawn"):
        joined(tmp_path, [made(1, 7, 0.1)], [], units="household")


def test_an_empty_log_has_no_units(tmp_path: Path) -> None:
    """Nor an error."""
    connection = joined(tmp_path, [], [])

    assert len(loss_units(connection, BRIER, SIDES).value) == 0
    assert len(loss_pairs(connection, BRIER, SIDES, "slice0").canary) == 0
    assert labelled_rows(connection, "v2") == (0, None)
