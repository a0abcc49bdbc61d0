"""A run beside the one before it: ratios, chance, and what cannot be compared."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from loadtest_kit import report, result

from serving.config.decode import decode
from serving.loadtest.against import NoBaseline, compare, read_baseline
from serving.loadtest.checks import Check
from serving.loadtest.histogram import Histogram
from serving.loadtest.report.document import Document, to_json
from serving.loadtest.report.page import to_html
from serving.loadtest.results import Comparison, Result
from serving.loadtest.scenario import Slo
from serving.loadtest.slo import judge

MACHINE = {"cpu": "a processor", "cores": "2"}


def slower(times: float) -> Result:
    """The usual run with every latency so many times as long."""
    one = result()
    for counts in (one.whole, *(phase.counts for phase in one.phases)):
        made = Histogram()
        for value, count in counts.latency.points():
            made.add(value * times, count)
        counts.latency = made
    return one


def compared(now: Result, place: str, figure: str, *, before: Document | None = None) -> Comparison:
    """One figure of a run against the usual one."""
    against = compare(before or report(), now, machine=MACHINE)
    [found] = [one for one in against.figures if (one.place, one.figure) == (place, figure)]
    return found


def check(now: Result, bounds: str, *, phase: str = "") -> Check:
    """The check of an SLO against the usual run."""
    now.against = compare(report(), now, machine=MACHINE)
    slo = decode(f"{{phase: '{phase}', against: {bounds}}}", "slo.yaml", Slo).value
    return judge(now, [slo]).checks[1]


@pytest.mark.parametrize("figure", ["p50", "p90", "p99"])
@pytest.mark.parametrize("place", ["whole run", "steady", "spike"])
def test_a_run_that_is_twice_as_slow_has_a_ratio_of_two(place: str, figure: str) -> None:
    """In each phase, within the width of the buckets, and chance leaves it likely."""
    found = compared(slower(2.0), place, figure)

    assert found.ratio == pytest.approx(2.0, rel=0.02)
    assert found.low is None or found.low < found.ratio  # None: too few requests
    assert found.high is None or found.ratio < found.high


def test_the_same_run_again_is_once_what_it_was() -> None:
    """Throughput too; shares have no multiple, and are shown."""
    assert compared(result(), "steady", "p99").ratio == pytest.approx(1.0, rel=0.02)
    assert compared(result(), "whole run", "throughput").ratio == pytest.approx(1.0)
    assert compared(result(), "spike", "error rate").now == pytest.approx(45 / 1200)


@pytest.mark.parametrize(
    ("times", "bounds", "ok"),
    [
        (1.3, "{p99: 1.4}", True),
        (1.3, "{p99: 1.2}", False),
        (1.3, "{p50: 1.2}", False),
        (1.0, "{throughput: 0.95}", True),
        (1.0, "{throughput: 1.1}", False),
    ],
)
def test_a_bound_is_in_multiples_of_the_run_before(times: float, bounds: str, ok: bool) -> None:
    """Latency at most, throughput at least."""
    found = check(slower(times), bounds, phase="steady")

    assert found.ok is ok, found.words
    assert "before" in found.words


def test_without_a_run_before_nothing_is_green() -> None:
    """An SLO for what was not measured is not met."""
    [_, found] = judge(result(), [decode("{against: {p99: 9}}", "s.yaml", Slo).value]).checks

    assert not found.ok
    assert "no run before was named (--against)" in found.words


def test_another_load_cannot_be_compared() -> None:
    """Twice the requests make another latency, whatever the program."""
    found = compared(result(rate=80), "steady", "p99")

    assert found.ratio is None
    assert "it had 480 requests before, and 960 now" in found.reason
    assert not check(result(rate=80), "{p99: 9}").ok


def test_another_length_cannot_be_compared() -> None:
    """Also where the number of requests happens to be near."""
    assert "s long before" in compared(result(seconds=20), "steady", "p50").reason


def test_another_schedule_of_the_same_rate_can() -> None:
    """Poisson arrivals of another seed are not as many."""
    assert compared(result(rate=41), "steady", "p50").ratio is not None


def test_a_phase_that_is_new_is_not_measured() -> None:
    """And those that both have still are."""
    now = result(phases=("steady", "peak"))

    assert "the run before had no such phase" in check(now, "{p99: 9}", phase="peak").words
    assert check(result(), "{p99: 9}", phase="steady").ok


def test_what_else_differs_is_said() -> None:
    """Machine, versions and options: a ratio between two machines is none of the program."""
    now = msgspec.structs.replace(
        result(), connections=32, versions={"sluice": "0.2.0", "python": "3.11.9"}
    )
    against = compare(report(), now, machine={"cpu": "another", "cores": "2"})

    assert against.differences == [
        "connections: 16, now 32",
        "sluice: 0.1.0, now 0.2.0",
        "cpu: a processor, now another",
    ]


def test_the_page_has_the_comparison() -> None:
    """With its ratio, and why a phase has none."""
    now = slower(2.0)
    now.phases[1].seconds = 99.0
    now.against = compare(report(), now, machine=MACHINE)
    text = to_html(report(now))

    assert "Against the run before" in text
    assert "spike cannot be compared: it was 15 s long before, and 99 s now." in text


def test_a_report_that_was_written_is_a_baseline(tmp_path: Path) -> None:
    """What `--json` writes is what `--against` reads."""
    path = tmp_path / "run.json"
    path.write_bytes(to_json(report()))

    assert read_baseline(path) == report()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is no report of a load test"),
        (b"{}", "is no report of a load test"),
        (b"name: x", "is no report of a load test"),
        (to_json(report(result(late=0.5))), "of a run that was no measurement: the generator"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    """Before the run, not after it."""
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(NoBaseline, match=words):
        read_baseline(path)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_an_interval_holds_the_true_quantile_as_often_as_it_says(share: float) -> None:
    """95 % of the time; three standard deviations of 300 seeded draws are 4 %."""
    random: Any = np.random.default_rng(7)
    true = -np.log(1 - share) * 0.005
    held = 0
    for _ in range(300):
        low, high = Histogram.of(random.exponential(0.005, 2000)).interval(share)
        assert low is not None
        assert high is not None
        held += low * (1 - 1 / 256) <= true <= high * (1 + 1 / 256)

    assert held / 300 == pytest.approx(0.95, abs=0.04)


def test_few_values_bound_nothing() -> None:
    """The largest of a hundred says nothing about how large a 99.9th percentile can be."""
    low, high = Histogram.of(np.full(100, 0.01)).interval(0.999)

    assert low is not None
    assert high is None
    assert Histogram().interval(0.5) == (None, None)
