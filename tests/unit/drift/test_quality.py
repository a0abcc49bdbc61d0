"""Data quality against the reference."""

import numpy as np
import pytest

from serving.config.frozen_bins import FrozenColumn, Reference
from serving.drift.quality import Quality, Traffic, ViewTraffic, assess, is_served

AGE = FrozenColumn(
    type="float", kind="numeric", edges=[0.0, 50.0, 100.0], counts=[100, 0, 0, 0, 4900, 5000]
)
SEX = FrozenColumn(type="integer", kind="categorical", values=[1, 2], counts=[0, 0, 0, 5000, 5000])
REFERENCE = Reference(
    model="m",
    rows=10_000,
    created="2026-01-01T00:00:00Z",
    source="test",
    columns={"age": AGE, "sex": SEX},
    statuses={"person": {"OK": 6000, "OK|CACHED": 3000, "NOT_FOUND|DEFAULTED": 1000}},
)


def kinds(quality: Quality) -> list[str]:
    """What was found, worst first."""
    return [f"{one.subject} {one.kind}" for one in quality.findings]


def view(older: int = 0, aged: int = 0, **statuses: int) -> Traffic:
    """Traffic of one view; `__` stands for `|`."""
    named = {status.replace("__", "|"): rows for status, rows in statuses.items()}
    return Traffic(views={"person": ViewTraffic(statuses=named, aged=aged, older=older)})


def column(name: str, *counts: int) -> Traffic:
    """Traffic of one column."""
    return Traffic(columns={name: np.array(counts)})


def test_what_is_usual_is_sound() -> None:
    """One row in ten was not found in the reference either."""
    found = assess(REFERENCE, view(OK=900, NOT_FOUND__DEFAULTED=100, aged=900))

    assert not found.broken
    assert found.words == "6 checks, nothing wrong"


def test_a_store_that_stopped_answering_is_found() -> None:
    """Its rows were filled with defaults, which looks like drift and is none."""
    found = assess(REFERENCE, view(OK=500, TIMEOUT__DEFAULTED=500))

    assert found.broken
    assert "view `person` timeout" in kinds(found)
    assert found.words.startswith("view `person`: the store did not answer in time in 50.0%")


def test_more_rows_without_features_than_usual_are_found() -> None:
    """Three in ten instead of one."""
    found = assess(REFERENCE, view(OK=700, NOT_FOUND__DEFAULTED=300))

    assert set(kinds(found)) == {"view `person` not_found", "view `person` defaulted"}
    assert found.findings[0].expected == pytest.approx(0.1)


def test_old_features_are_found() -> None:
    """Nobody writes them any more; the values still look as ever."""
    found = assess(REFERENCE, view(OK=1000, aged=1000, older=400))

    assert kinds(found) == ["view `person` stale"]


def test_a_schema_that_changed_is_found() -> None:
    """What the store holds cannot be read as the view says."""
    assert kinds(assess(REFERENCE, view(OK=950, SCHEMA=50))) == ["view `person` schema"]


def test_more_nulls_than_usual_are_found() -> None:
    """Six of a hundred, where there was one."""
    found = assess(REFERENCE, column("age", 60, 0, 0, 0, 470, 470))

    assert kinds(found) == ["column `age` missing"]
    assert found.findings[0].words == "missing in 6.0% of rows (usually 1.0%)"


def test_values_out_of_range_and_new_ones_are_found() -> None:
    """Below and above are one share."""
    both = Traffic(
        columns={
            "age": np.array([10, 0, 40, 40, 450, 460]),
            "sex": np.array([0, 0, 30, 480, 490]),
        }
    )

    assert kinds(assess(REFERENCE, both)) == ["column `age` out_of_range", "column `sex` new"]


def test_a_proven_share_too_small_to_mend_is_not_told() -> None:
    """One in a thousand of a million rows."""
    rare = column("sex", 0, 0, 1000, 499_500, 499_500)

    assert not assess(REFERENCE, rare).broken
    assert assess(REFERENCE, rare, min_share=0.0005).broken


def test_a_burst_is_weighed_as_its_traffic_is() -> None:
    """Ten bad rows at once are one event."""
    bad = column("sex", 0, 0, 10, 200, 200)

    assert assess(REFERENCE, bad).broken
    assert not assess(REFERENCE, bad, overdispersion=20).broken


def test_another_type_is_found_and_is_the_worst() -> None:
    """Text where numbers were; whole numbers for floats are fine."""
    fine = Traffic(types={"age": "integer"})
    wrong = Traffic(types={"age": "string"}, views=view(OK=1, SCHEMA=999).views)

    assert not assess(REFERENCE, fine).broken
    assert kinds(assess(REFERENCE, wrong))[0] == "column `age` type"


def test_without_statuses_every_row_was_fine() -> None:
    """A reference frozen from a table knows of no store."""
    bare = Reference(model="m", rows=10_000, created="", source="table", columns=REFERENCE.columns)

    assert assess(bare, view(OK=900, NOT_FOUND__DEFAULTED=100)).broken


def test_no_traffic_is_no_finding() -> None:
    """Nothing can be said."""
    assert not assess(REFERENCE, view()).broken


def test_a_default_is_not_a_served_value() -> None:
    """Stale and cached values are."""
    assert is_served("STALE|CACHED")
    assert is_served("OK")
    assert not is_served("DEFAULTED|OK")
