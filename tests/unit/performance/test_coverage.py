import pytest

from serving.performance.counts import Moments
from serving.performance.coverage import coverage, delay_curve, differing
from serving.performance.report import coverage_alerts


def labelled(count: int, of: int) -> Moments:
    """So many labelled rows of so many."""
    return Moments.of([1.0] * count + [0.0] * (of - count))


def test_versions_differ_only_if_it_is_sure() -> None:
    """90 of 100 and 80 of 100 may be chance after correction; of 1,000 each they are not."""
    small = {"v1": labelled(88, 100), "v2": labelled(80, 100)}
    large = {"v1": labelled(880, 1000), "v2": labelled(800, 1000)}

    assert differing(small) == []
    assert differing(large) == ["v1", "v2"]


def test_one_version_differs_from_nobody() -> None:
    """Nor does one without rows that are old enough."""
    assert differing({"v1": labelled(1, 10)}) == []
    assert differing({"v1": labelled(1, 10), "v2": Moments()}) == []


def test_too_few_labels_are_an_alert_only_if_the_interval_says_so() -> None:
    """85 % of 100 may be 90 %; 85 % of 10,000 is not."""
    few, many = coverage("v1", labelled(85, 100)), coverage("v1", labelled(8500, 10_000))
    assert few is not None
    assert many is not None

    assert coverage_alerts([few], [], 0.9) == []
    [words] = coverage_alerts([many], [], 0.9)
    assert "85.0% of predictions past the horizon have a label" in words
    assert coverage("v1", Moments()) is None


def test_delays_that_no_row_is_old_enough_for_are_left_out() -> None:
    """The others keep their seconds."""
    points = delay_curve([(60.0, labelled(1, 4)), (600.0, labelled(3, 4)), (3600.0, Moments())])

    assert [(one.seconds, one.value) for one in points] == [(60.0, 0.25), (600.0, 0.75)]
    assert points[0].high == pytest.approx(0.6994, abs=1e-3)
