"""Lets the soak test ask a process of the gateway what it holds; on its path only during a soak.

Python imports a module of this name at its start. With `SLUICE_SOAK_PROBE` set to a folder, the
gateway's own processes answer there, on a socket named after their pid, from a thread that sleeps
until it is asked. Resident memory says how much a process takes; what is asked here says whether
that is still in use: Python's blocks and the C heap are counted to the byte, so that a leak of one
small object a request shows after a few thousand requests.

    count          collect garbage, then JSON of `blocks`, `heap_bytes`, `free_bytes`
    types          as many objects of each type as the collector knows, the commonest first
    trace FRAMES   have tracemalloc note where blocks come from, from now on (0: stop)
    traced N       the N lines that hold the most of what was noted
    trim           hand free pages of the C heap back, as malloc_trim(3)
"""

import collections
import contextlib
import ctypes
import gc
import json
import os
import socket
import sys
import threading
import tracemalloc

PROGRAMS = ("serving.worker.process", "serving.worker.host", "serving.control.process", "sluice")


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` (mallinfo(3)); over all arenas, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _count() -> dict[str, int]:
    """What is in use: Python's blocks (up to 512 bytes each), the C heap's bytes, and free ones."""
    gc.collect()
    libc = ctypes.CDLL(None)
    heap = free = 0
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = _Mallinfo
        info = libc.mallinfo2()
        heap, free = info.uordblks + info.hblkhd, info.fordblks
    return {"blocks": sys.getallocatedblocks(), "heap_bytes": heap, "free_bytes": free}


def _types() -> dict[str, int]:
    kinds = collections.Counter(type(one).__qualname__ for one in gc.get_objects())
    return dict(kinds.most_common(60))


def _trace(frames: int) -> bool:
    if frames:
        tracemalloc.start(frames)
    else:
        tracemalloc.stop()
    return tracemalloc.is_tracing()


def _traced(count: int) -> list[str]:
    taken = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__)]
    )
    lines = taken.statistics("traceback")[:count]
    return [
        f"{one.size} bytes in {one.count}: " + " < ".join(map(str, reversed(one.traceback)))
        for one in lines
    ]


def _answer(asked: str) -> object:
    word, _, argument = asked.partition(" ")
    match word:
        case "count":
            return _count()
        case "types":
            return _types()
        case "trace":
            return _trace(int(argument))
        case "traced":
            return _traced(int(argument))
        case "trim":
            return ctypes.CDLL(None).malloc_trim(0)
    return f"nothing is known of {asked!r}"


def _serve(listener: socket.socket) -> None:
    while True:
        caller, _ = listener.accept()
        with caller, contextlib.suppress(OSError, ValueError):
            caller.settimeout(10)
            asked = caller.recv(100).decode().strip()
            caller.sendall(json.dumps(_answer(asked)).encode())


def _start(folder: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder, f"{os.getpid()}.sock"))  # noqa: PTH118 - starts sooner
    listener.listen()
    threading.Thread(target=_serve, args=(listener,), name="soak-probe", daemon=True).start()


_folder = os.environ.get("SLUICE_SOAK_PROBE")
if _folder and any(part.rpartition("/")[2] in PROGRAMS for part in sys.orig_argv):
    _start(_folder)
