"""How this process's C heap gives memory back; see mallopt(3). Without glibc nothing happens.

glibc moves its bounds by itself: after the first block of some megabytes was freed, such blocks
come from the heap and no longer from the kernel, and up to twice as much may lie free at its end.
And each thread gets an arena of its own. That is fast, and right where large blocks come and go
with every request. A process that now and then writes a large picture of something, in whichever
thread is free, ends with several such heaps.
"""

import ctypes
from typing import Final

__all__ = ["give_back_large_blocks"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_LARGE_BYTES: Final = 256 << 10
_ARENAS: Final = 2


def give_back_large_blocks() -> None:
    """Have blocks from 256 KiB on returned to the kernel when they are freed.

    Call it before the process has threads.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_ARENA_MAX, _ARENAS)
