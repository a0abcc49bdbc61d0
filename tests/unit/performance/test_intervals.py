import math

import pytest
from scipy import stats

from serving.performance.intervals import (
    Interval,
    benjamini_hochberg,
    beyond,
    difference,
    quantile,
    ratio,
    student,
    wilson,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (81, 263), (1, 10_000)])
def test_wilson_agrees_with_scipy(hits: int, n: int) -> None:
    """The same limits, at the edges too."""
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")

    found = wilson(hits / n, n)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_of_nothing_nothing_is_known() -> None:
    """No observations: anything from 0 to 1."""
    assert wilson(0.0, 0) == Interval(0.0, 1.0)


@pytest.mark.parametrize("freedom", [4, 9, 29, 99, 10_000])
def test_the_quantile_of_student_is_close(freedom: int) -> None:
    """Within one percent of scipy's from four degrees of freedom on."""
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.01)


def test_a_difference_agrees_with_newcombes_paper() -> None:
    """Table II (a) of Newcombe 1998: 56/70 less 48/80, method 10."""
    one, other = 56 / 70, 48 / 80

    found = difference(one, wilson(one, 70), other, wilson(other, 80))

    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_ratio_holds_its_value_and_is_unbounded_by_zero() -> None:
    """Inside its limits, the mirror image of the inverse, and open where the divisor may be 0."""
    half, third = wilson(0.5, 200), wilson(1 / 3, 300)

    found = ratio(0.5, half, 1 / 3, third)
    inverse = ratio(1 / 3, third, 0.5, half)

    assert found.low < 1.5 < found.high
    assert inverse.low == pytest.approx(1 / found.high, rel=1e-9)
    assert ratio(0.5, half, 0.0, wilson(0.0, 50)).high == math.inf


def test_a_p_value_is_small_just_where_the_interval_ends_before_the_limit() -> None:
    """At the interval's end it is one minus the confidence."""
    assert beyond(0.5, 0.4, 0.4) == pytest.approx(0.05)
    assert beyond(0.5, 0.4, 0.39) < 0.05
    assert beyond(0.5, 0.4, 0.45) > 0.05
    assert beyond(0.5, 0.4, 0.6) == 1.0


def test_many_tests_are_corrected_as_scipy_does() -> None:
    """Benjamini-Hochberg, in the order of the input."""
    p_values = [0.01, 0.8, 0.02, 0.03, 0.5]

    assert benjamini_hochberg(p_values) == pytest.approx(
        list(stats.false_discovery_control(p_values))
    )
    assert benjamini_hochberg([]) == []


def test_a_quantile_is_the_normal_one() -> None:
    """1.96 for 95 %."""
    assert quantile() == pytest.approx(1.959964, abs=1e-6)
