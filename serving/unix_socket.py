"""Unix sockets that only the user who made them can reach."""

import os
import socket
from pathlib import Path

__all__ = ["bound_for_owner"]


def bound_for_owner(
    path: Path, kind: socket.SocketKind = socket.SOCK_STREAM, *, backlog: int | None = None
) -> socket.socket:
    """Bind a non-blocking socket, and listen if there is a backlog; a dead process's is replaced.

    The mode is set while it is bound: later there would be a moment in which anybody could connect.
    Raises OSError.
    """
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    previous = os.umask(0o177)
    try:
        bound.bind(str(path))
        if backlog is not None:
            bound.listen(backlog)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(previous)
    return bound
