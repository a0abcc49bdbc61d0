"""From requests to rows: what is in which column, and what privacy leaves out."""

import log_kit
import numpy as np
import pytest

from serving.config.schema import ModelLog
from serving.recording import record
from serving.recording.columns import digest_with, record_batch
from serving.recording.gathered import Walked
from serving.recording.offer import Offer
from serving.recording.row_plan import plan_rows
from serving.recording.schema import schema_of
from serving.types import Tensor, TensorMetadata

DIGEST = digest_with(b"k" * 32)


def rows_of(offers: list[Offer], weight: float = 1.0) -> list[dict[str, object]]:
    """The rows of requests, as dictionaries."""
    return record_batch(Walked(offers), schema_of(offers[0].plan), weight, DIGEST).to_pylist()


def test_a_row_says_everything_about_an_answer() -> None:
    """Identity, route, time, features with status and age, outputs."""
    plan = log_kit.plan()

    [row] = rows_of([log_kit.answer(plan, 42)], weight=4.0)

    assert row["prediction_id"].endswith("~0.2a~m~v1~production")  # type: ignore[attr-defined]
    assert (row["request_id"], row["trace_id"]) == ("request-42", "0123456789abcdef" * 2)
    assert (row["model"], row["version"], row["digest"]) == ("m", "v1", "d" * 64)
    assert (row["role"], row["assignment_probability"], row["route_revision"]) == (
        "production",
        0.25,
        7,
    )
    assert row["event_time"].timestamp() == pytest.approx(log_kit.NOON + 0.042)  # type: ignore[attr-defined]
    assert (row["code"], row["sample_weight"], row["sent"]) == ("OK", 4.0, "")
    assert (row["decode_seconds"], row["total_seconds"]) == pytest.approx((0.1, 2.1))
    assert (row["entity.person_id"], row["feature.AGEP"], row["feature.SEX"]) == (42, 42.0, 1.0)
    assert (row["status.person"], row["age.person"]) == ("OK", 1.5)
    assert row["output.label"] == 0
    assert row["output.probabilities"] == pytest.approx([0.8, 0.2])


def test_a_request_of_three_rows_is_three_rows() -> None:
    """With the same prediction id, told apart by their place."""
    plan = log_kit.plan()

    rows = rows_of([log_kit.answer(plan, 10, rows=3), log_kit.answer(plan, 20)])

    assert [row["row"] for row in rows] == [0, 1, 2, 0]
    assert [row["rows"] for row in rows] == [3, 3, 3, 1]
    assert [row["entity.person_id"] for row in rows] == [10, 11, 12, 20]
    assert [row["feature.AGEP"] for row in rows] == [10.0, 11.0, 12.0, 20.0]
    assert rows[2]["output.probabilities"] == pytest.approx([0.8, 0.2])
    assert len({row["prediction_id"] for row in rows}) == 2


def test_a_refused_request_has_a_row_without_values() -> None:
    """Its code says why, its key whose it was."""
    [row] = rows_of([log_kit.refusal(log_kit.plan(), 5)])

    assert (row["code"], row["rows"], row["entity.person_id"]) == ("DEADLINE_EXCEEDED", 0, 5)
    assert row["feature.AGEP"] is row["output.label"] is row["status.person"] is None


def test_what_is_dropped_is_nowhere_and_what_is_hashed_can_be_found_again() -> None:
    """Equal keys stay equal; the value itself is not in the batch."""
    plan = log_kit.plan(
        ModelLog(fields={"person_id": "hash", "SEX": "drop", "probabilities": "drop"})
    )

    rows = rows_of([log_kit.answer(plan, 4242), log_kit.answer(plan, 4242)])

    assert rows[0]["entity.person_id"] == rows[1]["entity.person_id"] == DIGEST(4242)
    assert "feature.SEX" not in rows[0]
    assert "output.probabilities" not in rows[0]
    assert rows[0]["feature.AGEP"] == 4242 % 90


def test_a_digest_needs_the_key_and_does_not_mind_the_type() -> None:
    """42 sent as INT64 and 42 kept as FP32 are the same subject."""
    assert DIGEST(42) == DIGEST(42.0) == DIGEST(b"42")
    assert DIGEST(42) != digest_with(b"q" * 32)(42)


def test_it_says_which_features_the_request_brought() -> None:
    """By name, or `*` for the whole input."""
    plan = log_kit.plan()
    one, whole = log_kit.answer(plan, 1), log_kit.answer(plan, 2)
    one.inputs.append(Tensor("SEX", "FP32", np.array([1.0], np.float32)))
    whole.inputs.append(Tensor("X", "FP32", np.zeros((1, 2), np.float32)))

    assert [row["sent"] for row in rows_of([one, whole])] == ["SEX", "*"]


def test_requests_with_and_without_a_key_share_a_batch() -> None:
    """Who sent no key has none; the others keep theirs."""
    plan = log_kit.plan()
    without = log_kit.answer(plan, 2)
    without.inputs.clear()

    rows = rows_of([log_kit.answer(plan, 1), without])

    assert [row["entity.person_id"] for row in rows] == [1, None]


def test_tensors_of_any_shape_and_type_become_lists() -> None:
    """An input that is no table of features is kept as the client sent it, half floats readable."""
    plan = plan_rows(
        model="m",
        version="v1",
        digest="",
        log=ModelLog(),
        batchable=True,
        entity={},
        inputs=[
            TensorMetadata("image", "FP16", (-1, 2, 2)),
            TensorMetadata("text", "BYTES", (-1, -1)),
        ],
        features={},
        outputs=[TensorMetadata("words", "BYTES", (-1,)), TensorMetadata("half", "BF16", (-1,))],
        views=[],
    )

    def offer(value: float, texts: list[bytes]) -> Offer:
        return Offer(
            plan,
            log_kit.head(plan, 1),
            (0.0,) * 7,
            None,
            [],
            {
                "image": np.full((1, 2, 2), value, np.float16),
                "text": np.array([texts], np.object_),
            },
            None,
            ("words", "half"),
            [np.array([b"caf\xc3\xa9"], np.object_), np.array([0x3FC0], np.uint16)],
        )

    rows = rows_of([offer(1.5, [b"a"]), offer(2.5, [b"b", b"\xff"])])

    assert [row["input.image"] for row in rows] == [[1.5] * 4, [2.5] * 4]
    assert [row["input.text"] for row in rows] == [["a"], ["b", "\\xff"]]
    assert (rows[0]["output.words"], rows[0]["output.half"]) == ("café", 1.5)
    assert plan.size_of(1, offer(1.0, [b"a"]).feed or {}, []) > plan.size_of(1, {}, [])


def test_a_whole_number_where_a_fraction_belongs_is_that_fraction() -> None:
    """A probability of 1 may be written either way."""
    plan = log_kit.plan()
    offer = log_kit.answer(plan, 1)
    place = record.PROBABILITY
    offer.head = (*offer.head[:place], 1, *offer.head[place + 1 :])  # type: ignore[assignment]

    assert rows_of([offer])[0]["assignment_probability"] == 1.0
