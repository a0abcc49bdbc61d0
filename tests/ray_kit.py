"""A gateway on Ray for tests: who is who among its processes, and one that test processes share."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gateway_kit
import psutil
import pytest

from serving.engine.ray_serve.kept import read_reports

BOUND_SECONDS = 90.0


ON_RAY = pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.timeout(240)])
"""A fixture's parameter for a gateway on Ray, whose start takes Ray's ten seconds."""


def replicas(running: gateway_kit.Running) -> dict[str, tuple[int, int]]:
    """Process name to (its own pid, pid of the replica that keeps it); those that run."""
    return {
        one.process.name: (one.process.pid, one.supervisor)
        for one in read_reports(running.data / "run")
        if one.process.pid
    }


def find(running: gateway_kit.Running, title: str) -> list[int]:
    """Pids of processes under the launcher whose command line begins with `title`."""
    found = []
    for process in psutil.Process(running.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(title):
                found.append(process.pid)
    return found


def eventually(holds: Callable[[], bool], what: str, seconds: float = BOUND_SECONDS) -> float:
    """Wait until `holds`; returns how long it took. Only failing to happen at all fails."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"never: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def left_behind(data: Path, launcher: int) -> list[str]:
    """Command lines of processes that still have to do with a gateway that is gone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.pid not in {os.getpid(), launcher} and any(
                str(data) in one for one in words
            ):
                found.append(" ".join(words))
    return found


def shared_gateway(factory: pytest.TempPathFactory) -> gateway_kit.Running:
    """The gateway on Ray that all test processes share: the clients' models, and feature views.

    Whoever asks first starts it; `end_shared` ends it with the whole run, as a fixture that one
    test process tears down may be wanted again by another.
    """
    base = factory.getbasetemp()
    folder = _shared_folder(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "said.json"
    with _locked(folder):
        if not said.exists():
            if not (folder / "conf").exists():
                _configure(folder / "conf")
            said.write_text(_start(folder))
        # Nobody here is its parent.
        return gateway_kit.Running(None, json.loads(said.read_text()), folder)  # type: ignore[arg-type]


def end_shared(base: Path) -> None:
    """End the shared gateway, if there is one. `base` is pytest's own folder of the whole run."""
    said = _shared_folder(base) / "said.json"
    if said.exists():
        _stop(int(json.loads(said.read_text())["pid"]))
        said.unlink()


def _shared_folder(base: Path) -> Path:
    return base / "on-ray"


def _configure(directory: Path) -> None:
    import feature_models
    from conformance import gateway_models

    gateway_kit.write_gateway(
        directory,
        engine={"kind": "ray", "workers": 1, "worker_cpus": 0.5},
        features=feature_models.FEATURES,
    )
    gateway_models.write_models(directory)
    feature_models.configure(directory)


# Ends a gateway that outlives the tests, because they were killed: nobody else would.
_WATCH = """
import contextlib, os, signal, sys, time
tests, gateway = map(int, sys.argv[1:])
def there(pid):
    with contextlib.suppress(OSError):
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
while there(tests) and there(gateway):
    time.sleep(0.5)
if there(gateway):
    os.kill(gateway, signal.SIGTERM)
"""


def _start(folder: Path) -> str:
    data = folder / "data"
    command = [gateway_kit.SLUICE, "up", folder / "conf", "--data", data, "--json"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
    # Under xdist the process that runs all the others' tests, else this one.
    tests = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, str(tests), str(process.pid)],
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    assert line, (folder / "log").read_text()
    for one in (process, watch):
        one.returncode = 0  # whoever is last ends it; no warning when this object goes
    return line


def _stop(pid: int) -> None:
    def ended() -> bool:
        # Where another test process is its parent, that does not ask for its exit code.
        try:
            return process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        eventually(ended, "the shared gateway has ended")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
