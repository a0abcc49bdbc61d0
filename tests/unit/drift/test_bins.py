"""Counting values into frozen bins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.frozen_bins import FrozenColumn
from serving.drift.bins import compile_bins

AGES = FrozenColumn(type="float", kind="numeric", edges=[0.0, 10.0, 20.0], counts=[0] * 6)
CODES = FrozenColumn(type="integer", kind="categorical", values=[5, 1], counts=[0] * 5)
WORDS = FrozenColumn(type="string", kind="frequent", values=["tea", "milk"], counts=[0] * 5)


def counted(column: FrozenColumn, values: object) -> dict[str, int]:
    """Bins that are not empty, by name."""
    counts = compile_bins(column).count(values).tolist()
    return {name: count for name, count in zip(column.names, counts, strict=True) if count}


def test_a_number_falls_between_its_edges() -> None:
    """Left ends belong to a bin, right ends to the next, the last end to the last."""
    assert counted(AGES, np.array([0, 9.9, 10, 19, 20])) == {"0 … <10": 2, "10 … 20": 3}


def test_what_is_no_ordinary_number_has_bins_of_its_own() -> None:
    """NaN is missing; infinities, and what lies outside, are told apart."""
    values = np.array([np.nan, np.inf, -np.inf, -1, 20.5, 21], np.float32)

    assert counted(AGES, values) == {"missing": 1, "nonfinite": 2, "below": 1, "above": 2}


def test_a_code_falls_into_its_own_bin_or_is_new() -> None:
    """Also when it lies between two known ones, or beyond them."""
    values = np.array([1, 5, 5, 3, 0, 6])

    assert counted(CODES, values) == {"5": 2, "1": 1, "new": 3}


def test_texts_are_counted_with_nulls_and_bytes() -> None:
    """Null is missing, bytes are UTF-8, what is not frequent is other."""
    values = [None, "tea", b"milk", "coffee", float("nan")]

    assert counted(WORDS, values) == {"missing": 2, "tea": 1, "milk": 1, "other": 1}


def test_nulls_among_objects_are_missing() -> None:
    """An array of objects may hold None."""
    assert counted(CODES, np.array([1, None, 5], object)) == {"missing": 1, "1": 1, "5": 1}


def test_text_among_numbers_is_an_error() -> None:
    """It cannot be counted; the caller has mixed up columns."""
    with pytest.raises(ValueError, match="could not convert"):
        compile_bins(AGES).count(["young"])


def test_booleans_are_nought_and_one() -> None:
    """As the model gets them."""
    column = FrozenColumn(type="bool", kind="categorical", values=[0, 1], counts=[0] * 5)

    assert counted(column, np.array([True, True, False])) == {"0": 1, "1": 2}


@given(st.lists(st.floats(width=32), max_size=50), st.integers(0, 50))
def test_counts_of_parts_add_up_to_those_of_the_whole(values: list[float], cut: int) -> None:
    """Workers and windows may be added in any order, and no row is lost."""
    bins, array = compile_bins(AGES), np.array(values, np.float32)
    whole = bins.count(array)

    assert (bins.count(array[:cut]) + bins.count(array[cut:])).tolist() == whole.tolist()
    assert whole.sum() == len(array)
