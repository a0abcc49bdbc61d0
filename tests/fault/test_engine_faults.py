import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "stand_ins"))

from running_engine import (
    BOUND_SECONDS,
    ENGINE,
    PROCESS,
    build,
    events,
    eventually,
    replaced,
    running,
    who_answers,
)

from serving.engine.lifecycle import State
from serving.engine.local import Programs
from serving.engine.report import read_report
from serving.errors import EngineError


async def test_a_killed_worker_is_replaced_and_its_neighbour_untouched(tmp_path: Path) -> None:
    """A kill -9 costs one worker's connections; the port goes on answering."""
    async with running(tmp_path, workers=2) as engine:
        victim, neighbour = engine.workers
        old, kept = victim.report.pid, neighbour.report.pid
        assert old is not None

        os.kill(old, signal.SIGKILL)
        await replaced(victim, old)

        assert victim.report.restarts == 1
        assert victim.report.last_exit == "killed by SIGKILL"
        assert (neighbour.report.pid, neighbour.report.restarts) == (kept, 0)
        assert who_answers(engine.addresses.http).startswith("worker-")


async def test_a_stopped_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    """SIGSTOP leaves a listener that accepts and never answers, so silence is death."""
    async with running(tmp_path, workers=2) as engine:
        victim, neighbour = engine.workers
        old, kept = victim.report.pid, neighbour.report.pid
        assert old is not None

        os.kill(old, signal.SIGSTOP)
        await replaced(victim, old)

        assert not psutil.pid_exists(old)
        assert "silent for" in victim.report.last_exit
        assert neighbour.report.pid == kept


async def test_a_stopped_control_is_replaced_without_touching_workers(tmp_path: Path) -> None:
    """The control plane may die; the data plane keeps answering."""
    async with running(tmp_path, control_silent_seconds=1.0) as engine:
        control, worker = engine.control, engine.workers[0]
        assert control is not None
        old, kept = control.report.pid, worker.report.pid
        assert old is not None

        os.kill(old, signal.SIGSTOP)
        await replaced(control, old)

        assert (worker.report.pid, worker.state) == (kept, State.READY)


async def test_a_worker_that_never_answers_is_killed_and_tried_again(tmp_path: Path) -> None:
    """A start has a bound too."""
    async with running(tmp_path, wait=False, worker_flags=("--mute",), start_seconds=1.0) as engine:
        await eventually(lambda: engine.workers[0].report.restarts >= 1)

        assert "not ready for" in engine.workers[0].report.last_exit


async def test_a_crashing_worker_backs_off_and_is_reported_with_its_last_words(
    tmp_path: Path,
) -> None:
    """`until_ready` gives up with the reason instead of waiting for ever."""
    async with running(tmp_path, wait=False, worker_flags=("--crash",)) as engine:
        with pytest.raises(EngineError, match=r"worker-0 failed \d+ times in a row") as failed:
            await asyncio.wait_for(engine.until_ready(), BOUND_SECONDS)

        report = read_report(engine.directory.engine_json)
        assert report is not None
        [worker] = [p for p in report.processes if p.name == "worker-0"]
        assert worker.failures >= 3
        assert worker.last_exit == "exit code 7"
    assert "exit code 7" in failed.value.message
    assert "worker-0 cannot go on: the reason" in failed.value.message


async def test_a_crashing_worker_takes_nobody_with_it(tmp_path: Path) -> None:
    """The others keep their pids and serve."""
    async with running(
        tmp_path, wait=False, workers=2, worker_flags=("--crash-worker", "1")
    ) as engine:
        good, bad = engine.workers
        await eventually(lambda: bad.report.failures >= 3 and good.state is State.READY)

        assert good.report.restarts == 0
        assert who_answers(engine.addresses.http) == "worker-0"


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """No traceback of the engine, but what could not be started."""
    programs = Programs(worker=PROCESS, control=(str(tmp_path / "no-such-program"),))
    async with running(tmp_path, wait=False, programs=programs) as engine:
        with pytest.raises(EngineError, match=r"control failed .* cannot be started: No such file"):
            await asyncio.wait_for(engine.until_ready(), BOUND_SECONDS)


async def test_a_worker_that_ignores_sigterm_is_killed_after_its_drain(tmp_path: Path) -> None:
    """One stuck worker cannot hold up a stop for ever, and the others still drain in order."""
    lines: list[str] = []
    async with running(
        tmp_path, lines=lines, worker_flags=("--ignore-sigterm",), drain_seconds=0.3
    ) as engine:
        pass

    assert engine.workers[0].report.last_exit == "killed by SIGKILL"
    assert "engine | worker-0: still busy after 0.3 s; killed" in lines
    assert events(tmp_path)[-1] == "ended control store"


async def test_kill_ends_a_drain_at_once(tmp_path: Path) -> None:
    """The second Ctrl-C does not wait for the drain that the first one began."""
    async with running(
        tmp_path, worker_flags=("--ignore-sigterm",), drain_seconds=10_000.0
    ) as engine:
        stopping = asyncio.create_task(engine.stop())
        await eventually(lambda: engine.workers[0].state is State.DRAINING)

        engine.kill()
        await asyncio.wait_for(stopping, BOUND_SECONDS)

        assert [process.state for process in engine.processes] == [State.STOPPED] * 3


async def test_an_engine_stopped_while_starting_leaves_nothing(tmp_path: Path) -> None:
    """A stop before the first answer drains what was just started."""
    engine = build(tmp_path, lines=[], workers=2)
    await engine.start()

    await asyncio.wait_for(engine.stop(), BOUND_SECONDS)

    assert [process.state for process in engine.processes] == [State.STOPPED] * 4
    assert list((tmp_path / "data").glob("run/*")) == []


def engine_process(home: Path, *, workers: int) -> "subprocess.Popen[bytes]":
    """An engine in a process of its own; it prints one line when ready."""
    return subprocess.Popen([*ENGINE, str(home), str(workers)], stdout=subprocess.PIPE)


async def test_a_killed_engine_leaves_no_orphan_and_the_next_one_starts(tmp_path: Path) -> None:
    """A kill -9 of the engine ends its children; stale files do not stop the next start."""
    with engine_process(tmp_path, workers=2) as engine:
        try:
            assert engine.stdout is not None
            assert await asyncio.to_thread(engine.stdout.readline)
            report = read_report(tmp_path / "data" / "run" / "engine.json")
            assert report is not None
            children = [psutil.Process(p.pid) for p in report.processes]
            assert len(children) == 4
        finally:
            engine.kill()

    await eventually(lambda: not any(child.is_running() for child in children))
    assert (tmp_path / "data" / "run" / "engine.json").exists()
    assert not report.alive
    async with running(tmp_path, workers=2) as again:
        assert again.workers[1].state is State.READY


async def test_sigterm_to_the_engine_process_drains_and_exits_zero(tmp_path: Path) -> None:
    """A service supervisor's stop is clean."""
    with engine_process(tmp_path, workers=1) as engine:
        try:
            assert engine.stdout is not None
            assert await asyncio.to_thread(engine.stdout.readline)
            engine.terminate()
            assert await asyncio.to_thread(engine.wait, BOUND_SECONDS) == 0
        finally:
            engine.kill()

    assert events(tmp_path)[-1] == "ended control store"
    assert list((tmp_path / "data" / "run").iterdir()) == []
