"""The drift test, column by column."""

import math

import numpy as np
import pytest
from scipy import stats

from serving.drift.statistics import (
    Comparison,
    ReferenceCounts,
    compare,
    compare_columns,
    dispersion,
    q_values,
    unrest,
)

EVEN = ReferenceCounts(np.array([0, 0, 0, 4000, 3000, 3000]), 3, ordered=False)


def window(*counts: int) -> np.ndarray:
    """A window whose course nobody knows."""
    return np.array([counts], np.int64)


def parts(chance: np.random.Generator, shares: list[float], times: int = 1) -> np.ndarray:
    """Thirty parts of 100 rows in three ordinary bins, each row repeated so many times."""
    ordinary = chance.multinomial(100 // times, shares, size=30) * times
    return np.hstack((np.zeros((30, 3), np.int64), ordinary))


def test_psi_is_the_formula() -> None:
    """Σ (q − p) ln(q / p), with half a row in each bin."""
    found = compare(EVEN, window(0, 0, 0, 300, 300, 400))
    p = (np.array([4000, 3000, 3000]) + 0.5) / 10_001.5
    q = (np.array([300, 300, 400]) + 0.5) / 1001.5

    assert found.psi == pytest.approx(float((q - p) @ np.log(q / p)))
    assert found.psi_star == pytest.approx(found.psi - 2 * (1 / 1000 + 1 / 10_000))


def test_without_a_course_the_statistic_is_chi_square() -> None:
    """PSI · nm / (n + m) with J − 1 degrees of freedom."""
    found = compare(EVEN, window(0, 0, 0, 380, 300, 320))
    chi_square = found.psi * 1000 * 10_000 / 11_000

    assert (found.dof, found.dof_below) == (2, math.inf)
    assert found.statistic * found.dof == pytest.approx(chi_square)
    assert found.values_p == pytest.approx(stats.chi2.sf(chi_square, 2))


def test_a_window_like_the_reference_has_no_effect() -> None:
    """Nothing is left of PSI once its noise is gone."""
    found = compare(EVEN, window(0, 0, 0, 400, 300, 300))

    assert found.psi_star == 0
    assert found.p > 0.9


def test_two_nulls_of_a_hundred_are_seen_where_none_ever_were() -> None:
    """Exactly, where no χ² would hold."""
    found = compare(EVEN, window(2, 0, 0, 40, 29, 29))

    assert found.rare_p == pytest.approx(stats.hypergeom.sf(1, 10_100, 2, 100))
    assert found.p == found.rare_p / 0.1


def test_nulls_that_were_always_there_are_an_ordinary_bin() -> None:
    """Then the exact test has nothing to say, and a decrease is seen too."""
    reference = ReferenceCounts(np.array([2000, 0, 0, 4000, 4000]), 3, ordered=False)

    found = compare(reference, window(0, 0, 0, 500, 500))

    assert found.rare_p == 1
    assert found.values_p < 1e-6


def test_values_seen_once_forgive_as_many_new_ones() -> None:
    """Where the reference itself was surprised, a surprise proves nothing."""
    surprised = ReferenceCounts(EVEN.counts, 3, ordered=False, seen_once=100)
    found = window(0, 0, 5, 395, 300, 300)

    assert compare(EVEN, found).rare_p < 1e-4
    assert compare(surprised, found).rare_p > 0.05


def test_bins_with_few_expected_rows_are_pooled() -> None:
    """Of neighbours where there is an order; three bins of two rows each make one of six."""
    counts = np.array([0, 0, 0, 0, *[200] * 6])
    ordered = ReferenceCounts(counts, 4, ordered=True)

    found = compare(ordered, window(0, 0, 0, 0, 2, 2, 2, 2, 2, 2))

    assert found.dof == 1


def test_an_empty_window_says_nothing() -> None:
    """No rows, no evidence."""
    assert compare(EVEN, window(0, 0, 0, 0, 0, 0)) == Comparison(rows=0)


def test_all_rows_missing_is_certain_drift() -> None:
    """Nothing is left for the test of the values; the exact one decides."""
    found = compare(EVEN, window(1000, 0, 0, 0, 0, 0))

    assert found.p < 1e-200
    assert found.psi_star > 1


def test_rows_that_come_ten_at_a_time_count_as_a_tenth() -> None:
    """The overdispersion is found in the window itself."""
    chance = np.random.default_rng(3)

    alone = compare(EVEN, parts(chance, [0.4, 0.3, 0.3]))
    bursts = compare(EVEN, parts(chance, [0.4, 0.3, 0.3], times=10))

    assert alone.overdispersion < 2
    assert 6 < bursts.overdispersion < 15


def test_a_burst_of_nulls_is_one_accident() -> None:
    """Thirty nulls in one part of thirty are weighed as one event, spread out as thirty."""
    blocks = parts(np.random.default_rng(4), [0.4, 0.3, 0.3])
    burst, spread = blocks.copy(), blocks.copy()
    burst[7, 0] = 30
    spread[:, 0] = 1

    assert compare(EVEN, burst).rare_p > 0.05
    assert compare(EVEN, spread).rare_p < 1e-15


def test_a_column_is_at_least_as_bursty_as_the_median_one() -> None:
    """A column whose rare value is absent cannot show it by itself."""
    chance = np.random.default_rng(5)
    bursty = [parts(chance, [0.4, 0.3, 0.3], times=10) for _ in range(3)]
    silent = np.hstack((np.zeros((30, 3), np.int64), np.full((30, 1), 100), np.zeros((30, 2), int)))
    rare = ReferenceCounts(np.array([0, 0, 0, 9900, 50, 50]), 3, ordered=False)

    together = compare_columns([EVEN, EVEN, EVEN, rare], [*bursty, silent])[3]

    assert compare(rare, silent).p < 0.001
    assert together.p > 0.05


def test_a_known_overdispersion_is_kept_at_least() -> None:
    """What past windows showed holds for one whose course nobody knows."""
    seasoned = ReferenceCounts(EVEN.counts, 3, ordered=False, overdispersion=4.0)
    found = window(0, 0, 0, 460, 270, 270)

    [known] = compare_columns([seasoned], [found])

    assert known.overdispersion == 4
    assert known.p > compare(EVEN, found).p


def test_the_dispersion_of_alike_windows_is_one() -> None:
    """And that of windows which differ is larger."""
    chance = np.random.default_rng(6)
    alike = np.vstack([parts(chance, [0.4, 0.3, 0.3]).sum(0) for _ in range(20)])
    apart = np.vstack([parts(chance, list(chance.dirichlet([9, 9, 9]))).sum(0) for _ in range(20)])

    assert dispersion(alike, EVEN) < 2
    assert dispersion(apart, EVEN) > 10
    assert dispersion(apart[:3], EVEN) == 1, "three windows are too few to tell"


def restless(chance: np.random.Generator, effect: int, windows: int = 24) -> np.ndarray:
    """Windows of 3,000 rows that are worth a few times fewer."""
    ordinary = chance.multinomial(3000 // effect, [0.4, 0.3, 0.3], size=windows) * effect
    return np.hstack((np.zeros((windows, 3), np.int64), ordinary))


def test_unrest_is_how_much_more_than_chance_windows_differ() -> None:
    """Five times, where each row came five times, at whatever moment."""
    chance = np.random.default_rng(7)

    calm = unrest([EVEN] * 9, [restless(chance, 1) for _ in range(9)])
    busy = unrest([EVEN] * 9, [restless(chance, 5) for _ in range(9)])

    assert calm < 1.5
    assert 4 < busy < 7


def test_a_drift_is_one_step_and_makes_no_unrest() -> None:
    """Else it would hide itself from the next report."""
    windows = restless(np.random.default_rng(8), 1)
    windows[12:, 3] += 2000

    assert unrest([EVEN], [windows]) < 2


def test_a_few_windows_tell_nothing_about_unrest() -> None:
    """Seven are too few."""
    assert unrest([EVEN], [restless(np.random.default_rng(9), 5, windows=7)]) == 1


def test_q_values_are_scipys() -> None:
    """Benjamini and Hochberg's, in the order given."""
    p = [0.01, 0.8, 0.03, 0.002, 0.03]

    assert q_values(p) == pytest.approx(stats.false_discovery_control(p))
    assert q_values([]) == []
