"""A gateway on Ray for tests: who is who among its processes, and one that test processes share."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gateway_kit
import psutil

from serving.engine.ray_serve.keeper import read_reports

BOUND_SECONDS = 90.0


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


@contextlib.contextmanager
def shared(
    folder: Path, start: Callable[[], contextlib.AbstractContextManager[dict[str, str]]]
) -> Iterator[dict[str, str]]:
    """What `start` gives, started by the first test process that asks and ended by the last.

    `folder` is the same for all of them. A process that started it and is done earlier waits for
    the others.
    """
    users, said = folder / "users", folder / "said.json"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(folder):
            if said.exists():
                users.write_text(str(int(users.read_text()) + 1))
            else:
                said.write_text(json.dumps(stack.enter_context(start())))
                users.write_text("1")
            given: dict[str, str] = json.loads(said.read_text())
        try:
            yield given
        finally:
            with _locked(folder):
                users.write_text(str(int(users.read_text()) - 1))
            owner = bool(stack._exit_callbacks)
            if owner:
                while True:
                    with _locked(folder):
                        if users.read_text() == "0":
                            said.unlink()
                            break
                    time.sleep(0.2)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
