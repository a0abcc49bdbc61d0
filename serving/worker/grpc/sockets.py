"""Listening sockets of this process, found and closed behind the back of who opened them.

pygrpc_native keeps its listening socket open until its very end and has no call to close it.
"""

import os
import socket
import stat
from pathlib import Path

__all__ = ["close_sockets", "listening_sockets"]


def close_sockets(inodes: set[int]) -> None:
    """Close these of the listening sockets.

    Their descriptors are pointed at a socket on which nothing ever happens, which closes the
    real one and leaves the owner's numbers in use.
    """
    with socket.socket() as silent:
        for inode, descriptors in listening_sockets().items():
            if inode in inodes:
                for descriptor in descriptors:
                    os.dup2(silent.fileno(), descriptor, inheritable=False)


def listening_sockets() -> dict[int, list[int]]:
    """This process's listening sockets: descriptors by inode. Empty where /proc is missing."""
    found: dict[int, list[int]] = {}
    folder = Path("/proc/self/fd")
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    for descriptor in map(int, names):
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.setdefault(status.st_ino, []).append(descriptor)
        except OSError:  # closed since it was listed
            continue
    return found
