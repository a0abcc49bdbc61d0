"""What a killed launcher leaves is ended: by a mark in the environment, or by its open files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving.engine.ray_serve import sweeper

BOUND_SECONDS = 30.0
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
OPEN = [
    sys.executable,
    "-c",
    "import sys, time; file = open(sys.argv[1], 'w'); print('up', flush=True); time.sleep(600)",
]


def started(command: list[str], **more: str) -> "subprocess.Popen[bytes]":
    """A process that is running its program."""
    process = subprocess.Popen(
        command, env=os.environ | more, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def ended(process: "subprocess.Popen[bytes]") -> None:
    """Wait for it."""
    assert process.stdout is not None
    process.stdout.close()
    process.wait(BOUND_SECONDS)


def test_marked_processes_and_those_with_files_are_killed_and_no_other(tmp_path: Path) -> None:
    """One may be spared."""
    mark = f"SLUICE_TEST={tmp_path}"
    folder = tmp_path / "ray"
    folder.mkdir()
    marked = started(SLEEP, SLUICE_TEST=str(tmp_path))
    spared = started(SLEEP, SLUICE_TEST=str(tmp_path))
    holding = started([*OPEN, str(folder / "log")])
    other = started(SLEEP, SLUICE_TEST=f"{tmp_path}x")
    beside = started([*OPEN, f"{folder}-log"])
    try:
        sweeper.sweep(mark, str(folder), spare=spared.pid, seconds=BOUND_SECONDS)

        for process in (marked, holding):
            ended(process)
            assert process.returncode == -signal.SIGKILL
        assert [process.poll() for process in (spared, other, beside)] == [None, None, None]
    finally:
        for process in (marked, holding, spared, other, beside):
            process.kill()
            ended(process)


@pytest.mark.parametrize("in_order", [True, False])
def test_it_sweeps_when_the_launcher_is_gone_without_a_word(tmp_path: Path, in_order: bool) -> None:
    """`done` means that there is nothing to do; signals of the terminal mean nothing to it."""
    folder = tmp_path / "ray"
    folder.mkdir()
    victim = started(SLEEP, SLUICE_TEST=str(tmp_path))
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", sweeper.__file__, f"SLUICE_TEST={tmp_path}", str(folder)],
        stdin=subprocess.PIPE,
    )
    try:
        _wait_until_it_ignores(guard.pid, signal.SIGINT)
        guard.send_signal(signal.SIGINT)
        guard.communicate(b"done\n" if in_order else b"", timeout=BOUND_SECONDS)

        assert guard.returncode == 0
        assert folder.exists() == in_order
        if in_order:
            assert victim.poll() is None
        else:
            victim.wait(BOUND_SECONDS)
    finally:
        for process in (victim, guard):
            process.kill()
            process.wait()
        ended(victim)


def _wait_until_it_ignores(pid: int, number: int) -> None:
    until = time.monotonic() + BOUND_SECONDS
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status").read_text()
        (ignored,) = [line for line in status.splitlines() if line.startswith("SigIgn:")]
        if int(ignored.split()[1], 16) >> (number - 1) & 1:
            return
        assert psutil.pid_exists(pid)
        time.sleep(0.01)
    pytest.fail("the sweeper does not ignore the signal")
