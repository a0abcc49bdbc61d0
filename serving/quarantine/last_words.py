"""Which thread a signal killed a process in, left behind by the process itself.

Python's faulthandler writes the stacks of all threads when SIGSEGV, SIGFPE, SIGABRT, SIGBUS or
SIGILL arrives, and names the one it arrived in; then the process dies as it would have. A stack
overflow in a thread other than the first leaves nothing, as there is no stack to write from.
"""

import contextlib
import faulthandler
import re
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["crashed_thread", "keep", "leave"]

_CURRENT: Final = re.compile(rb"^Current thread 0x([0-9a-f]{1,16}) ", re.MULTILINE)
_MOST: Final = 1 << 20
_files: Final[list[BinaryIO]] = []  # faulthandler keeps the descriptor, not the file


def leave(path: Path) -> None:
    """Have this process write to `path` when it crashes. Raises OSError."""
    file = path.open("wb", buffering=0)
    _files.append(file)
    faulthandler.enable(file=file, all_threads=True)


def keep(path: Path) -> Path:
    """Put what a process left at `path` aside, before its successor writes there; says where."""
    kept = path.with_suffix(".last-crash")
    with contextlib.suppress(OSError):
        kept.unlink(missing_ok=True)  # of an earlier one
        if path.stat().st_size:
            path.replace(kept)
    return kept


def crashed_thread(path: Path) -> int | None:
    """The thread (Python's ident) that crashed; None if nobody can tell."""
    try:
        with path.open("rb") as file:
            found = _CURRENT.search(file.read(_MOST))
    except OSError:
        return None
    return int(found[1], 16) if found else None
