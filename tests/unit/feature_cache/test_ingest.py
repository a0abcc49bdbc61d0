from typing import Any

import pytest

from feature_cache.ingest import Unfit, event_time_ms, objects
from feature_cache.views import FeatureView, Field

NOW = 1_800_000_000_000
VIEW = FeatureView(
    view="v",
    entity={"person_id": "int32", "shop": "string"},
    fields={
        "spend": Field(type="float32", default=0.0),
        "visits": Field(type="int8", default=0),
        "member": Field(type="bool", default=False),
        "city": Field(type="string", default=""),
    },
)
GOOD: dict[str, Any] = {
    "person_id": 7,
    "shop": "north",
    "spend": 1.5,
    "visits": 3,
    "member": True,
    "city": "Bourges",
}


def test_a_row_that_fits_becomes_columns() -> None:
    """Keys, values and the stated time; null is a null and not a zero."""
    rows, numbers, rejects = objects(
        VIEW, [{**GOOD, "event_time": NOW - 5}, {**GOOD, "visits": None, "city": None}], NOW
    )

    assert rejects == []
    assert numbers == [0, 1]
    assert rows.entities == {"person_id": [7, 7], "shop": ["north", "north"]}
    assert rows.columns["visits"] == [3, 0]
    assert {name: mask.tolist() for name, mask in rows.nulls.items()} == {
        "visits": [False, True],
        "city": [False, True],
    }
    assert rows.event_ms.tolist() == [NOW - 5, NOW]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spend": "1"}, "spend is float32, not a string"),
        ({"spend": 1e39}, "spend is float32, and 1e+39 is too large for it"),
        ({"spend": 10**400}, "is too large for it"),
        ({"spend": True}, "spend is float32, not true or false"),
        ({"visits": 128}, "visits is int8, and 128 is none"),
        ({"visits": 1.0}, "visits is int8, and 1.0 is none"),
        ({"member": 1}, "member is true or false, not a number"),
        ({"city": 3}, "city is a string, not a number"),
        ({"city": "x" * (1 << 20) + "y"}, "city is longer than 1 MiB"),
        ({"city": "\ud800"}, "city holds half of a surrogate pair"),
        ({"shop": "\udc80"}, "the key shop holds half of a surrogate pair"),
        ({"city": ["x"]}, "city is a string, not a list or object"),
        ({"person_id": None}, "the key person_id is int32, not null"),
        ({"person_id": 1 << 31}, "and 2147483648 is out of its range"),
        ({"shop": 4}, "the key shop is a string, not a number"),
        ({"visit": 3}, "the view has no 'visit' (is 'visits' meant?)"),
        ({"event_time": "yesterday"}, "'yesterday' is neither ISO 8601 nor milliseconds"),
        ({"event_time": NOW + 61_000}, "event_time is 61 s in the future"),
        ({"event_time": -1}, "event_time is before 1970"),
        ({"event_time": 1.5}, "event_time is ISO 8601 or milliseconds since 1970, not a number"),
    ],
)
def test_a_row_that_does_not_fit_is_told_why_and_harms_no_other(
    change: dict[str, Any], reason: str
) -> None:
    """The reason names the value; the row before and the row behind are taken."""
    rows, numbers, [reject] = objects(VIEW, [GOOD, {**GOOD, **change}, GOOD], NOW)

    assert numbers == [0, 2]
    assert len(rows) == 2
    assert reject.row == 1
    assert reason in reject.reason


def test_missing_names_are_listed_with_the_near_one() -> None:
    """A renamed column is the commonest mistake."""
    row = {name: value for name, value in GOOD.items() if name not in ("visits", "city")}

    _, _, [reject] = objects(VIEW, [{**row, "visit": 3}], NOW)

    assert reject.reason == "no visits, city (is 'visit' meant?)"


@pytest.mark.parametrize("row", [None, 3, "x", [GOOD]])
def test_what_is_no_object_is_no_row(row: Any) -> None:
    """JSON holds other things too."""
    _, _, [reject] = objects(VIEW, [row], NOW)

    assert reject.reason == "a row is an object of names and values"


def test_a_null_is_no_value_for_a_view_that_rejects_missing_ones() -> None:
    """It would only be found when a request is refused."""
    view = FeatureView(
        view="v", entity={"id": "int64"}, fields={"n": Field(type="int32")}, on_missing="reject"
    )

    _, _, [reject] = objects(view, [{"id": 1, "n": None}], NOW)

    assert reject.reason == "no value for n, and the view rejects requests without one"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (1_767_323_045_678, 1_767_323_045_678),
        ("2026-01-02T03:04:05.678Z", 1_767_323_045_678),
        ("2026-01-02 03:04:05.678", 1_767_323_045_678),
        ("2026-01-02T04:04:05.678+01:00", 1_767_323_045_678),
        ("2026-01-02", 1_767_312_000_000),
    ],
)
def test_event_times(stated: Any, expected: int) -> None:
    """Milliseconds, or ISO 8601; no zone means UTC."""
    assert event_time_ms(stated) == expected


@pytest.mark.parametrize("stated", [True, None, 1 << 63, "", "12"])
def test_other_event_times_are_refused(stated: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(Unfit):
        event_time_ms(stated)
