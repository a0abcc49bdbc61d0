"""The page: every SLO is on it, it loads nothing, and text stays text."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from loadtest_kit import HOSTILE, SLOS, report, result

from serving.loadtest.report.document import Document, from_json, to_json
from serving.loadtest.report.page import to_html
from serving.loadtest.results import Counts


def shown(one: Document) -> str:
    """The page, once a strict parser has read it."""
    text = to_html(one)
    ET.fromstring(text.removeprefix("<!doctype html>\n"))  # noqa: S314 - of this program
    return text


def words(text: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))


class Links(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep suspicious elements and attributes."""
        if tag in {"script", "link", "iframe", "img", "object", "embed"}:
            self.found.append(tag)
        self.found += [
            name for name, _ in attrs if name in {"src", "href", "action"} or name.startswith("on")
        ]


def empty() -> Document:
    """A run in which nothing happened."""
    one = result()
    one.whole, one.phases, one.per_second, one.kinds = Counts(), [], [], []
    return report(one)


@pytest.fixture(params=["missed", "invalid", "no slos", "nothing"])
def page_of(request: pytest.FixtureRequest) -> Document:
    """Runs of all kinds."""
    return {
        "missed": report,
        "invalid": lambda: report(result(late=0.5)),
        "no slos": lambda: report(slos=[]),
        "nothing": empty,
    }[request.param]()


def test_it_is_well_formed_and_loads_nothing(page_of: Document) -> None:
    """Whatever became of the run."""
    text = shown(page_of)
    links = Links()
    links.feed(text)

    assert links.found == []
    assert "url(" not in text
    assert "@import" not in text


def test_every_slo_is_in_the_table_with_its_verdict(page_of: Document) -> None:
    """Name, what was wanted, what was measured."""
    table = words(shown(page_of)).partition(" SLOs ")[2].partition("Over time")[0]

    for check in page_of.slos:
        verdict = "✓ met" if check.ok else "✗ missed"
        assert f"{verdict} {check.name} {check.wanted} {check.measured}" in table


def test_the_outcome_comes_first_with_its_reasons() -> None:
    """Before any figure."""
    text = words(shown(report()))

    assert text.index("SLOs missed") < text.index("p99.9 is") < text.index("requests")


def test_an_invalid_run_says_why_at_its_top() -> None:
    """And again where the generator's own figures are."""
    one = report(result(late=0.5))
    [reason] = one.invalid

    assert words(shown(one)).count(words(reason).replace("`", "`")) == 2
    assert "all SLOs met" not in shown(one)


def test_a_run_without_slos_shows_the_one_that_every_run_has() -> None:
    """A target that cannot take the schedule is never green."""
    table = words(shown(report(slos=[]))).partition(" SLOs ")[2].partition("Over time")[0]

    assert "✓ met schedule" in table


def test_a_quiet_run_has_its_pictures() -> None:
    """Latency over time, rates, percentiles, and the shares of versions and statuses."""
    pictures = re.findall(r'aria-label="([^"]*)"', shown(report()))

    assert pictures[:3] == [
        "Latency over time",
        "Requests a second over time",
        "Latency by percentile",
    ]
    assert pictures.count("Shares") == 4
    assert "employment:v1" in words(shown(report()))


def test_phases_and_warm_up_are_marked_on_the_axis_of_time() -> None:
    """Where the load changed, and what counts for nothing."""
    text = shown(report())

    assert text.count("warm-up: counts for no SLO") == 2 * 3, "three seconds, in both pictures"
    assert text.count("<title>spike</title>") == 2


@pytest.mark.parametrize("field", ["version", "problem", "status"])
def test_words_of_the_target_stay_text(field: str) -> None:
    """A hostile server, scenario or label puts no markup on the page."""
    one = result(name=HOSTILE, phases=(HOSTILE, "spike"), **{field: HOSTILE})
    one.labels = {HOSTILE: HOSTILE}
    one.target = HOSTILE
    links = Links()
    links.feed(shown(report(one, SLOS)))

    assert links.found == []


def test_the_page_of_a_document_read_back_is_the_same() -> None:
    """It can be drawn again from the JSON that was kept."""
    one = report()

    assert to_html(from_json(to_json(one))) == to_html(one)


def test_a_single_request_is_drawn() -> None:
    """One point has no line, and a logarithm of no width."""
    one = result(seconds=2, rate=1)
    one.per_second = one.per_second[:1]

    assert "Latency over time" in shown(report(one))
