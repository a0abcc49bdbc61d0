"""Pictures say what their numbers say: read back from the SVG."""

from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from report_kit import HOSTILE

from serving.drift.standing import Distribution
from serving.performance.calibration import CalibrationPoint
from serving.performance.coverage import Coverage, DelayPoint
from serving.report.arms import Arm, arms_of
from serving.report.charts import (
    ArmBins,
    Course,
    Rows,
    course,
    histogram,
    share_bars,
    strip,
    traffic,
)
from serving.report.interval_charts import (
    Estimate,
    ForestRow,
    Trend,
    calibration,
    covered,
    delays,
    forest,
    trend,
)

SVG = "{http://www.w3.org/2000/svg}"
PRODUCTION, CANARY = arms_of([("v2", "canary"), ("v1", "production")])


def parsed(picture: str) -> ET.Element:
    """A picture, as a strict parser reads it."""
    return ET.fromstring(picture)  # noqa: S314 - of this program


def having(picture: str, css: str) -> list[ET.Element]:
    """Elements of a class."""
    return [node for node in parsed(picture).iter() if css in node.attrib.get("class", "").split()]


def column(
    reference: Sequence[int], window: Sequence[int], bins: Sequence[str], *, special: int = 3
) -> Distribution:
    """A categorical column."""
    return Distribution(
        name="town",
        kind="categorical",
        special=special,
        bins=["missing", "nonfinite", "new", *bins],
        reference=[*([0] * special), *reference],
        window=[*([0] * special), *window],
    )


def tips(picture: str) -> list[str]:
    """What is shown where the pointer rests."""
    return [node.text or "" for node in parsed(picture).iter(f"{SVG}title")]


def labels(picture: str) -> list[str]:
    """Every text, in the order of drawing."""
    return [node.text or "" for node in parsed(picture).iter(f"{SVG}text")]


def test_bars_are_as_high_as_their_shares() -> None:
    """The reference's beside the window's, on one scale."""
    one = column([300, 100], [100, 300], ["a", "b"])
    picture = histogram(one, [ArmBins(arm=PRODUCTION, rows=one.window)])

    before = [float(bar.attrib["height"]) for bar in having(picture, "reference")]
    now = [float(bar.attrib["height"]) for bar in having(picture, "production")]
    assert before[0] == pytest.approx(3 * before[1], rel=0.01)
    assert now == pytest.approx(before[::-1])


def test_a_bin_says_its_shares_in_words() -> None:
    """Of the reference and of each version."""
    one = column([300, 100], [100, 300], ["a", "b"])
    other = ArmBins(arm=CANARY, rows=[0, 0, 0, 50, 50])

    found = tips(histogram(one, [ArmBins(arm=PRODUCTION, rows=one.window), other]))

    assert found[0] == "town a\nreference 75.0 %\nv1 (production) 25.0 %\nv2 (canary) 50.0 %"


def test_bins_that_nothing_is_in_are_drawn_only_for_ordinary_values() -> None:
    """A value that vanished is news; a missing value that never was is none."""
    one = column([300, 100], [400, 0], ["a", "b"])

    assert [tip.split("\n")[0] for tip in tips(histogram(one, []))] == ["town a", "town b"]


def test_what_is_no_ordinary_value_stands_apart() -> None:
    """New values come last, with a wider gap before them."""
    one = column([300, 100], [300, 100], ["a", "b"])
    rows = [0, 0, 40, 200, 160]
    picture = histogram(one, [ArmBins(arm=PRODUCTION, rows=rows)])

    left = [float(bar.attrib["x"]) for bar in having(picture, "reference")]
    assert [tip.split("\n")[0] for tip in tips(picture)][-1] == "town new"
    assert left[2] - left[1] > 1.3 * (left[1] - left[0])


def test_categories_that_are_numbers_are_in_the_order_of_numbers() -> None:
    """The reference has them by frequency."""
    one = column([5, 4, 3], [5, 4, 3], ["10", "2", "1"])

    assert [tip.split("\n")[0] for tip in tips(histogram(one, []))] == [
        "town 1", "town 2", "town 10",
    ]  # fmt: skip


def test_labels_of_edges_do_not_touch() -> None:
    """Of sixteen long ones only some are written."""
    edges = [f"{at / 7:.6f} … <{(at + 1) / 7:.6f}" for at in range(16)]
    one = Distribution(
        name="age",
        kind="numeric",
        special=4,
        bins=["missing", "nonfinite", "below", "above", *edges],
        reference=[0, 0, 0, 0, *([10] * 16)],
        window=[0, 0, 3, 2, *([10] * 16)],
    )
    picture = histogram(one, [ArmBins(arm=PRODUCTION, rows=one.window)])

    bottom = [
        (float(node.attrib["x"]), len(node.text or ""))
        for node in having(picture, "label")
        if float(node.attrib["y"]) > 120
    ]
    bottom.sort()
    assert len(bottom) > 4
    for (one_at, one_size), (other_at, other_size) in pairwise(bottom):
        assert other_at - one_at > 3 * (one_size + other_size)


def test_a_course_marks_the_windows_that_drifted() -> None:
    """A dot each, and a line at the threshold."""
    one = Course(
        arm=PRODUCTION,
        starts=[0.0, 3600.0, 7200.0],
        values=[0.0, 0.005, 0.2],
        drifting=[False, False, True],
    )
    picture = course("age", [one], 0.01, 3600.0)

    drifted = having(picture, "dot")
    assert [dot.findtext(f"{SVG}title") for dot in drifted] == [
        "v1 (production), 02:00: PSI* 0.2, drifted"
    ]
    [line] = having(picture, "threshold")
    assert float(drifted[0].attrib["cy"]) < float(line.attrib["y1"])


