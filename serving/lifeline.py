"""A child that dies with its parent, however the parent died.

Linux only: `prctl(PR_SET_PDEATHSIG)`, see prctl(2). The setting survives exec, so this file is
also a launcher for programs that cannot ask for themselves (the store's server):

    python -I -S lifeline.py PARENT_PID COMMAND [ARGUMENT ...]

It imports nothing but the standard library, because `-S` leaves nothing else (and starts in
13 ms instead of 60).
"""

import ctypes
import os
import signal
import sys

__all__ = ["ParentGone", "die_with_parent"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ParentGone(SystemExit):
    """The parent died before the child could tie itself to it; the child exits with 1."""


def die_with_parent(expected_parent_pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send `signal_number` to this process when its parent dies.

    Call it first thing in a child, with the pid its parent handed down. SIGKILL is the default
    because nothing else is certain to end a stopped or stuck process, and a child that
    outlives its supervisor keeps the ports and the store's files.

    Raises:
        ParentGone: `expected_parent_pid` is not the parent (any more). It is a SystemExit: a
            child that does not catch it ends.
        OSError: The kernel refused, or this is not Linux.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl"):
        raise OSError("Sluice's processes need Linux: there is no prctl(2) here")
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # The parent may have died between fork and prctl; then the signal never comes.
    if os.getppid() != expected_parent_pid:
        raise ParentGone(1)


def _launch(arguments: list[str]) -> None:
    parent, *command = arguments
    die_with_parent(int(parent))
    os.execvp(command[0], command)  # noqa: S606  - no shell is the point


if __name__ == "__main__":
    _launch(sys.argv[1:])
