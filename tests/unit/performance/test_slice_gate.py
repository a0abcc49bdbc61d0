"""A candidate beside production, slice by slice."""

import pytest

from serving.performance.figures import Figure
from serving.performance.intervals import wilson
from serving.performance.report import Group
from serving.performance.slice_gate import compare_with_production


def group(version: str, role: str, value: str, accuracy: float, rows: int = 2000) -> Group:
    """One slice of SEX."""
    interval = wilson(accuracy, rows)
    figure = Figure(
        name="accuracy", value=accuracy, low=interval.low, high=interval.high, rows=rows,
        effective=rows,
    )  # fmt: skip
    return Group(
        version=version, role=role, column="SEX", value=value, rows=rows, labelled=rows,
        figures=[figure],
    )  # fmt: skip


def gate(second: float, rows: int = 2000, value: str = "2") -> tuple[int, list[str]]:
    """Production is right in 80 % of both slices; the candidate in 90 % of one."""
    found = compare_with_production(
        [
            group("v1", "production", "1", 0.8),
            group("v1", "production", "2", 0.8),
            group("v3", "shadow", "1", 0.9),
            group("v3", "shadow", value, second, rows),
        ],
        production="v1",
        candidate="v3",
        allowed=0.02,
    )
    return found.compared, found.worse


def test_a_slice_that_is_worse_is_named_though_the_others_gain() -> None:
    """With both figures and the least it is worse by."""
    compared, [words] = gate(0.7)

    assert compared == 2
    assert words.startswith("SEX=2: accuracy 0.7 of 2000 rows, production's is 0.8; worse by 0.1,")
    assert words.endswith("and 0.02 is allowed")


@pytest.mark.parametrize(("second", "rows"), [(0.79, 2000), (0.85, 2000), (0.7, 30)])
def test_what_is_within_the_tolerance_or_chance_passes(second: float, rows: int) -> None:
    """Slightly worse, better, and worse on few rows."""
    assert gate(second, rows)[1] == []


def test_a_slice_that_production_has_not_is_not_compared() -> None:
    """There is nothing to be worse than."""
    assert gate(0.1, value="9") == (1, [])