def test_a_strip_has_a_cell_a_window() -> None:
    """Those that drifted are coloured; cells of one shade are one path."""
    picture = strip([0.0, 0.1, 0.0], [False, True, False], 0.01)

    [quiet, loud] = having(picture, "cell")
    assert [cell.attrib["d"].count("M") for cell in (quiet, loud)] == [2, 1]
    assert "drifted" in loud.attrib["class"]


def test_traffic_has_a_bar_a_window_and_version() -> None:
    """A bar stands where its window begins, not where its first row came."""
    arms = [
        Rows(arm=PRODUCTION, windows=[(3_605.0, 90), (7_200.0, 30)]),
        Rows(arm=CANARY, windows=[(7_201.0, 10)]),
    ]
    picture = traffic(arms, 3600.0)

    bars = having(picture, "bar")
    assert [float(bar.attrib["x"]) for bar in bars][1] == float(bars[2].attrib["x"])
    assert float(bars[0].attrib["height"]) == pytest.approx(
        3 * float(bars[1].attrib["height"]), rel=1e-3
    )


def test_an_interval_that_is_not_known_is_not_drawn() -> None:
    """The band has a gap there, the line has none."""
    points = [
        (0.0, Estimate(value=0.8, low=0.7, high=0.9)),
        (1.0, Estimate(value=0.8)),
        (2.0, Estimate(value=0.8, low=0.7, high=0.9)),
    ]
    picture = trend("accuracy", [Trend(arm=PRODUCTION, points=points)], share=True)

    assert len(having(picture, "band")) == 2
    assert len(having(picture, "dot")) == 3
    assert any("too few rows for an interval" in tip for tip in tips(picture))


def test_one_wide_interval_does_not_flatten_all_others() -> None:
    """The axis is that of the usual ones; the wide one ends at its edge."""
    points = [(float(at), Estimate(value=0.8, low=0.79, high=0.81)) for at in range(9)]
    wide = (9.0, Estimate(value=0.8, low=0.1, high=1.0))
    picture = trend("accuracy", [Trend(arm=PRODUCTION, points=[*points, wide])], share=True)

    assert "80 %" in labels(picture)
    assert "20 %" not in labels(picture)


def test_scores_that_mean_what_they_say_lie_on_the_diagonal() -> None:
    """As far right as high."""
    point = CalibrationPoint(score=0.5, value=0.5, low=0.4, high=0.6, share=1.0)
    picture = calibration([(PRODUCTION, [point])])

    [dot], [line] = having(picture, "dot"), having(picture, "threshold")
    x, y = float(dot.attrib["cx"]), float(dot.attrib["cy"])
    x1, y1, x2, y2 = (float(line.attrib[name]) for name in ("x1", "y1", "x2", "y2"))
    assert (x, y) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2))


def test_a_group_beyond_the_tolerance_stands_out() -> None:
    """In colour and in words; a figure that is not known leaves its place empty."""
    rows = [
        ForestRow(name="f", rows=90, estimates=[Estimate(value=0.2, low=0.1, high=0.3), None],
                  beyond=[True, False]),
        ForestRow(name="m", rows=80, estimates=[Estimate(value=0.6), Estimate(value=0.5)],
                  beyond=[False, False]),
    ]  # fmt: skip
    picture = forest("sex", PRODUCTION, ["recall", "accuracy"], rows, [0.4, None])

    [loud] = having(picture, "standsout")
    assert "beyond the tolerance" in (loud.findtext(f"{SVG}title") or "")
    assert len(having(picture, "dot")) == 3
    assert len(having(picture, "whisker")) == 1


def test_coverage_is_a_bar_of_the_whole() -> None:
    """As long as the share says."""
    found = [Coverage(name="v1", value=0.25, low=0.2, high=0.3, rows=100)]
    picture = covered(found, ["production"])

    whole, part = having(picture, "bar")
    assert float(part.attrib["width"]) == pytest.approx(float(whole.attrib["width"]) / 4)


def test_one_point_is_no_curve() -> None:
    """The card is left out then."""
    point = DelayPoint(seconds=60.0, value=0.2, low=0.1, high=0.3, rows=10)

    assert not delays([point])
    assert having(delays([point, DelayPoint(**{**_fields(point), "seconds": 600.0})]), "band")


def _fields(point: DelayPoint) -> dict[str, float]:
    return {name: getattr(point, name) for name in point.__struct_fields__}


def test_no_name_becomes_markup() -> None:
    """Whatever a column, a bin, a version or a group is called."""
    arm = Arm(version=HOSTILE, role="production", css="production")
    one = Distribution(name=HOSTILE, kind="categorical", special=0, bins=[HOSTILE],
                       reference=[1], window=[1])  # fmt: skip
    row = ForestRow(name=HOSTILE, rows=1, estimates=[Estimate(value=1.0)], beyond=[True])
    pictures = [
        histogram(one, [ArmBins(arm=arm, rows=[1])]),
        course(HOSTILE, [Course(arm=arm, starts=[0.0], values=[0.1], drifting=[True])], 0.01, 60.0),
        traffic([Rows(arm=arm, windows=[(0.0, 1)])], 60.0),
        trend(HOSTILE, [Trend(arm=arm, points=[(0.0, Estimate(value=1.0))])], share=False),
        forest(HOSTILE, arm, [HOSTILE], [row], [0.5]),
        covered([Coverage(name=HOSTILE, value=0.5, low=0.4, high=0.6, rows=1)], ["production"]),
        share_bars(0.1, 0.0),
    ]

    for picture in pictures:
        assert not [node for node in parsed(picture).iter() if "script" in node.tag]
