import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from serving.engine.lifecycle import State
from serving.engine.report import (
    Addresses,
    EngineReport,
    ProcessReport,
    process_started,
    read_report,
    write_report,
)


@pytest.fixture
def report() -> EngineReport:
    """What this very process would write."""
    return EngineReport(
        pid=os.getpid(),
        pid_started=process_started(os.getpid()),
        started_at=1_700_000_000.0,
        configuration="/conf",
        data="/data",
        addresses=Addresses(http="127.0.0.1:1", grpc="127.0.0.1:2", admin="127.0.0.1:3"),
        processes=[ProcessReport(name="worker-0", state=State.READY, pid=7, restarts=2)],
    )


def test_a_report_is_read_as_it_was_written(tmp_path: Path, report: EngineReport) -> None:
    """Every field survives, and only the owner may read the file."""
    path = tmp_path / "engine.json"

    write_report(path, report)

    assert read_report(path) == report
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["engine.json"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"pid": "x"}', b"\xff"])
def test_what_is_not_a_report_reads_as_nothing(tmp_path: Path, content: bytes | None) -> None:
    """A missing, half-written or foreign file is no engine."""
    path = tmp_path / "engine.json"
    if content is not None:
        path.write_bytes(content)

    assert read_report(path) is None


def test_a_living_engine_is_alive(report: EngineReport) -> None:
    """This process exists."""
    assert report.alive


def test_another_process_under_the_same_pid_is_not_the_engine(report: EngineReport) -> None:
    """A pid alone proves nothing after a reboot; the start time does."""
    assert not msgspec.structs.replace(report, pid_started="1").alive


def test_a_dead_engine_is_not_alive_even_before_it_is_reaped(report: EngineReport) -> None:
    """A zombie runs nothing."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = process_started(child.pid)
        own = msgspec.structs.replace(report, pid=child.pid, pid_started=started)
        assert own.alive
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        assert not own.alive
    assert not own.alive
