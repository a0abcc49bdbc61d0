"""The local engine follows orders, over stand-in programs that only listen and drain."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent / "stand_ins"))

from running_engine import events, eventually, running

from serving.config.applied import Orders, read_failure, startable, write_orders
from serving.config.schema import WorkersConfig
from serving.engine.lifecycle import State
from serving.engine.local import LocalEngine
from serving.tasks import end


@asynccontextmanager
async def following(home: Path, **given: object) -> AsyncIterator[LocalEngine]:
    """An engine that is up and follows."""
    async with running(home, **given) as engine:
        task = asyncio.create_task(engine.until_broken())
        try:
            yield engine
        finally:
            await end(task)


def names(engine: LocalEngine) -> list[str]:
    """The workers that run."""
    return sorted(worker.spec.name for worker in engine.workers)


def generations(engine: LocalEngine) -> set[str]:
    """What the workers were started with; empty for the first."""
    commands = [worker.spec.command for worker in engine.workers]
    return {
        words[words.index("--generation") + 1] if "--generation" in words else ""
        for words in commands
    }


def order(engine: LocalEngine, **orders: object) -> None:
    """As control does."""
    write_orders(engine.directory.path, Orders(engine="", **orders))  # type: ignore[arg-type]


async def test_each_worker_is_replaced_after_its_successor_serves(tmp_path: Path) -> None:
    """One more than asked for meanwhile, each with the lowest number that is free."""
    async with following(tmp_path, workers=2) as engine:
        before = [worker.report.pid for worker in engine.workers]
        order(engine, serial=1, workers=3)
        await eventually(lambda: generations(engine) == {"3"} and len(engine.workers) == 2)

        assert names(engine) == ["worker-0", "worker-2"]
        assert all(worker.state is State.READY for worker in engine.workers)
        assert all(worker.report.restarts == 0 for worker in engine.workers)
        assert not any(pid is not None and psutil.pid_exists(pid) for pid in before)

    happened = [
        event.rsplit(" ", 1)[0] if event.startswith("started") else event
        for event in events(tmp_path)
        if "worker" in event
    ]
    assert happened[2:8] == [
        "started worker-2", "draining worker-0", "ended worker-0 store",
        "started worker-0", "draining worker-1", "ended worker-1 store",
    ]  # fmt: skip


async def test_one_worker_is_enough(tmp_path: Path) -> None:
    """Its successor has the next number."""
    async with following(tmp_path) as engine:
        order(engine, serial=1, workers=1)
        await eventually(lambda: names(engine) == ["worker-1"])

        assert engine.workers[0].state is State.READY


async def test_a_successor_that_does_not_serve_is_ended_and_nobody_else(tmp_path: Path) -> None:
    """It says why, and goes on with what there was; a later order is followed."""
    lines: list[str] = []
    flags = ("--crash-generation", "2")
    async with following(tmp_path, workers=2, worker_flags=flags, lines=lines) as engine:
        before = [worker.report.pid for worker in engine.workers]
        orders = Orders(engine="", serial=1, workers=2)
        write_orders(engine.directory.path, orders)
        failure = await eventually(lambda: read_failure(engine.directory.path))
        kept = [worker.report.pid for worker in engine.workers]
        order(engine, serial=2, workers=3)
        await eventually(lambda: generations(engine) == {"3"})

    assert "worker-2 cannot go on: the reason" in failure.reason
    assert kept == before
    assert startable(orders, failure) == 0
    assert any("stopped, what runs goes on" in line for line in lines)


async def test_workers_come_and_go_with_the_number(tmp_path: Path) -> None:
    """A range means its lower end; those that stay are not touched."""
    async with following(tmp_path) as engine:
        [first] = [worker.report.pid for worker in engine.workers]
        order(engine, serial=1, number=3)
        await eventually(lambda: names(engine) == ["worker-0", "worker-1", "worker-2"])
        order(engine, serial=2, number=WorkersConfig(min=2, max=9))
        await eventually(lambda: names(engine) == ["worker-0", "worker-1"])

        assert engine.workers[0].report.pid == first


async def test_control_is_started_again_by_order(tmp_path: Path) -> None:
    """It counts as a new process, not as one that died."""
    async with following(tmp_path) as engine:
        assert engine.control is not None
        before = engine.control.report.pid
        order(engine, serial=1, control=4)
        await eventually(
            lambda: engine.control.state is State.READY and engine.control.report.pid != before
        )

        assert engine.control.report.restarts == 0
        assert engine.control.spec.command[-2:] == ("--generation", "4")
        assert [worker.report.restarts for worker in engine.workers] == [0]


async def test_an_engine_that_is_stopped_halfway_leaves_nothing(tmp_path: Path) -> None:
    """The successor ends with the others."""
    async with following(tmp_path, workers=2) as engine:
        order(engine, serial=1, workers=1)
        await eventually(lambda: len(engine.workers) == 3)
        pids = [process.report.pid for process in engine.processes]

    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)
    assert list((tmp_path / "data" / "run").iterdir()) == []
