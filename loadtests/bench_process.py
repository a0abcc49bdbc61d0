"""A process and everything it started: CPU time and memory from /proc, what it says, its end.

For /proc see proc_pid_stat(5).
"""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

from serving.engine.report import process_started

__all__ = ["cpu_seconds", "end", "line", "proportional_bytes", "resident_bytes", "tree"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class _Stat(NamedTuple):
    parent: int
    cpu_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # it has ended meanwhile
        return None
    # Field 2, the name, may hold spaces and brackets; what follows its last bracket may not.
    fields = text[text.rindex(b")") + 2 :].split()
    # utime, stime, and both of children that have been waited for: a child that ends between
    # two readings moves its time to its parent, so differences over the tree stay true.
    return _Stat(int(fields[1]), sum(int(value) for value in fields[11:15]))


def tree(root: int) -> set[int]:
    """Pids of `root` and all that descend from it, as of now."""
    parents = {
        int(entry.name): stat.parent
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (stat := _stat(int(entry.name)))
    }
    found = {root} & parents.keys()
    while fresh := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= fresh
    return found


def cpu_seconds(pids: set[int]) -> dict[int, float]:
    """User and system time of each process so far, in seconds, to 10 ms (one kernel tick)."""
    stats = {pid: _stat(pid) for pid in pids}
    return {pid: stat.cpu_ticks / _TICKS for pid, stat in stats.items() if stat}


def proportional_bytes(pid: int) -> int:
    """Memory of one process (PSS): a page shared by n processes counts as its n-th part; 0 if gone.

    The sum over a tree is what the tree takes of the machine.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    pss = next((one for one in text.splitlines() if one.startswith("Pss:")), "Pss: 0 kB")
    return int(pss.split()[1]) * 1024


def resident_bytes(pid: int) -> int:
    """Resident memory (VmRSS) of one process, shared pages of libraries included; 0 if gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    rss = next((one for one in status.splitlines() if one.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(rss.split()[1]) * 1024


def line(process: "subprocess.Popen[bytes]", patience_seconds: float) -> bytes:
    """The next line of a child's output; empty if it ended. One silent for so long is killed."""
    assert process.stdout is not None
    alarm = threading.Timer(patience_seconds, process.kill)
    alarm.start()
    try:
        return process.stdout.readline()
    finally:
        alarm.cancel()


def end(process: "subprocess.Popen[bytes]", patience_seconds: float) -> list[int]:
    """Ask a process to end (SIGTERM) and wait for its whole tree.

    Returns:
        Pids of what had to be killed, being there after `patience_seconds`.
    """
    family = {pid: process_started(pid) for pid in tree(process.pid)}
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Killed outright, a server that runs Ray leaves a process behind which ends the rest.
    give_up = time.monotonic() + patience_seconds
    while left := [pid for pid, started in family.items() if started == process_started(pid) != ""]:
        if time.monotonic() > give_up:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return left
        time.sleep(0.05)
    return []
