import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "stand_ins"))

from running_engine import eventually, running

from serving.engine.inspection import inspect, resident_bytes


async def test_a_running_engine_is_seen_from_outside(tmp_path: Path) -> None:
    """Pids, states and memory of every process, and what each worker says of itself."""
    async with running(tmp_path, workers=2) as engine:
        seen = await inspect(tmp_path / "data")

        assert seen is not None
        report, processes = seen
        assert report.addresses == engine.addresses
        assert [p.name for p in processes] == ["store", "control", "worker-0", "worker-1"]
        assert [p.pid for p in processes] == [p.report.pid for p in engine.processes]
        assert all(p.resident_bytes is not None and p.resident_bytes > 1 << 20 for p in processes)
        assert [p.in_flight for p in processes] == [None, None, 3, 3]
        assert [p.revision for p in processes] == [None, None, 7, 7]
        assert [p.says for p in processes] == ["", "", "ready", "ready"]


async def test_a_stopped_worker_is_shown_without_its_own_words(tmp_path: Path) -> None:
    """A process that does not answer holds nobody up and hides nobody."""
    async with running(tmp_path, worker_silent_seconds=1000.0) as engine:
        pid = engine.workers[0].report.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            seen = await inspect(tmp_path / "data")
        finally:
            os.kill(pid, signal.SIGCONT)

        assert seen is not None
        worker = seen[1][-1]
        assert (worker.name, worker.pid, worker.says) == ("worker-0", pid, "")
        assert (worker.in_flight, worker.revision) == (None, None)


async def test_a_crashing_worker_is_shown_with_its_reason(tmp_path: Path) -> None:
    """Restarts, failures in a row and the last exit are there to be read."""
    async with running(tmp_path, wait=False, worker_flags=("--crash",)) as engine:
        await eventually(lambda: engine.workers[0].report.failures >= 2)
        seen = await inspect(tmp_path / "data")

    assert seen is not None
    worker = seen[1][-1]
    assert worker.failures >= 2
    assert worker.restarts >= 1
    assert worker.last_exit == "exit code 7"


async def test_nothing_is_seen_where_nothing_runs(tmp_path: Path) -> None:
    """Neither an empty directory nor the leftovers of a stopped engine look alive."""
    assert await inspect(tmp_path) is None

    async with running(tmp_path):
        pass

    assert await inspect(tmp_path / "data") is None


def test_a_process_that_is_gone_holds_no_memory() -> None:
    """Pid 0 is nobody's."""
    assert resident_bytes(0) is None
