"""What is concluded from memory that was looked at: who has grown, and what leaks."""

import importlib
from types import ModuleType
from typing import Any

import msgspec
import pytest

MIB = 1 << 20


@pytest.fixture
def verdict() -> ModuleType:
    """loadtests/soak_verdict.py."""
    return importlib.import_module("soak_verdict")


@pytest.fixture
def report() -> ModuleType:
    """loadtests/soak_report.py."""
    return importlib.import_module("soak_report")


def course(
    verdict: ModuleType,
    *,
    rss: Any = lambda *_: 100 * MIB,
    blocks: Any = lambda *_: 1000,
    process: str = "worker-0",
    rounds: int = 8,
) -> list[Any]:
    """Samples of one process every 1,000 requests, 10 changes in every second round.

    `rss` and `blocks` are functions of the requests and changes so far.
    """
    held = importlib.import_module("soak_memory").Held
    samples = []
    changes = 0
    for number in range(rounds):
        requests = 1000 * (number + 1)
        busy = number % 2 == 1
        changes += 10 if busy else 0
        samples.append(
            verdict.Sample(
                phase="warm-up" if number < 4 else "busy" if busy else "plain",
                seconds=float(number),
                requests=requests,
                changes=changes,
                loads=0,
                held={
                    process: held(
                        pid=1, rss=rss(requests, changes), pss=0, blocks=blocks(requests, changes)
                    )
                },
            )
        )
    return samples


def test_growth_is_counted_from_the_end_of_the_warm_up(verdict: ModuleType) -> None:
    """However much a process takes until then."""
    samples = course(
        verdict,
        rss=lambda requests, _: (
            MIB * {1000: 10, 2000: 100, 3000: 100, 4000: 100}.get(requests, 103)
        ),
    )

    [growth] = verdict.growths(samples)
    assert growth.share == pytest.approx(0.03)


def test_one_high_sample_is_no_growth(verdict: ModuleType) -> None:
    """A sample taken while something large was held for a moment does not decide."""
    samples = course(verdict, rss=lambda requests, _: MIB * (150 if requests == 8000 else 100))

    [growth] = verdict.growths(samples)
    assert growth.share == 0


def test_a_block_a_request_is_told_from_blocks_a_change(verdict: ModuleType) -> None:
    """Rounds without changes say what a request leaves, the others what a change adds."""
    samples = course(verdict, blocks=lambda requests, changes: 1000 + requests + 50 * changes)

    [leak] = verdict.leaks(samples)
    assert leak.blocks_per_request == pytest.approx(1)
    assert leak.blocks_per_change == pytest.approx(50)


def test_a_process_that_has_grown_is_named_with_its_sizes(
    verdict: ModuleType, report: ModuleType
) -> None:
    """By more than the bound: which, how much, from what to what."""
    samples = course(verdict, rss=lambda requests, _: MIB * (110 if requests > 4000 else 100))

    judged = report.verdict(samples, 0, [], 0.05)
    words = "by 10.0%, more than 5.0%: 100.0 MiB when it was warm, 110.0 MiB at the end"
    assert judged.reasons == [f"worker-0 has grown {words}"]


def test_the_store_keeps_what_it_is_given(verdict: ModuleType, report: ModuleType) -> None:
    """It is shown and not judged."""
    samples = course(verdict, rss=lambda requests, _: MIB * requests, process="store")

    assert report.verdict(samples, 0, [], 0.05).reasons == []


def test_a_process_that_was_started_anew_is_no_success(
    verdict: ModuleType, report: ModuleType
) -> None:
    """A crash empties memory, under the same name; that must not look like memory that stays."""
    samples = course(verdict)
    for one in samples[-2:]:
        one.held["worker-0"] = msgspec.structs.replace(one.held["worker-0"], pid=2)

    assert report.verdict(samples, 0, [], 0.05).reasons == ["worker-0 was not there all the time"]


def test_a_process_that_ended_is_no_success(verdict: ModuleType, report: ModuleType) -> None:
    """Nor is one that nobody could look at any more."""
    samples = course(verdict)
    samples[-1].held.clear()

    assert report.verdict(samples, 0, [], 0.05).reasons == ["worker-0 was not there all the time"]


def test_a_run_that_ended_early_is_not_good(verdict: ModuleType, report: ModuleType) -> None:
    """What it says of memory is shown, and the reason beside it."""
    judged = report.verdict(course(verdict), 0, ["the time was over"], 0.05)

    assert judged.reasons == ["the time was over"]
    assert len(judged.growths) == 1


def test_without_a_sample_of_each_phase_nothing_is_good(
    verdict: ModuleType, report: ModuleType
) -> None:
    """A warm-up alone proves nothing."""
    [reason] = report.verdict(course(verdict, rounds=4), 0, [], 0.05).reasons

    assert "nothing can be said" in reason


def test_wrong_answers_are_not_good(verdict: ModuleType, report: ModuleType) -> None:
    """Memory may stay where it is because nothing is answered."""
    assert report.verdict(course(verdict), 3, [], 0.05).reasons == [
        "3 requests were answered wrongly or not at all"
    ]
