"""The drift report: which columns, since when, and in what words."""

import numpy as np
import pytest

from serving.config.frozen_bins import Reference
from serving.drift.bins import compile_bins
from serving.drift.freezing import freeze
from serving.drift.report import DriftOptions, Window, joined, report

CHANCE = np.random.default_rng(11)
HOUR = 3600.0
SEEN = {"age": CHANCE.normal(40, 10, 20_000), "sex": CHANCE.integers(1, 3, 20_000)}
REFERENCE = Reference(
    model="m", rows=20_000, created="2026-01-01T00:00:00Z", source="test", columns=freeze(SEEN)
)
OPTIONS = DriftOptions(important=frozenset({"age"}))


def hour(number: int, rows: int = 1000, *, nulls: float = 0.0, older: float = 0.0) -> Window:
    """An hour of traffic in thirty parts; the same arguments give the same rows."""
    chance = np.random.default_rng([number, rows, int(1000 * nulls), int(1000 * older)])
    age = chance.normal(40 + older, 10, rows)
    age[chance.random(rows) < nulls] = np.nan
    values = {"age": age, "sex": chance.integers(1, 3, rows)}
    blocks = {
        name: np.stack(
            [compile_bins(REFERENCE.columns[name]).count(part) for part in np.array_split(one, 30)]
        )
        for name, one in values.items()
    }
    return Window(start=number * HOUR, end=(number + 1) * HOUR, blocks=blocks)


def test_a_quiet_window_names_nothing() -> None:
    """The report still has every column's figures."""
    found = report(REFERENCE, [hour(0)], OPTIONS)

    assert (found.level, found.rows) == ("none", 1000)
    assert found.words == "none of 2 columns drifted"
    assert {one.name for one in found.columns} == {"age", "sex"}
    assert all(one.since is None and not one.direction for one in found.columns)


def test_a_drift_is_told_in_words() -> None:
    """Which column, what of it, how much."""
    found = report(REFERENCE, [hour(0, nulls=0.05)], OPTIONS)
    age = found.columns[0]

    assert (age.name, age.level, age.since) == ("age", "inform", 0.0)
    assert age.direction.startswith("share of `missing` 0.0 % → ")
    assert age.moved[0].name == "missing"
    assert found.words.startswith("1 of 2 columns drifted, most of all `age`: share of `missing`")


def test_an_important_column_alerts_in_two_windows_of_three() -> None:
    """One window may be an accident."""
    once = report(REFERENCE, [hour(0), hour(1), hour(2, older=5)], OPTIONS)
    twice = report(REFERENCE, [hour(0, older=5), hour(1), hour(2, older=5)], OPTIONS)

    assert once.level == "inform"
    assert twice.level == "alert"


def test_an_unimportant_column_never_alerts() -> None:
    """Somebody may look at it; nobody is woken."""
    windows = [hour(number, older=5) for number in range(3)]

    assert report(REFERENCE, windows, DriftOptions()).level == "inform"


def test_the_score_alerts_like_an_important_column() -> None:
    """The model's own output sees most."""
    windows = [hour(number, older=5) for number in range(3)]

    assert report(REFERENCE, windows, DriftOptions(score="age")).level == "alert"


def test_since_is_where_the_current_run_began() -> None:
    """Earlier runs that ended do not count."""
    windows = [hour(0, older=5), hour(1), hour(2, older=5), hour(3, older=5)]

    [age] = [one for one in report(REFERENCE, windows, OPTIONS).columns if one.name == "age"]

    assert age.since == 2 * HOUR
    assert age.drifting == [True, False, True, True]


def test_an_alert_that_is_over_is_over() -> None:
    """Once fewer than two of the last three windows drifted."""
    over = [hour(0, older=5), hour(1, older=5), hour(2), hour(3)]

    assert report(REFERENCE, over, OPTIONS).level == "none"


def test_a_small_window_is_joined_with_the_one_before() -> None:
    """Its rows are not lost, and do not stand alone."""
    windows = joined([hour(0), hour(1, rows=100), hour(2)], 500)

    assert [one.rows for one in windows] == [1100, 1000]
    assert (windows[0].start, windows[0].end) == (0.0, 2 * HOUR)


def test_a_small_first_window_takes_those_after_it() -> None:
    """Until there are enough rows."""
    assert [one.rows for one in joined([hour(0, 100), hour(1, 450), hour(2)], 500)] == [550, 1000]


def test_too_few_rows_in_all_are_said() -> None:
    """The figures are there, and so is the doubt."""
    found = report(REFERENCE, [hour(0, rows=120)], OPTIONS)

    assert "120 rows are fewer than min_rows, 500" in found.words


def test_a_proven_shift_too_small_to_matter_is_not_told() -> None:
    """Much traffic proves anything; `min_effect` says what is worth telling."""
    windows = [hour(0, rows=15_000, older=0.7)]

    quiet = report(REFERENCE, windows, OPTIONS)
    told = report(REFERENCE, windows, DriftOptions(min_effect=0.001))

    assert quiet.level == "none"
    assert told.level == "inform"


def test_a_drift_that_stays_is_still_seen_after_a_day() -> None:
    """The windows before tell how restless traffic is; a step among them does not hide itself."""
    windows = [hour(i, older=5 if i >= 10 else 0) for i in range(24)]

    [age] = [one for one in report(REFERENCE, windows, OPTIONS).columns if one.name == "age"]

    assert age.since == 10 * HOUR
    assert age.level == "alert"


def test_counts_of_another_reference_are_refused() -> None:
    """They would be compared with bins they were not counted into."""
    window = Window(start=0, end=1, blocks={"age": np.ones((1, 3), np.int64)})

    with pytest.raises(ValueError, match="column `age` was counted into 3 bins"):
        report(REFERENCE, [window])


def test_a_column_nobody_counted_is_named() -> None:
    """A feature that is no longer sent must not look quiet."""
    window = hour(0)
    half = Window(start=0, end=HOUR, blocks={"sex": window.blocks["sex"]})

    assert report(REFERENCE, [half]).missing == ["age"]


def test_no_window_makes_an_empty_report() -> None:
    """Before the first hour is over."""
    found = report(REFERENCE, [])

    assert (found.level, found.columns, found.words) == ("none", [], "nothing was counted yet")
