"""The comparison in words, in a table and as a drawing."""

from xml.etree import ElementTree as ET

import msgspec
import pytest
import script_kit
from compare_kit import report, row, sample

page = script_kit.module("compare_page")
chart = script_kit.module("compare_chart")
figures = script_kit.module("compare_figures")

MADE = report(
    row("floor", sample(1, 100, p99=200.0), sample(2, 110, 100, p99=220.0), group="floor"),
    row("quick", sample(1, 160), sample(2, 180)),
    row("slow", sample(1, 5000, p99=9000.0, late_us=4000.0)),
    row("liar", trouble="WRONG: [0.1] instead of [0.9]"),
)
EMPTY = f"before\n\n{page.BEGIN}\n\n{page.END}\n\nafter\n"


def lines_of(name: str) -> list[str]:
    """The table rows of a server."""
    return [line for line in page.text(MADE).splitlines() if line.startswith(f"| the {name} ")]


def test_no_figure_is_without_its_command() -> None:
    """The command, the date, the machine and the versions stand above the tables."""
    above, _, _ = page.text(MADE).partition("### Aims")

    assert "$ python loadtests/compare.py --rounds 2\n" in above
    for said in ("2026-11-30 04:00 UTC", "2 × a CPU", "onnxruntime 1.32.0", "uvicorn 0.54.0"):
        assert said in above


def test_figures_are_written_between_the_marks_and_nowhere_else() -> None:
    """What people wrote stays; writing again changes nothing."""
    once = page.written(EMPTY, MADE)

    assert once.startswith(f"before\n\n{page.BEGIN}\n")
    assert once.endswith(f"{page.END}\n\nafter\n")
    assert page.written(once, MADE) == once


@pytest.mark.parametrize("text", ["", page.BEGIN, page.END + page.BEGIN])
def test_a_page_without_marks_is_left_alone(text: str) -> None:
    """It is said which lines it lacks."""
    with pytest.raises(page.MissingMarks, match="needs a line"):
        page.written(text, MADE)


def test_a_median_has_its_spread() -> None:
    """Least and most stand in brackets, unless there was one round."""
    cpu, _ = lines_of("quick")

    assert "170.0 (160.0–180.0)" in cpu
    assert "1.70 (1.60–1.80)" in cpu
    assert "(" not in lines_of("slow")[0]


def test_a_rate_that_was_not_asked_for_is_a_dash() -> None:
    """And a latency of a generator that was late is marked."""
    assert lines_of("quick")[1].count(" – |") == 2
    assert lines_of("slow")[1].count("†") == 2
    assert "†: the generator was late" in page.text(MADE)


def test_a_server_that_is_wrong_has_no_figures() -> None:
    """It is named with what it answered."""
    assert lines_of("liar") == []
    assert "- the liar: WRONG: [0.1] instead of [0.9]" in page.text(MADE)


def test_the_columns_of_a_table_line_up() -> None:
    """Markdown that is read in a terminal too."""
    for table in page.text(MADE).split("\n\n"):
        if table.startswith("|"):
            assert len({len(line) for line in table.splitlines()}) == 1


def test_a_dearer_server_has_a_longer_bar() -> None:
    """Bars are logarithmic; the floor's is one cell."""
    cells = [lines_of(name)[0].count("█") for name in ("floor", "quick", "slow")]

    assert cells[0] == 1
    assert cells == sorted(cells)
    assert cells[-1] == page.BAR_CELLS


def test_the_drawing_has_a_bar_for_each_measured_row() -> None:
    """It is one well-formed file, cheapest first, and loads nothing."""
    hostile = report(row("<b>", sample(1, 200)), *MADE.rows)
    drawing = ET.fromstring(chart.chart(hostile))  # noqa: S314 - made a line above
    svg = "{http://www.w3.org/2000/svg}"
    [group] = drawing.findall(f"{svg}g")

    bars = [one for one in group.findall(f"{svg}rect") if one.get("y")]
    names = [one.text for one in group.findall(f"{svg}text") if one.get("text-anchor") == "end"]

    assert len(bars) == len(names) == 4
    assert names == ["the floor", "the quick", "the <b>", "the slow"]
    assert not drawing.findall(f".//{svg}image")


def test_the_published_page_is_what_its_figures_say() -> None:
    """docs/performance.md and its chart follow from the figures beside them; nobody edited them."""
    docs = script_kit.LOADTESTS.parent / "docs"
    made = msgspec.json.decode((docs / "performance.json").read_bytes(), type=figures.Report)
    written = (docs / "performance.md").read_text()

    assert page.written(written, made) == written
    assert chart.chart(made) == (docs / "performance.svg").read_text()
