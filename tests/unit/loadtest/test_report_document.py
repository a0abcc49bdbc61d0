"""The JSON document: it survives a round trip, and holds what was counted."""

import json

import msgspec
import pytest
from loadtest_kit import SLOS, counts, report, result

from serving.loadtest.report.document import from_json, to_json
from serving.loadtest.results import Counts


def test_a_document_is_read_back_as_it_was_written() -> None:
    """Every field, so a page can be made from an old file."""
    one = report()

    assert from_json(to_json(one)) == one


def test_the_keys_that_others_read_are_there() -> None:
    """A program that reads a report finds the figures by these names."""
    found = json.loads(to_json(report()))

    assert found["schema_version"] == 1
    assert found["outcome"] == "missed"
    words = {"name", "wanted", "measured", "ok", "words", "place", "figure"}
    assert words | {"value", "at_least", "at_most"} == set(found["slos"][0])
    assert {"p50", "p90", "p99", "p99.9", "max", "mean", "count", "intervals"} == set(
        found["whole"]["figures"]["latency"]
    )


def test_an_slo_has_its_numbers_beside_the_words() -> None:
    """A program compares numbers; `≤ 20 ms` is for people."""
    [p50] = [one for one in json.loads(to_json(report()))["slos"] if one["figure"] == "p50"]

    assert (p50["place"], p50["at_most"], p50["at_least"]) == ("whole run", 0.02, None)
    assert 0 < p50["value"] < 0.02


def test_a_quantile_lies_within_its_interval() -> None:
    """Where there are enough requests for one."""
    latency = json.loads(to_json(report()))["whole"]["figures"]["latency"]

    for name in ("p50", "p90", "p99"):
        low, high = latency["intervals"][name]
        assert low <= latency[name] <= high


def test_shares_and_rates_are_of_what_was_counted() -> None:
    """480 requests before the spike and 1,200 in it, three of each of its 15 seconds refused."""
    figures = report().whole.figures

    assert (figures.scheduled, figures.failed) == (1680, 45)
    assert figures.error_rate == pytest.approx(45 / 1680)
    assert figures.ok_per_second == pytest.approx(1635 / 27)
    assert sum(number for _, number in report().histogram) == figures.latency.count == 1635


def test_what_was_not_measured_is_null() -> None:
    """JSON has no NaN, and 0 would be a lie."""
    one = result()
    one.whole = Counts()
    one.deadline = None
    figures = json.loads(to_json(report(one)))["whole"]["figures"]

    assert figures["latency"]["p99"] is None
    assert figures["error_rate"] is None
    assert figures["goodput"] is None


def test_the_last_slice_is_as_long_as_it_was() -> None:
    """Else the rate of a run of 29.5 seconds would seem to halve at its end."""
    one = result()
    one.seconds = 29.5

    assert report(one).slices[-1].seconds == pytest.approx(0.5)
    assert report(one).slices[0].seconds == 1.0


def test_a_long_run_has_slices_of_several_seconds_in_one_phase_each() -> None:
    """The document stays small, and no slice mixes two loads."""
    one = result(seconds=2001, rate=1)
    slices = report(one).slices

    assert len(slices) <= 602
    assert sum(one.scheduled for one in slices) == 1000 + 2 * 1001
    assert {one.start for one in slices if one.phase == "spike"} >= {1000.0}
    assert [one.warmup for one in slices[:3]] == [True, False, False]


def test_a_file_of_another_version_is_refused() -> None:
    """Its keys mean something else."""
    content = json.loads(to_json(report())) | {"schema_version": 2}

    with pytest.raises(msgspec.ValidationError, match="schema_version"):
        from_json(json.dumps(content).encode())


def test_fields_of_a_later_release_are_passed_over() -> None:
    """A report is read by the release before, too."""
    content = json.loads(to_json(report())) | {"new": 1}

    assert from_json(json.dumps(content).encode()) == report()


def test_counts_of_the_kit_are_consistent() -> None:
    """`sent` is the sum of the statuses, or the tests above say nothing."""
    one = counts(10, failed=2)

    assert sum(one.statuses.values()) == one.sent == 10
    assert SLOS
