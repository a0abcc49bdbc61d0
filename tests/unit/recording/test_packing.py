"""What is packed says the same as what is not, and what does not fit is left as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import drift_kit
import log_kit
import numpy as np
import pyarrow as pa
import pytest

from feature_cache.assembly import Batch
from serving.config.schema import ModelLog
from serving.drift.counting import Counting
from serving.recording.columns import digest_with, record_batch
from serving.recording.gathered import Walked
from serving.recording.offer import Offer
from serving.recording.packing import Packed, Unpacked, packed
from serving.recording.row_plan import RowPlan, plan_rows
from serving.recording.schema import schema_of
from serving.types import Tensor, TensorMetadata

DIGEST = digest_with(b"k" * 32)


def pack_all(offers: Sequence[Offer]) -> list[Packed]:
    """Offers that all fit."""
    found = [packed(offer) for offer in offers]
    fitting = [one for one in found if isinstance(one, Packed)]
    assert len(fitting) == len(offers)
    return fitting


def both(offers: Sequence[Offer]) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """The rows of offers, and of the same ones packed."""
    schema = schema_of(offers[0].plan)
    return (
        record_batch(Walked(offers), schema, 2.0, DIGEST),
        record_batch(Unpacked(pack_all(offers)), schema, 2.0, DIGEST),
    )


@pytest.mark.parametrize(
    "fields", [{}, {"person_id": "hash", "AGEP": "drop", "probabilities": "hash"}]
)
def test_rows_are_the_same(fields: dict[str, Any]) -> None:
    """Values, keys, statuses and ages, hashed and left out as the plan says."""
    plan = log_kit.plan(ModelLog(fields=fields))
    offers = [log_kit.answer(plan, number) for number in range(7)]
    offers[3].batch = Batch(offers[3].feed or {}, [[9]], [[-1]], ("person",))
    offers[5].traceparent = None

    walked, unpacked = both(offers)

    assert unpacked.equals(walked)
    assert unpacked.num_rows == 7


def test_counts_are_the_same() -> None:
    """Of drift, by bins and statuses."""
    plan = drift_kit.plan()
    counting = Counting(drift_kit.reference(), plan)
    offers = [log_kit.answer(plan, number) for number in range(40)]

    expected = counting.count(Walked(offers))

    assert (counting.count(Unpacked(pack_all(offers))) == expected).all()
    assert expected[0] == 40


def test_a_model_that_is_asked_with_its_own_inputs() -> None:
    """No views, no keys; half floats, truth values and bytes of numbers."""
    plan = plan_rows(
        model="m",
        version="v1",
        digest="",
        log=ModelLog(),
        batchable=True,
        entity={},
        inputs=[TensorMetadata("x", "FP16", (-1, 2, 2)), TensorMetadata("flag", "BOOL", (-1,))],
        features={},
        outputs=[TensorMetadata("y", "UINT8", (-1,)), TensorMetadata("half", "BF16", (-1,))],
        views=[],
    )

    def offer(value: float) -> Offer:
        tensors = {"x": np.full((1, 2, 2), value, np.float16), "flag": np.array([value > 1])}
        return Offer(
            plan,
            log_kit.head(plan, 1),
            (0.0,) * 7,
            None,
            [Tensor("x", "FP16", tensors["x"]), Tensor("flag", "BOOL", tensors["flag"])],
            tensors,
            None,
            ("y", "half"),
            [np.array([7], np.uint8), np.array([0x3FC0], np.uint16)],
        )

    walked, unpacked = both([offer(1.0), offer(2.5)])

    assert unpacked.equals(walked)
    assert unpacked.to_pylist()[1]["input.x"] == [2.5] * 4


def other(offer: Offer, **changes: Any) -> Offer:
    """The offer, but for something."""
    for name, value in changes.items():
        setattr(offer, name, value)
    return offer


def unfit(plan: RowPlan) -> dict[str, Offer]:
    """Offers that are not like the others of their plan."""
    usual = log_kit.answer(plan, 1)
    narrow = Tensor("person_id", "INT32", np.array([4], np.int32))
    share = Tensor("AGEP", "FP32", np.ones(1, np.float32))
    label = np.array([1], np.int64)
    changes: dict[str, dict[str, Any]] = {
        "a key of another type": {"inputs": [narrow]},
        "two keys for a row": {"inputs": [Tensor("person_id", "INT64", np.array([4, 5]))]},
        "no key": {"inputs": []},
        "more inputs": {"inputs": [*usual.inputs, share]},
        "features with gaps": {"feed": {"X": np.zeros((1, 4), np.float32)[:, ::2]}},
        "no store": {"batch": None},
        "fewer outputs": {"names": ("label",), "outputs": [label]},
        "an output of another length": {"outputs": [label, np.zeros((1, 3), np.float32)]},
    }
    return {name: other(log_kit.answer(plan, 1), **one) for name, one in changes.items()}


@pytest.mark.parametrize("name", unfit(log_kit.plan()))
def test_what_is_different_is_left_as_it_is(name: str) -> None:
    """And the next one of the usual kind is packed again."""
    plan = log_kit.plan()
    assert isinstance(packed(log_kit.answer(plan, 0)), Packed)
    offer = unfit(plan)[name]

    assert packed(offer) is offer
    assert isinstance(packed(log_kit.answer(plan, 2)), Packed)


def test_what_one_tensor_has_too_many_another_may_not_have_too_few() -> None:
    """The bytes are as many, and would be read as other values."""
    plan = plan_rows(
        model="m",
        version="v1",
        digest="",
        log=ModelLog(),
        batchable=True,
        entity={"id": "INT64"},
        inputs=[TensorMetadata("tokens", "INT64", (-1, -1))],
        features={},
        outputs=[TensorMetadata("y", "INT64", (-1,))],
        views=[],
    )

    def offer(ids: list[int], tokens: list[int]) -> Offer:
        return Offer(
            plan,
            log_kit.head(plan, 1),
            (0.0,) * 7,
            None,
            [Tensor("id", "INT64", np.array(ids))],
            {"tokens": np.array([tokens])},
            None,
            ("y",),
            [np.array([7])],
        )

    assert isinstance(packed(offer([1], [4, 5, 6])), Packed)
    shifted = offer([1, 2], [4, 5])

    assert packed(shifted) is shifted


def test_texts_are_left_as_they_are() -> None:
    """They have no width."""
    plan = log_kit.plan()
    offer = log_kit.answer(plan, 1)
    offer.inputs[:] = [Tensor("person_id", "BYTES", np.array([b"ada"], np.object_))]

    assert packed(offer) is offer
    assert packed(offer) is offer


def test_another_kind_becomes_the_usual_one_in_time() -> None:
    """Where the first request of a plan was the exception."""
    plan = log_kit.plan()
    assert isinstance(packed(other(log_kit.answer(plan, 0), batch=None)), Packed)

    found = [packed(log_kit.answer(plan, number)) for number in range(600)]

    assert isinstance(found[0], Offer)
    assert isinstance(found[-1], Packed)


def test_a_log_of_all_kinds_has_every_row(tmp_path: Path) -> None:
    """Packed or not, of one row or more, answered or refused."""
    plan = log_kit.plan()
    log = log_kit.log_of(tmp_path)
    for number in range(50):
        log.offer(log_kit.answer(plan, number))
        log.offer(log_kit.answer(plan, number, role="shadow"))
    for offer in unfit(plan).values():
        log.offer(offer)
    log.offer(log_kit.answer(plan, 60, rows=3))
    log.offer(log_kit.refusal(plan, 61))
    log.close()

    rows, counts = log_kit.rows_of(tmp_path), log.counts()
    assert len(rows) == counts["logged"] == counts["offered"] == 100 + len(unfit(plan)) + 4
    assert sum(row["role"] == "shadow" for row in rows) == 50
