"""Workers count rows into the reference's bins, and what the views did, exactly."""

import drift_kit
import log_kit
import numpy as np
import pytest

from feature_cache.status import Status
from serving.drift.counting import Counting, layout_of
from serving.recording.gathered import Walked
from serving.recording.row_plan import RowPlan


def test_every_row_is_in_one_bin_of_every_column() -> None:
    """Also those of one request, and the column of an output with several."""
    counting = Counting(drift_kit.reference(), drift_kit.plan())
    counts = counting.count(
        Walked([log_kit.answer(drift_kit.plan(), 0, rows=40), log_kit.answer(drift_kit.plan(), 40)])
    )
    columns = counting.layout.by_column(counts)

    assert counting.layout.rows(counts) == 41
    assert columns.keys() == {"AGEP", "SEX", "probabilities[1]", "label"}
    assert {int(column.sum()) for column in columns.values()} == {41}
    assert columns["SEX"][-2:].tolist() == [21, 20]


def test_the_same_rows_give_the_same_counts_however_they_are_grouped() -> None:
    """Vectors of one layout are simply added up."""
    counting = Counting(drift_kit.reference(), drift_kit.plan())
    offers = [log_kit.answer(drift_kit.plan(), number, rows=3) for number in range(0, 60, 3)]

    together = counting.count(Walked(offers))
    apart = sum(counting.count(Walked([offer])) for offer in offers)

    assert np.array_equal(together, apart)


def test_rows_that_the_view_did_not_serve_are_no_evidence_about_the_column() -> None:
    """A default is not the world's doing: it is the view's finding."""
    counting = Counting(drift_kit.reference(), drift_kit.plan())
    offer = drift_kit.with_status(
        log_kit.answer(drift_kit.plan(), 0, rows=4),
        Status.OK,
        Status.OK | Status.STALE,
        Status.DEFAULTED | Status.TIMEOUT,
        Status.NOT_FOUND,
    )
    counts = counting.count(Walked([offer]))
    traffic = counting.layout.traffic(counts)

    assert int(counting.layout.by_column(counts)["AGEP"].sum()) == 4
    assert int(traffic.columns["AGEP"].sum()) == 2
    assert int(traffic.columns["label"].sum()) == 4
    assert traffic.views["person"].statuses == {
        "OK": 1,
        "OK|STALE": 1,
        "DEFAULTED|TIMEOUT": 1,
        "NOT_FOUND": 1,
    }
    assert (traffic.views["person"].aged, traffic.views["person"].older) == (4, 1)


def test_a_request_that_brings_everything_asks_no_view() -> None:
    """Its rows count for the columns, and for no view."""
    counting = Counting(drift_kit.reference(), drift_kit.plan())
    offer = log_kit.answer(drift_kit.plan(), 0, rows=2)
    offer.batch = None
    traffic = counting.layout.traffic(counting.count(Walked([offer])))

    assert traffic.views["person"].statuses == {}
    assert int(traffic.columns["AGEP"].sum()) == 2


def test_only_columns_that_the_version_has_are_counted() -> None:
    """A reference may know more: an older version's output, say."""
    assert "elsewhere" not in dict(layout_of(drift_kit.reference(), drift_kit.plan()).columns)
    assert layout_of(drift_kit.reference(), RowPlan.unrouted("m")).columns == ()


def test_a_request_for_one_output_leaves_the_others_uncounted() -> None:
    """Nobody knows what they would have been."""
    counting = Counting(drift_kit.reference(), drift_kit.plan())
    offer = log_kit.answer(drift_kit.plan(), 0)
    offer.names, offer.outputs = ("label",), (offer.outputs or [])[:1]
    columns = counting.layout.by_column(counting.count(Walked([offer])))

    assert int(columns["label"].sum()) == 1
    assert int(columns["probabilities[1]"].sum()) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9, 1e9])
def test_values_beyond_the_reference_have_bins_too(value: float) -> None:
    """Missing, infinite, below and above are counted, not passed over."""
    counting = Counting(drift_kit.reference(), drift_kit.plan())
    offer = log_kit.answer(drift_kit.plan(), 0)
    assert offer.feed is not None
    offer.feed["X"][0, 0] = value
    counts = counting.layout.by_column(counting.count(Walked([offer])))["AGEP"]

    assert int(counts[:4].sum()) == 1
