"""Memory that is a file: what a process writes there outlives it, however it ends."""

import errno
import fcntl
import mmap
import os
from pathlib import Path

__all__ = ["map_file", "map_shared"]


def map_file(path: Path, capacity: int) -> tuple[int, mmap.mmap]:
    """Make the file and map it; memory of our own (and no descriptor, -1) if the disk is full.

    Raises:
        OSError: it cannot be made for another reason, such as being there already.
    """
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # Kept open for its lock, which the kernel lets go of when the process ends, however
        # it ends: that is how others know that these numbers are the last.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # All of it now: counting into a hole of a file on a full disk is a SIGBUS.
        os.posix_fallocate(descriptor, 0, capacity)
        return descriptor, mmap.mmap(descriptor, capacity)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
            path.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return -1, mmap.mmap(-1, capacity)


def map_shared(path: Path, capacity: int) -> mmap.mmap:
    """Map a file that several processes write; whoever comes first makes it, full of zeros.

    Raises:
        OSError: it cannot be made or has no room on the disk.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, capacity)
        return mmap.mmap(descriptor, capacity)
    finally:
        os.close(descriptor)
