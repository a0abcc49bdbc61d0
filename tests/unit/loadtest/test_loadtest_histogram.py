"""Latencies in buckets, against numpy as the oracle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.loadtest.histogram import Histogram

SECONDS = st.floats(min_value=0, max_value=3600, allow_nan=False)
QUANTILES = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)


def exact(values: list[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    return float(np.quantile(values, share, method="inverted_cdf"))


@given(st.lists(SECONDS, min_size=1, max_size=300))
def test_quantiles_are_within_one_percent_of_numpys(values: list[float]) -> None:
    """Relative error below 1 %, or the 100 ns that are counted in."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)

    for share in QUANTILES:
        assert histogram.quantile(share) == pytest.approx(
            exact(values, share), rel=0.01, abs=1.01e-7
        )
    assert histogram.quantile(1.0) == max(values)
    assert histogram.count == len(values)


@given(st.lists(SECONDS, max_size=100))
def test_an_array_counts_as_its_values_one_by_one(values: list[float]) -> None:
    """The two ways in fill the same buckets."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    whole = Histogram.of(np.array(values, np.float64))

    assert whole.counts == histogram.counts
    assert whole.largest == histogram.largest
    assert whole.total == pytest.approx(histogram.total)


@given(st.lists(SECONDS, max_size=50), st.lists(SECONDS, max_size=50))
def test_merging_is_counting_together(some: list[float], others: list[float]) -> None:
    """Two processes' histograms add up to the one of all requests."""
    merged = Histogram.of(np.array(some, np.float64))
    merged.merge(Histogram.of(np.array(others, np.float64)))
    together = Histogram.of(np.array([*some, *others], np.float64))

    assert merged.counts == together.counts
    assert merged.largest == together.largest


def test_nothing_has_no_quantile() -> None:
    """An empty histogram does not make a number up."""
    empty = Histogram()

    assert math.isnan(empty.quantile(0.99))
    assert math.isnan(empty.mean)
    assert empty.points() == []


def test_two_histograms_share_nothing() -> None:
    """Each has buckets of its own."""
    Histogram().add(1.0)

    assert Histogram().count == 0
