"""The throw-away process that opens model files first: `python -m serving.models.checker`.

It reads one `Order` from standard input and answers with one `Report` a line on standard
output. Whatever a file makes it do ends here: it may not take more memory, processor time,
file descriptors or threads than it was given, writes no files, works in an empty directory,
and dies with the process that started it.
"""

import ctypes
import gc
import os
import resource
import signal
import sys
from pathlib import Path

import msgspec

from serving.errors import InvalidArtifact
from serving.models.artifact import read
from serving.models.verdict import Begun, Candidate, CheckLimits, Order, Passed, Refused, Report

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_DESCRIPTORS = 64


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process when the thread that started it ends (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel knew
        sys.exit(1)


def _address_space() -> int:
    """Bytes of address space in use, from the first field of proc(5) `statm`."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    return pages * resource.getpagesize()


def _confine(limits: CheckLimits, files: int) -> None:
    """Take away what checking does not need. Everything must be imported by now."""
    memory = _address_space() + limits.memory_bytes
    # Per file the soft limit moves on (`_wind_up`) and its signal says what happened; the hard
    # one, which kills, is out of its reach.
    processor = (limits.cpu_seconds + 2) * (files + 2)
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),  # no process and no thread more; not enforced for root
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))


def _wind_up(seconds: int) -> None:
    """Give the next file `seconds` of processor time; past that SIGXCPU ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def _check(index: int, candidate: Candidate, limits: CheckLimits) -> Report:
    # main has imported these
    from serving.models import golden  # noqa: PLC0415
    from serving.models.examination import examine  # noqa: PLC0415
    from serving.models.runtime import Model  # noqa: PLC0415

    try:
        data = read(Path(candidate.path), candidate.sha256, limits.max_file_bytes)
        signature = examine(data)
        if candidate.golden:
            golden.compare_golden(Model(data), golden.decode_golden(candidate.golden))
        return Passed(index, signature)
    except InvalidArtifact as error:
        return Refused(index, error.message)
    except MemoryError:
        mebibytes = limits.memory_bytes >> 20
        return Refused(index, f"it needs more than {mebibytes} MiB of memory to load and run")


def main() -> None:
    """Check every candidate of the order on standard input."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    _die_with(order.parent)
    # Only reports go where the parent reads; what libraries print goes nowhere.
    reports = os.dup(1)
    os.dup2(2, 1)
    import serving.models.examination  # noqa: PLC0415 - with the bare output in place
    import serving.models.golden  # noqa: F401, PLC0415

    def report(one: Report) -> None:
        line = msgspec.json.encode(one) + b"\n"
        while line:
            line = line[os.write(reports, line) :]

    gc.freeze()  # so that collecting after each file looks at that file's objects only
    _confine(order.limits, len(order.candidates))
    for index, candidate in enumerate(order.candidates):
        report(Begun(index))
        _wind_up(order.limits.cpu_seconds)
        report(_check(index, candidate, order.limits))
        gc.collect()


if __name__ == "__main__":
    main()
