"""Text becomes pictures that are well-formed whatever the text is."""

from xml.etree import ElementTree as ET

import pytest

from serving.report.svg import Scale, coded, element, escaped, figure, path, ticks, tip


def test_text_from_elsewhere_stays_text() -> None:
    """In content, in a tip and in an attribute."""
    hostile = '"><script>alert(1)</script>&'
    root = ET.fromstring(  # noqa: S314 - made a line above
        figure(10, 10, hostile, element("g", tip(hostile), element("text", escaped(hostile))))
    )

    assert root.attrib["aria-label"] == hostile
    assert [node.text for node in root.iter() if node.text] == [hostile, hostile]


@pytest.mark.parametrize("text", ["\x00", "a\x1bb", "\ud800", "\ufffe"])
def test_characters_that_no_document_may_hold_are_replaced(text: str) -> None:
    """They would make the whole page unreadable to a parser."""
    ET.fromstring(element("text", escaped(text)))  # noqa: S314

    assert "\N{REPLACEMENT CHARACTER}" in escaped(text)


def test_names_in_backticks_are_set_as_code() -> None:
    """And are escaped before."""
    assert coded("`a<b` drifts") == "<code>a&lt;b</code> drifts"


@pytest.mark.parametrize(
    ("low", "high", "most", "found"),
    [
        (0.0, 1.0, 5, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 0.034, 3, [0.0, 0.02]),
        (-1.0, 1.0, 2, [-1.0, 0.0, 1.0]),
        (97.0, 413.0, 3, [200.0, 400.0]),
        (2.0, 2.0, 3, [2.0]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, most: int, found: list[float]) -> None:
    """Steps are 1, 2, 2.5 or 5 times a power of ten."""
    assert ticks(low, high, most) == found


def test_a_scale_keeps_everything_inside_the_picture() -> None:
    """Values beyond an end are drawn at it; a range of nothing is its middle."""
    scale = Scale(0.0, 10.0, 100.0, 0.0)

    assert [scale(value) for value in (-5, 0, 5, 10, 50)] == [100, 100, 50, 0, 0]
    assert Scale(3.0, 3.0, 0.0, 10.0)(3.0) == 5.0


def test_a_root_scale_spreads_small_values() -> None:
    """A hundredth of the range takes a tenth of the room."""
    assert Scale(0.0, 1.0, 0.0, 100.0, root=True)(0.01) == pytest.approx(10.0)


def test_a_path_goes_through_its_points() -> None:
    """Pixels are rounded to a tenth; no points give no path."""
    assert path([(0, 1), (2.04, 3)], close=True) == "M0.0 1.0L2.0 3.0Z"
    assert not path([])
