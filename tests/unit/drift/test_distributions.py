"""The tail probabilities, held against scipy."""

import pytest
from scipy import stats

from serving.drift.distributions import chi_square_tail, f_tail, more_than_expected


@pytest.mark.parametrize("dof", [0.7, 1, 2, 5.5, 19, 200])
@pytest.mark.parametrize("statistic", [1e-9, 0.1, 1, 5, 20, 60, 200])
def test_the_chi_square_tail_is_scipys(statistic: float, dof: float) -> None:
    """To ten digits, also far out and for degrees of freedom that are not whole."""
    wanted = stats.chi2.sf(statistic, dof)

    assert chi_square_tail(statistic, dof) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("below", [5, 29.5, 300, 5000])
@pytest.mark.parametrize("above", [0.8, 1, 3, 40])
@pytest.mark.parametrize("statistic", [0.01, 1, 10, 50])
def test_the_f_tail_is_scipys(statistic: float, above: float, below: float) -> None:
    """To nine digits."""
    wanted = stats.f.sf(statistic, above, below)

    assert f_tail(statistic, above, below) == pytest.approx(wanted, rel=1e-9)


def test_nothing_is_in_the_tail_of_nothing() -> None:
    """A statistic of 0 or less has probability 1."""
    assert chi_square_tail(0, 3) == 1
    assert f_tail(-1, 3, 20) == 1


@pytest.mark.parametrize(
    ("count", "rows", "reference_count", "reference_rows"),
    [
        (1, 100, 0, 40_000),
        (2, 100, 0, 68_785),
        (15, 500, 1, 40_000),
        (30, 5000, 20, 68_785),
        (2, 10, 3, 30),
        (10, 10, 0, 30),
    ],
)
def test_more_than_expected_is_fishers_exact_test(
    count: int, rows: int, reference_count: int, reference_rows: int
) -> None:
    """One-sided, as scipy's contingency table has it."""
    table = [[count, rows - count], [reference_count, reference_rows - reference_count]]
    wanted = stats.fisher_exact(table, alternative="greater").pvalue

    found = more_than_expected(count, rows, reference_count, reference_rows)

    assert found == pytest.approx(wanted, rel=1e-7)


def test_no_more_than_expected_is_no_evidence() -> None:
    """At or below the reference's share the answer is 1."""
    assert more_than_expected(10, 1000, 100, 10_000) == 1
    assert more_than_expected(0, 1000, 0, 10_000) == 1


def test_rows_that_are_worth_fewer_say_less() -> None:
    """Twenty of a hundred, five at a time, are four of twenty; and in between there is no step."""
    worth = [more_than_expected(20, 100, 0, 40_000, effect) for effect in (1, 4.9, 5, 5.1, 20)]

    assert worth == sorted(worth)
    assert worth[2] == pytest.approx(more_than_expected(4, 20, 0, 8000))


def test_a_window_worth_one_row_proves_little() -> None:
    """However large the share: it is one accident."""
    assert more_than_expected(100, 100, 0, 1000, effect=100) == pytest.approx(1 / 11)
    assert more_than_expected(100, 100, 0, 1000, effect=1e6) >= 0.5
