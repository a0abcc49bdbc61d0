"""JUnit XML, parsed back as a CI system does."""

from xml.etree import ElementTree as ET

import pytest
from loadtest_kit import HOSTILE, report, result

from serving.loadtest.report.document import Document
from serving.loadtest.report.junit import RUN_CASE, to_junit
from serving.loadtest.results import Counts


def suite(one: Document) -> ET.Element:
    """The only suite of the file."""
    root = ET.fromstring(to_junit(one))  # noqa: S314 - of this program
    assert root.tag == "testsuites"
    [found] = root
    return found


def late() -> Document:
    """A run whose generator fell behind."""
    return report(result(late=0.5))


def test_every_slo_is_a_case_and_so_is_the_run() -> None:
    """Each once, with a name of its own."""
    one = report()
    names = [case.get("name", "") for case in suite(one).iter("testcase")]

    assert len(names) == len(set(names)) == 1 + len(one.slos)
    assert names[0] == RUN_CASE
    for check in one.slos:
        assert any(name.startswith(f"{check.name} {check.wanted}") for name in names)


def test_a_missed_slo_is_a_failure_with_its_figures() -> None:
    """And those that are met have no child."""
    one = report()
    missed = [check for check in one.slos if not check.ok]
    failures = {
        case.get("name"): case.find("failure") for case in suite(one).iter("testcase") if len(case)
    }

    assert len(failures) == len(missed) == 1
    [failure] = failures.values()
    assert failure is not None
    assert failure.get("message") == missed[0].words
    assert missed[0].measured in (failure.text or "")


def test_the_attributes_count_the_cases() -> None:
    """Readers show these without counting themselves."""
    for one in (report(), late(), report(slos=[])):
        found = suite(one)
        cases = list(found.iter("testcase"))
        for attribute, child in (("failures", "failure"), ("errors", "error"),
                                 ("skipped", "skipped")):  # fmt: skip
            assert int(found.get(attribute, "")) == sum(
                case.find(child) is not None for case in cases
            )
        assert int(found.get("tests", "")) == len(cases)


def test_nothing_of_an_invalid_run_is_green() -> None:
    """The run is an error, and what seems met is skipped."""
    one = late()
    by_name = {case.get("name"): case for case in suite(one).iter("testcase")}

    assert one.outcome == "invalid"
    assert by_name[RUN_CASE].find("error") is not None
    assert all(len(case) == 1 for case in by_name.values())


def test_a_run_in_which_nothing_was_sent_is_no_empty_suite() -> None:
    """An empty suite looks like success."""
    one = result()
    one.whole, one.phases, one.per_second = Counts(), [], []

    assert suite(report(one, [])).get("errors") == "1"


def test_the_same_slo_twice_has_two_names() -> None:
    """Readers keep one case of each name."""
    one = report()
    twice = Document(**{
        field: getattr(one, field) for field in one.__struct_fields__ if field != "slos"
    }, slos=[*one.slos, *one.slos])  # fmt: skip
    names = [case.get("name") for case in suite(twice).iter("testcase")]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("field", ["version", "problem", "status"])
def test_words_of_the_target_stay_text(field: str) -> None:
    """Whatever a server calls itself, the file is well-formed XML 1.0."""
    one = result(name="steady", **{field: HOSTILE})
    one.labels = {HOSTILE: HOSTILE}

    shown = [
        found.get("value") for found in suite(report(one)).iter("property")
        if "script" in (found.get("name") or "")
    ]  # fmt: skip
    assert shown == [HOSTILE.replace("\x00", "\N{REPLACEMENT CHARACTER}")]


def test_the_order_of_elements_is_what_schemas_want() -> None:
    """`properties` first, then cases, then `system-out` (the schemas of Ant and Jenkins)."""
    tags = [child.tag for child in suite(report())]

    assert tags[0] == "properties"
    assert tags[-1] == "system-out"
    assert set(tags[1:-1]) == {"testcase"}
