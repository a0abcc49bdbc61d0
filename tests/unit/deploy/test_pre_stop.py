"""`configs/deploy/kuberay/drain.py`, which Kubernetes runs before it ends a pod."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_kit import FOLDER


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """DATA/run, empty."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


WORKER = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
print(connection.recv(4096).split(b"\\r\\n")[0].decode(), flush=True)
connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
time.sleep(float(sys.argv[2]))
"""


def start_worker(path: Path, seconds: float) -> "subprocess.Popen[str]":
    """A process that takes one question on a private socket, and then works for so long."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WORKER, str(path), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    # As an engine does: a process that ended and was not waited for would still be there.
    threading.Thread(target=process.wait, daemon=True).start()
    return process


@pytest.fixture
def workers(run_folder: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two such processes: one is done at once, one after half a second."""
    started = [
        start_worker(run_folder / f"worker-{number}.sock", seconds)
        for number, seconds in enumerate((0.0, 0.5))
    ]
    yield started
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def drain(data: Path, *, wait: float) -> "subprocess.CompletedProcess[str]":
    """Run preStop's program without its pause."""
    return subprocess.run(
        [
            *(sys.executable, "-I", "-S", str(FOLDER / "drain.py"), str(data)),
            *("--pause", "0", "--wait", str(wait)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_pre_stop_returns_when_the_last_worker_has_ended(
    run_folder: Path, workers: list["subprocess.Popen[str]"]
) -> None:
    """Every worker is asked, and the slowest is waited for; a socket without one is passed over."""
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(str(run_folder / "worker-7.sock"))
    abandoned.close()

    done = drain(run_folder.parent, wait=20)

    assert (done.returncode, done.stderr) == (0, "")
    for process in workers:
        assert process.stdout is not None
        assert process.stdout.readline() == "POST /drain HTTP/1.1\n"
        assert process.poll() == 0


def test_pre_stop_gives_up_in_time(
    run_folder: Path, workers: list["subprocess.Popen[str]"]
) -> None:
    """A worker that goes on is left to SIGKILL, and the event that Kubernetes keeps says so."""
    del workers
    slow = start_worker(run_folder / "worker-2.sock", 60)
    began = time.monotonic()

    done = drain(run_folder.parent, wait=1)

    assert time.monotonic() - began < 20
    assert done.returncode == 1
    assert "1 workers did not finish within 1 s" in done.stderr
    slow.kill()
    slow.wait()
    assert slow.stdout is not None
    slow.stdout.close()


def test_pre_stop_has_nothing_to_do_without_workers(run_folder: Path) -> None:
    """A pod in which none was placed ends at once."""
    assert drain(run_folder.parent, wait=20).returncode == 0
