"""Ends what a killed launcher leaves: `python -I -S sweeper.py NAME=VALUE FOLDER`.

Ray's servers die with the process that started them, but its per-node agents only look once in a
while whether anybody still needs them. The launcher marks the environment of everything it starts
and holds this process's standard input open. When that ends without the word `done`, every process
with the mark is killed and FOLDER removed. Only the standard library, because of `-S`.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

__all__ = ["sweep"]

_PATIENCE_SECONDS = 15.0


def marked(mark: bytes) -> list[int]:
    """Pids of this user's other processes with `mark` (`NAME=VALUE`) in their environment."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - a thousand Paths for a few numbers
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
            if mark in file.read().split(b"\0"):
                found.append(int(name))
    return found


def sweep(mark: str, *, spare: int = 0, seconds: float = _PATIENCE_SECONDS) -> None:
    """Kill every process with `mark`, and those that they start meanwhile; `spare` is a pid."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pids = [pid for pid in marked(os.fsencode(mark)) if pid != spare]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _main(mark: str, folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read().strip() != b"done":
        sweep(mark)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
