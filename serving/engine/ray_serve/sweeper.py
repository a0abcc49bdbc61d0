"""Ends what a killed launcher leaves: `python -I -S sweeper.py NAME=VALUE FOLDER`.

Ray's servers die with the process that started them, but its per-node agents only look once in a
while whether anybody still needs them. The launcher marks the environment of everything it starts
and holds this process's standard input open. When that ends without the word `done`, every process
with the mark is killed and FOLDER removed. Processes that write a title over their environment, as
Ray's do, are known by their open files in FOLDER. Only the standard library, because of `-S`.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

__all__ = ["sweep"]

_PATIENCE_SECONDS = 15.0


def ours(mark: str, folder: str) -> list[int]:
    """Pids of other processes with `mark` (`NAME=VALUE`) on them, or a file in `folder` open."""
    return [
        int(name)
        for name in os.listdir("/proc")  # noqa: PTH208 - a thousand Paths for a few numbers
        if name.isdigit()
        and int(name) != os.getpid()
        and (_has_mark(name, os.fsencode(mark)) or _is_in(name, f"{folder}/"))
    ]


def _has_mark(pid: str, mark: bytes) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
        return mark in file.read().split(b"\0")
    return False


def _is_in(pid: str, folder: str) -> bool:
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith(folder):  # noqa: PTH115
                    return True
    return False


def sweep(mark: str, folder: str, *, spare: int = 0, seconds: float = _PATIENCE_SECONDS) -> None:
    """Kill all of `ours`, and what they start meanwhile; `spare` is a pid that is left alone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pids = [pid for pid in ours(mark, folder) if pid != spare]
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
        sweep(mark, folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
