"""Where a load test ran: a figure means nothing without it."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

__all__ = ["machine"]


def machine() -> Mapping[str, str]:
    """CPU, cores this process may use, memory, kernel and Python of this machine."""
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.machine() or "unknown",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _memory() -> str:
    kib = _first("/proc/meminfo", "MemTotal").partition(" ")[0]
    return f"{int(kib) / 2**20:.1f} GiB" if kib.isdecimal() else "unknown"


def _first(path: str, name: str) -> str:
    """The value of the first `name: value` in a file of /proc; empty if there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (value.strip() for key, _, value in (line.partition(":") for line in lines)
         if key.strip() == name),
        "",
    )  # fmt: skip
