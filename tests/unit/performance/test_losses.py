"""A version's first windows and its last."""

from serving.performance.counts import Moments
from serving.performance.losses import Baseline, LossWindow, first_windows, last_windows


def window(start: float, *losses: float) -> LossWindow:
    """One of ten seconds."""
    return LossWindow(start=start, end=start + 10, losses=Moments.of(losses))


def test_the_baseline_is_the_earliest_windows_with_labels_enough() -> None:
    """Windows are added until there are enough, and no further."""
    found = first_windows([window(0, 1, 0), window(10, 0, 0), window(20, 1)], least=3, now=100)

    assert found is not None
    assert (found.start, found.end) == (0, 20)
    assert found.losses.rows == 4
    assert found.losses.mean == 0.25


def test_a_window_that_is_not_over_is_no_baseline() -> None:
    """Its labels are still to come."""
    assert first_windows([window(0, 1, 0), window(10, 0, 0)], least=3, now=15) is None


def test_too_few_labels_are_no_baseline() -> None:
    """Also without any window."""
    assert first_windows([window(0, 1)], least=2, now=100) is None
    assert first_windows([], least=2, now=100) is None


def test_lately_is_the_newest_windows_with_labels_enough() -> None:
    """Older ones would hide what has just begun."""
    baseline = Baseline(start=0, end=10, losses=Moments())
    found = last_windows(
        [window(0, 1), window(10, 1, 1), window(20, 0), window(30, 0)], baseline, least=2
    )

    assert found.rows == 2
    assert found.mean == 0


def test_the_baseline_is_never_part_of_lately() -> None:
    """Or a version would be compared with itself."""
    baseline = Baseline(start=0, end=20, losses=Moments())
    found = last_windows([window(0, 1), window(10, 1), window(20, 0)], baseline, least=9)

    assert found.rows == 1
