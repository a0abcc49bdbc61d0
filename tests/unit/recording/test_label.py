from typing import Any

import pytest

from serving.recording.label import Label, Taken, Unfit, check
from serving.recording.outcomes import outcomes

NOW = 1_767_312_000_000_000
"""2026-01-02T00:00Z in microseconds."""

MADE_MS = 1_767_225_600_000
ID = f"{MADE_MS:x}~0a1~demo~v1~production"
MODELS = {
    "demo": Taken(
        task="binary",
        classes={"employed": 1, "not employed": 0},
        entity={"person_id": "INT64"},
        horizon=604800.0,
    ),
    "kinds": Taken(task="multiclass", entity={"shop": "INT32", "name": "BYTES"}, horizon=60.0),
    "free": Taken(horizon=60.0),
}


def by_id(**more: Any) -> Label:
    """A checked label by id."""
    return check({"prediction_id": ID, "label": 1, **more}, MODELS, NOW)


def test_a_label_by_id_takes_its_model_from_the_id() -> None:
    """What is not said: row 0, and known now."""
    assert by_id() == Label(
        model="demo", prediction_id=ID, row=0, entity="", time=0, tolerance=0.0, number=1.0,
        text="", label_time=NOW, source="",
    )  # fmt: skip


def test_a_label_by_entity_has_its_keys_in_one_order() -> None:
    """However they are written; the tolerance is the horizon unless said otherwise."""
    item = {"entity": {"shop": 7, "name": "zoë=1"}, "time": "2026-01-01T10:00+01:00", "label": "c"}

    label = check(item, MODELS, NOW, model="kinds", source="crm")

    assert label.entity == "name=zoë=1\x1fshop=7"
    assert label.time == (MADE_MS + 9 * 3_600_000) * 1000
    assert (label.tolerance, label.value, label.source) == (60.0, "c", "crm")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, 1.0), (0, 0.0), (1.0, 1.0), ("employed", 1.0), ("not employed", 0.0)],
)
def test_binary_labels_are_told_in_several_ways(value: object, expected: float) -> None:
    """Numbers, truth, and the names that versions give their classes."""
    assert by_id(label=value).number == expected


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"label": 2}, "the model's task is binary"),
        ({"label": "maybe"}, "`label` is 'maybe'"),
        ({"label": None}, "no `label`"),
        ({"label": [1]}, "`label` is a number, a text, true or false"),
        ({"lable": 1}, "there is no `lable` in a label; did you mean `label`?"),
        ({"prediction_id": "abc"}, "'abc' is no prediction_id"),
        ({"prediction_id": "zz~1~demo~v1~production"}, "is no prediction_id"),
        ({"prediction_id": ID.replace("demo", "gone")}, "there is no model 'gone'"),
        ({"prediction_id": 7}, "`prediction_id` is a text"),
        ({"model": "kinds"}, "the prediction is one of 'demo'"),
        ({"row": -1}, "`row` is the number of the row"),
        ({"row": True}, "`row` is the number of the row"),
        ({"entity": {"person_id": 1}}, "either `prediction_id` or `entity`"),
        ({"time": 0}, "go with `entity`"),
        ({"label_time": MADE_MS - 3_600_000}, "3,600 s before the prediction; are both clocks"),
        ({"label_time": NOW // 1000 + 60_000}, "`label_time` is 60 s in the future"),
        ({"label_time": "soon"}, "ISO 8601"),
        ({"label_time": -1}, "before 1970"),
        ({"label_time": 1.5}, "ISO 8601"),
        ({"source": "x" * 257}, "at most 256 characters"),
        ({"source": "\ud800"}, "surrogate"),
    ],
)
def test_what_is_no_label_is_told_why(more: dict[str, Any], words: str) -> None:
    """The message names the field and what it should be."""
    with pytest.raises(Unfit) as told:
        by_id(**more)

    assert words in str(told.value)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ([], "an object of names and values"),
        ({"entity": {"person_id": 1}, "label": 1}, "no `time`"),
        ({"entity": {"person": 1}, "time": 0, "label": 1}, "the model's keys: person_id"),
        ({"entity": {"person_id": "1"}, "time": 0, "label": 1}, "person_id is INT64, and '1'"),
        ({"entity": {"person_id": True}, "time": 0, "label": 1}, "person_id is INT64"),
        ({"entity": {"person_id": 1 << 63}, "time": 0, "label": 1}, "person_id is INT64"),
        ({"entity": {"person_id": 1}, "time": 0, "label": 1, "row": 1}, "`row` goes with"),
        ({"entity": {"person_id": 1}, "time": 0, "label": 1, "tolerance": 0}, "above 0"),
        ({"entity": {"person_id": 1}, "time": 0, "label": 1, "tolerance": "1d"}, "of seconds"),
        ({"entity": {"x": 1}, "time": 0, "label": 1, "model": "free"}, "use `prediction_id`"),
        ({"entity": {"x": 1}, "time": 0, "label": 1, "model": ""}, "there is no model"),
        (
            {"entity": {"shop": 1, "name": "a\x1fb"}, "time": 0, "label": 1, "model": "kinds"},
            "name is BYTES",
        ),
    ],
)
def test_what_is_no_label_of_an_entity_is_told_why(item: Any, words: str) -> None:
    """The same for labels by key and time."""
    model = "demo" if "model" not in (item or {}) else "gone"
    with pytest.raises(Unfit) as told:
        check(item, MODELS, NOW, model=model)

    assert words in str(told.value)


def test_multiclass_numbers_are_whole_and_free_ones_anything() -> None:
    """A model of which nothing is said takes every number and text."""
    kinds = {"entity": {"shop": 1, "name": "a"}, "time": 0, "model": "kinds"}
    with pytest.raises(Unfit, match="a whole number"):
        check({**kinds, "label": 1.5}, MODELS, NOW)
    free = {"prediction_id": ID.replace("demo", "free")}

    assert check({**free, "label": -1.5}, MODELS, NOW).value == -1.5
    assert check({**free, "label": "so so"}, MODELS, NOW).value == "so so"
    with pytest.raises(Unfit, match="not finite"):
        check({**free, "label": float("inf")}, MODELS, NOW)
    with pytest.raises(Unfit, match="too large"):
        check({**free, "label": 1 << 60}, MODELS, NOW)


def test_outcomes_follow_the_order_in_which_labels_came() -> None:
    """Within one list as over several: the same value repeats, another one corrects."""
    labels = [by_id(), by_id(), by_id(label=0), by_id(label=0)]

    fresh = outcomes(labels, {}, dict.fromkeys(range(4), MADE_MS / 1e3), 604800.0)
    known = outcomes(labels[:1], {0: 0.0}, {0: MADE_MS / 1e3}, 604800.0)

    assert fresh == ["joined", "repeated", "corrected", "repeated"]
    assert known == ["corrected"]


def test_a_prediction_that_is_not_in_the_log_makes_an_orphan_or_a_late_label() -> None:
    """Its id says when it was made, so lateness is known all the same."""
    assert outcomes([by_id()], {}, {}, 604800.0) == ["orphan"]
    assert outcomes([by_id()], {}, {}, 3600.0) == ["late"]
