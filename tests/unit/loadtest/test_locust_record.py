"""What Locust's users have seen becomes the result that is judged."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.loadtest.scenario import Slo
from serving.loadtest.slo import judge

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def record() -> Iterator[Any]:
    """The module, which lives beside the package."""
    sys.path.insert(0, str(ROOT / "loadtests"))
    yield importlib.import_module("locust_record")
    sys.path.remove(str(ROOT / "loadtests"))


def outcome(record: Any, due: float, **more: Any) -> Any:
    """A success of 10 ms, unless `more` says otherwise."""
    fields = {
        "kind": "m", "due": due, "latency": 0.01, "lag": 0.0002, "status": "200",
        "answered": True, "version": "m:v1", "role": "production", "features": "a=OK|STALE,b=OK",
    } | more  # fmt: skip
    return record.Outcome(**fields)


def result(record: Any, seen: Any, *, warmup: float = 0.0, **more: Any) -> Any:
    """The result of a run of ten seconds."""
    span = record.Span(started=1_790_000_000.25, seconds=10.0, warmup=warmup)
    return record.result_of(seen, span, scenario="s", target="t", protocol="locust", **more)


def test_successes_are_counted_by_what_they_say(record: Any) -> None:
    """Version, role, and each word of the feature status once an answer."""
    seen = record.Seen()
    seen.add(outcome(record, 0.5), None)
    whole = result(record, seen).whole

    assert whole.versions == {"m:v1": 1}
    assert whole.roles == {"production": 1}
    assert whole.feature_status == {"OK": 1, "STALE": 1}
    assert whole.with_features == 1


def test_a_quick_refusal_does_not_make_the_target_look_fast(record: Any) -> None:
    """Answers with an error have a histogram of their own; no answer counts with its wait."""
    seen = record.Seen()
    seen.add(outcome(record, 0.5, status="503", latency=0.001, problem="full"), None)
    seen.add(outcome(record, 0.6, status="timeout", answered=False, latency=2.0), None)
    whole = result(record, seen).whole

    assert whole.rejected.count == 1
    assert whole.latency.quantile(0.5) == pytest.approx(2.0)
    assert whole.problems["503"] == "full"
    assert (whole.scheduled, whole.answered, whole.ok, whole.failed) == (2, 1, 0, 2)


def test_who_is_hung_up_on_has_waited_as_long_as_one_waits(record: Any) -> None:
    """A target that hangs up at once must not be faster than one that answers."""
    seen = record.Seen()
    seen.add(outcome(record, 0.6, status="closed", answered=False, latency=0.001), None, 2.0)

    assert result(record, seen).whole.latency.largest == 2.0


def test_a_success_after_the_deadline_is_not_good(record: Any) -> None:
    """It counts as a success all the same."""
    seen = record.Seen()
    seen.add(outcome(record, 0.5, latency=0.3), 0.1)

    whole = result(record, seen, deadline=0.1).whole
    assert (whole.ok, whole.good) == (1, 0)


def test_warm_up_counts_for_no_slo(record: Any) -> None:
    """Its requests are in a phase of their own, and in no kind."""
    seen = record.Seen()
    for due in (0.5, 1.5, 2.5):
        seen.add(outcome(record, due), None)
    found = result(record, seen, warmup=2.0)

    assert (found.whole.scheduled, found.whole_seconds) == (1, 8.0)
    assert [(phase.name, phase.counts.scheduled) for phase in found.phases] == [
        ("warm-up", 2), ("locust", 1),
    ]  # fmt: skip
    assert [one.warmup for one in found.per_second] == [True, True, False]
    assert [one.counts.scheduled for one in found.kinds] == [1]


def test_processes_add_up(record: Any) -> None:
    """As the master adds what its workers send it, as bytes."""
    one, other = record.Seen(cpu_share=0.2, most_in_flight=3), record.Seen(cpu_share=0.5)
    one.add(outcome(record, 0.5), None)
    other.add(outcome(record, 0.7), None)
    other.add(outcome(record, 0.9, kind="other", waited=0.004), None)
    other.unsent("m", 9.5)
    one.merge(msgspec.msgpack.decode(msgspec.msgpack.encode(other), type=record.Seen))
    found = result(record, one)

    assert (found.whole.scheduled, found.whole.sent, found.whole.unsent) == (4, 3, 1)
    assert [kind.name for kind in found.kinds] == ["m", "other"]
    assert found.generator.cpu_share == 0.5
    assert (found.generator.lag.count, found.generator.waits.count) == (3, 1)


def test_a_late_user_makes_the_run_invalid(record: Any) -> None:
    """As a late generator does."""
    seen = record.Seen()
    for at in range(10):
        seen.add(outcome(record, float(at), lag=0.2), None)

    assert judge(result(record, seen), []).outcome == "invalid"


def test_a_phase_that_was_not_run_is_not_met(record: Any) -> None:
    """An SLO of a phase counts only if the run is said to stand for that phase."""
    seen = record.Seen()
    seen.add(outcome(record, 1.0), None)
    slo = msgspec.convert({"phase": "steady", "error_rate": 0.5}, Slo)

    assert judge(result(record, seen), [slo]).outcome == "missed"
    assert judge(result(record, seen, phase="steady"), [slo]).outcome == "met"


def test_nothing_sent_is_no_success(record: Any) -> None:
    """An empty run says nothing."""
    assert judge(result(record, record.Seen()), []).outcome == "invalid"
