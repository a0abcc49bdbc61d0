import numpy as np

from serving.performance.counts import Counts, Moments
from serving.performance.slices import Tolerance, compare_slices


def group(random: np.random.Generator, rows: int, selected: float, recall: float = 0.7) -> Counts:
    """A group of rows that are selected, and found where they came true, at these rates."""
    return Counts(
        rows=rows,
        measures={
            "selection_rate": Moments.of((random.random(rows) < selected).astype(float)),
            "recall": Moments.of((random.random(rows // 2) < recall).astype(float)),
            "false_positive_rate": Moments.of((random.random(rows // 2) < 0.2).astype(float)),
            "calibration_gap": Moments.of(random.normal(0, 0.3, rows)),
        },
    )


def beyond(groups: dict[str, Counts], tolerance: Tolerance | None = None) -> set[tuple[str, str]]:
    """Group and measure of every finding."""
    return {
        (report.group, gap.measure)
        for report in compare_slices(groups, tolerance)
        for gap in report.gaps
        if gap.state == "beyond"
    }


def test_a_proven_gap_is_found_in_the_measure_where_it_is() -> None:
    """One group is selected at 40 %, the others at 60 %."""
    random = np.random.default_rng(0)
    groups = {name: group(random, 2000, 0.4 if name == "c" else 0.6) for name in "abcd"}

    assert beyond(groups) == {("c", "selection_rate")}


def test_alike_groups_raise_few_alerts() -> None:
    """Ten alike groups, 200 times: an alert in at most 5 % of them, as Benjamini-Hochberg says.

    More than 20 of 200 come by chance once in 500 times, were it exactly 5 %; with groups that are
    alike, and not at the tolerance's edge, it is far less.
    """
    random = np.random.default_rng(1)
    found = sum(
        bool(beyond({str(one): group(random, 300, 0.5) for one in range(10)})) for _ in range(200)
    )

    assert found <= 20


def test_a_gap_that_few_rows_show_is_undecided_or_not_compared() -> None:
    """Below `min_rows` nothing is compared; above it, the interval decides."""
    random = np.random.default_rng(2)
    groups = {
        "all": group(random, 5000, 0.5),
        "some": group(random, 150, 0.42),
        "few": group(random, 40, 0.1),
    }

    reports = {report.group: report for report in compare_slices(groups)}

    states = {
        name: next(gap.state for gap in report.gaps if gap.measure == "selection_rate")
        for name, report in reports.items()
    }
    assert states["few"] == "few"
    assert states["some"] == "undecided"
    assert [report.group for report in compare_slices(groups)] == ["all", "some", "few"]


def test_alike_groups_with_many_rows_are_within() -> None:
    """The whole interval lies inside the tolerance."""
    random = np.random.default_rng(3)
    groups = {name: group(random, 20_000, 0.5) for name in "ab"}

    gaps = [gap for report in compare_slices(groups) for gap in report.gaps]

    assert {gap.state for gap in gaps} == {"within"}
    for gap in gaps:
        assert gap.value is not None
        assert gap.low is not None
        assert gap.high is not None
        assert gap.low < gap.value < gap.high


def test_the_tolerance_decides() -> None:
    """The same groups with a narrower tolerance: a finding."""
    random = np.random.default_rng(4)
    groups = {"a": group(random, 4000, 0.5, 0.70), "b": group(random, 4000, 0.5, 0.78)}

    assert beyond(groups) == set()
    assert beyond(groups, Tolerance(gap=0.02)) == {("a", "recall")}


def test_of_two_groups_the_smaller_is_compared() -> None:
    """The larger one's gaps would be the same ones, turned round."""
    random = np.random.default_rng(6)

    [large, small] = compare_slices({"a": group(random, 400, 0.5), "b": group(random, 900, 0.5)})

    assert (large.group, large.gaps) == ("b", [])
    assert [gap.measure for gap in small.gaps] == [
        "selection_rate", "recall", "false_positive_rate", "calibration_gap",
    ]  # fmt: skip


def test_one_group_alone_is_compared_with_nobody() -> None:
    """Nor is there anything to compare where nothing was counted."""
    [report] = compare_slices({"a": group(np.random.default_rng(5), 500, 0.5)})

    assert report.gaps == []
    assert compare_slices({}) == []
