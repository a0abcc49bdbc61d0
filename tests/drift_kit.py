"""A reference, a plan and requests of which the views said something."""

import numpy as np

from feature_cache.assembly import Batch
from feature_cache.status import Status
from serving.config.frozen_bins import Reference
from serving.config.schema import ModelLog
from serving.drift.freezing import freeze
from serving.recording.offer import Offer
from serving.recording.row_plan import RowPlan, plan_rows
from serving.types import TensorMetadata


def reference() -> Reference:
    """Ages, sexes, scores and labels as `log_kit.answer` makes them."""
    persons = np.arange(900)
    share = (persons % 10 / 10).astype(np.float32)
    return Reference(
        model="m",
        rows=900,
        created="2026-01-01T00:00:00Z",
        source="a test",
        columns=freeze(
            {
                "AGEP": (persons % 90).astype(np.float32),
                "SEX": (persons % 2 + 1).astype(np.float32),
                "probabilities[1]": share,
                "label": (share > 0.5).astype(np.int64),
                "elsewhere": persons,
            }
        ),
    )


def plan() -> RowPlan:
    """The plan of `log_kit`, with the view of its features."""
    return plan_rows(
        model="m",
        version="v1",
        digest="d" * 64,
        log=ModelLog(),
        batchable=True,
        entity={"person_id": "INT64"},
        inputs=[TensorMetadata("X", "FP32", (-1, 2))],
        features={"X": ["AGEP", "SEX"]},
        outputs=[
            TensorMetadata("label", "INT64", (-1,)),
            TensorMetadata("probabilities", "FP32", (-1, 2)),
        ],
        views=["person"],
        view_of={"AGEP": "person", "SEX": "person"},
    )


def with_status(offer: Offer, *bits: Status) -> Offer:
    """The same request, with what the view said of each row."""
    assert offer.feed is not None
    numbers = [[int(each) for each in bits]]
    offer.batch = Batch(offer.feed, numbers, [[1500] * len(bits)], ("person",))
    return offer
