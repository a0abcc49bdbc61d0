"""The page: complete, closed in itself, and text stays text."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from report_kit import HOSTILE, performance_reports, reference, watched

from serving.report.page import ModelReport, page

REFERENCE = reference()


def report(*found: object, model: str = "m", **more: object) -> ModelReport:
    """A report of these versions."""
    return ModelReport(
        model=model,
        at=1_000.0,
        sluice="1.2.3",
        command=f"sluice drift {model} --html drift.html",
        watched=found,  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )


def shown(one: ModelReport) -> str:
    """The page, once a strict parser has read it."""
    text = page(one)
    ET.fromstring(text.removeprefix("<!doctype html>\n"))  # noqa: S314 - of this program
    return text


def words(text: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))


def test_the_verdict_comes_first_with_its_reasons() -> None:
    """Before any table, in words."""
    text = words(shown(report(watched(REFERENCE))))

    verdict, _, rest = text.partition("Columns")
    assert "v1 (production) alert" in verdict
    assert "age keeps drifting" not in verdict, "one window is no habit"
    assert "data quality" in verdict
    assert "a value the reference never had in" in rest


def test_columns_are_in_the_order_of_their_shift() -> None:
    """In the table and among the pictures."""
    text = shown(report(watched(REFERENCE)))

    table = re.findall(r"<tr><td><code>(.*?)</code>", text)
    cards = re.findall(r"<h4><code>(.*?)</code>", text)
    assert table == cards
    assert table[0] == "age"
    assert table[-1] == "score"


def test_a_canary_is_drawn_beside_production() -> None:
    """In the same pictures, production first whatever order they come in."""
    canary = watched(REFERENCE, version="v2", role="canary", hours=[(900, 0, 0)])
    text = shown(report(canary, watched(REFERENCE)))

    assert re.findall(r'class="who (\w+)', text)[:2] == ["production", "canary"]
    assert re.search(r'class="mark canary"', text)
    assert "age" in words(text)


def test_a_version_that_is_gone_says_so() -> None:
    """Its verdict is of the last window it had."""
    gone = watched(REFERENCE, version="v0", hours=[(2_000, 0, 0), *([(0, 0, 0)] * 5)])

    assert "1970-01-01 00:00Z to 1970-01-01 01:00Z; no traffic since" in words(shown(report(gone)))


def test_columns_that_are_not_compared_are_drawn_and_not_judged() -> None:
    """Another model's scores are shown beside the reference's and called nothing."""
    text = shown(report(watched(REFERENCE, foreign=["score"])))

    assert "score" not in re.findall(r"<tr><td><code>(.*?)</code>", text)
    assert "score" in re.findall(r"<h4><code>(.*?)</code>", text)
    assert "Not compared, for the reference is of another model file: score." in words(text)


def test_performance_has_its_pictures_and_its_numbers() -> None:
    """By version, over time, by slice, calibration, labels."""
    text = shown(report(watched(REFERENCE), performance=performance_reports()))

    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings[-3:] == ["Performance", "Slices", "Labels"]
    for name in ("accuracy over time", "Calibration: came true by score", "Label coverage",
                 "sex: figures by group", "Labels that had come"):  # fmt: skip
        assert f'aria-label="{name}' in text
    assert "differs from everybody else beyond the tolerance" in text


def test_without_labels_there_is_no_empty_heading() -> None:
    """What is not known takes no room."""
    headings = re.findall(r"<h2>(.*?)</h2>", shown(report(watched(REFERENCE))))

    assert headings == ["Columns", "Distributions, worst first", "Traffic", "Data quality"]


def test_a_model_without_traffic_says_so() -> None:
    """The page is there all the same: a job that writes it every night does not keep an old one."""
    assert "no request was counted yet" in shown(report(words="no request was counted yet"))


def test_the_foot_says_where_it_comes_from() -> None:
    """With what it was compared, when, by which version, and how to make it again."""
    text = words(shown(report(watched(REFERENCE))))

    foot = text[text.index(" made 1970") :]
    assert "1970-01-01 00:16:40Z by Sluice 1.2.3" in foot
    assert "people of a test; 5,000 rows, frozen 2026-01-01T00:00:00Z" in foot
    assert "q below 0.01 and PSI* above 0.01" in foot
    assert "sluice drift m --html drift.html" in foot


class _Loads(HTMLParser):
    """Collects whatever a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed", "use", "image"}:
            self.found.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action"} or name.startswith("on"):
                self.found.append(f"{name}={value}")


def loads(text: str) -> list[str]:
    """Everything that would be fetched or run, also by the style sheet."""
    parser = _Loads()
    parser.feed(text)
    return [*parser.found, *re.findall(r"@import|url\(", text)]


def test_it_loads_and_runs_nothing() -> None:
    """It can be mailed, and opened in ten years."""
    text = shown(report(watched(REFERENCE), performance=performance_reports()))

    assert loads(text) == []
    assert loads('<img src="x"><p onclick="y">') == ["img", "src=x", "onclick=y"]


def test_no_text_from_elsewhere_becomes_markup() -> None:
    """Names of models, versions, columns, values, groups; notes and reasons."""
    known = reference(text=HOSTILE, values=[HOSTILE, "'\"<&>", "\x00\x1b"])
    text = shown(
        report(
            watched(known, version=HOSTILE),
            model=HOSTILE,
            performance=performance_reports(column=HOSTILE, groups=[HOSTILE, "m"]),
            notes=[HOSTILE],
        )
    )

    assert loads(text) == []
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 20


@pytest.mark.parametrize("wide", [4, 16])
def test_its_size_is_bounded_by_columns_and_bins(wide: int) -> None:
    """Windows and rows add little: nothing on it is of a single row."""
    few = len(page(report(watched(REFERENCE, hours=[(600, 0, 0)] * wide))))
    many = len(page(report(watched(REFERENCE, hours=[(6000, 0, 0)] * wide))))

    assert many < 1.05 * few
    assert few < 40_000 + 3 * 60 * 500 + wide * 3 * 500
