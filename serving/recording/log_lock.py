"""Who may touch the files of the log: readers share it, who moves files has it alone.

Readers hold it while they list and open files, not while they read: what is open stays readable
when its name is gone.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

from serving.errors import SluiceError
from serving.recording.layout import LogFolder

__all__ = ["LogBusy", "alone", "sharing"]

_WAIT_SECONDS: Final = 60.0
_STEP_SECONDS: Final = 0.02


class LogBusy(SluiceError):
    """Another process has held the log for a minute."""


@contextlib.contextmanager
def sharing(folder: LogFolder, wait: float = _WAIT_SECONDS) -> Iterator[None]:
    """Keep the names of files as they are; others may read too.

    Args:
        folder: the log.
        wait: seconds to wait for one who moves files.

    Raises:
        LogBusy: it took longer. OSError: the folder cannot be read.
    """
    with _held(folder, fcntl.LOCK_SH, wait):
        yield


@contextlib.contextmanager
def alone(folder: LogFolder, wait: float = _WAIT_SECONDS) -> Iterator[None]:
    """Have the log to oneself, but for writers, who only touch segments that they are writing.

    Raises:
        LogBusy: somebody held it longer than `wait` seconds. OSError: it cannot be written.
    """
    with _held(folder, fcntl.LOCK_EX, wait):
        yield


@contextlib.contextmanager
def _held(folder: LogFolder, operation: int, wait: float) -> Iterator[None]:
    descriptor = _open(folder, operation)
    if descriptor is None:  # a log nobody can change: there is nothing to wait for
        yield
        return
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise LogBusy(
                        f"another process has held the prediction log for {wait:g} s; "
                        "try again, or see who has `lock` in it open"
                    ) from None
                time.sleep(_STEP_SECONDS)
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _open(folder: LogFolder, operation: int) -> int | None:
    """A descriptor of the lock's file; None if there is none and a reader may not make it."""
    try:
        return os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        if operation == fcntl.LOCK_EX:
            raise
    try:
        return os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        folder.root.stat()
        return None
