"""Whom a batcher refuses or drops: too many, too late, and shadows."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from batcher_kit import BOUND, Bench, Gate, answers
from model_kit import FunctionRunner

from serving.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Provide a clock and a metrics file."""
    with Bench(tmp_path / "numbers.metrics") as made:
        yield made


@pytest.mark.parametrize("rows", [0, 5])
async def test_too_many_rows_or_none_are_refused_with_the_limit(bench: Bench, rows: int) -> None:
    """The message names the limit and its key in the configuration."""
    batcher = bench.batcher(FunctionRunner(), rows=4)

    with pytest.raises(InvalidRequest, match=rf"has {rows} rows.* 1 to 4 \(serve\.max_batch_size"):
        bench.send(batcher, *range(rows))


async def test_a_deadline_that_has_passed_costs_no_run(bench: Bench) -> None:
    """It is refused on arrival and counted."""
    runner = FunctionRunner()
    batcher = bench.batcher(runner)

    with pytest.raises(DeadlineExceeded):
        bench.send(batcher, 1, within=0.0)

    assert batcher.expired == 1
    assert runner.runs == []


async def test_a_deadline_that_passes_in_the_queue_costs_no_run(bench: Bench) -> None:
    """The run before it took too long; it is ended, and the next one is answered."""
    runner = FunctionRunner(lambda x: (bench.clock.advance(5.0), x)[1], limit=1)
    batcher = bench.batcher(runner, rows=1)
    first, late, last = (bench.send(batcher, i, within=w) for i, w in enumerate((1, 4, 60)))

    await answers(first, last)

    with pytest.raises(DeadlineExceeded):
        late.result()
    assert runner.runs == [[0], [2]]
    assert batcher.expired == 1


async def test_a_full_queue_refuses_and_says_when_to_return(bench: Bench) -> None:
    """`max_queue_size` requests wait; one more is refused at once."""
    batcher = bench.batcher(FunctionRunner(), queue=3)
    waiters = [bench.send(batcher, i) for i in range(3)]

    with pytest.raises(Overloaded, match=r"serve\.max_queue_size") as refusal:
        bench.send(batcher, 3)

    assert refusal.value.reason == "queue_full"
    assert 0 <= refusal.value.retry_after_seconds < 1
    assert await answers(*waiters) == [[0], [2], [4]]


async def test_those_who_left_make_room_in_a_full_queue(bench: Bench) -> None:
    """A cancelled request does not keep a live one out."""
    batcher = bench.batcher(FunctionRunner(), queue=2)
    first, second = bench.send(batcher, 1), bench.send(batcher, 2)
    first.cancel()

    third = bench.send(batcher, 3)

    assert await answers(second, third) == [[4], [6]]


async def test_a_request_that_could_not_be_answered_in_time_is_refused(bench: Bench) -> None:
    """With 10 ms a run, 60 % of 99 ms are spent after five runs; the rest is refused at once."""
    gate = Gate()
    runner = FunctionRunner(gate, limit=1, seconds=0.010)
    batcher = bench.batcher(runner, rows=1)
    waiters = [bench.send(batcher, 0, within=0.099)]
    await asyncio.to_thread(gate.entered.wait, BOUND)

    waiters += [bench.send(batcher, i, within=0.099) for i in range(4)]
    with pytest.raises(Overloaded) as refusal:
        bench.send(batcher, 9, within=0.099)
    patient = bench.send(batcher, 10, within=1.0)

    assert refusal.value.reason == "deadline"
    assert refusal.value.retry_after_seconds == pytest.approx(0.06)
    gate.opened.set()
    await answers(*waiters, patient)


async def test_an_idle_session_takes_whatever_comes(bench: Bench) -> None:
    """A wrong estimate cannot shut a version off: it is corrected by running."""
    runner = FunctionRunner(seconds=100.0)
    batcher = bench.batcher(runner)

    assert await answers(bench.send(batcher, 1, within=0.5)) == [[2]]


async def test_shadows_run_after_production_and_one_by_one(bench: Bench) -> None:
    """They share no batch with production, nor with each other."""
    runner = FunctionRunner()
    batcher = bench.batcher(runner)
    shadows = [bench.send(batcher, i, within=1.0, shadow=True) for i in (7, 8)]
    production = [bench.send(batcher, i) for i in (1, 2)]

    await answers(*production, *shadows)

    assert runner.runs == [[1, 2], [7], [8]]


async def test_a_new_shadow_pushes_out_the_oldest(bench: Bench) -> None:
    """Their queue is bounded, and the newest copy is worth the most."""
    batcher = bench.batcher(FunctionRunner(), queue=2)
    oldest, *others = [bench.send(batcher, i, shadow=True) for i in range(3)]

    assert await answers(*others) == [[2], [4]]

    with pytest.raises(Overloaded) as dropped:
        oldest.result()
    assert dropped.value.reason == "shadow_dropped"


async def test_a_shadow_whose_time_is_up_is_dropped_not_late(bench: Bench) -> None:
    """It counts as dropped for lack of capacity, not as somebody's missed deadline."""
    runner = FunctionRunner(lambda x: (bench.clock.advance(5.0), x)[1])
    batcher = bench.batcher(runner)
    shadow = bench.send(batcher, 7, within=1.0, shadow=True)

    await answers(bench.send(batcher, 1))
    await asyncio.wait([shadow], timeout=BOUND)

    with pytest.raises(Overloaded, match="idle capacity"):
        shadow.result()
    assert batcher.expired == 0
    assert runner.runs == [[1]]


async def test_waiting_shadows_keep_no_production_request_out(bench: Bench) -> None:
    """They do not count against the queue or the estimate of waiting."""
    batcher = bench.batcher(FunctionRunner(seconds=1e-4), queue=2)
    shadows = [bench.send(batcher, i, shadow=True) for i in range(2)]

    got = await answers(*[bench.send(batcher, i, within=0.002) for i in range(2)])

    assert got == [[0], [2]]
    await answers(*shadows)
