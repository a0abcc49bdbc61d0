"""GOAWAY for a front that has no call for it.

pygrpc_native sends GOAWAY only as it closes, and a call that arrives about then is lost. So what
HTTP/2 asks of a server that leaves (RFC 9113, 6.8) is written into each connection from here: a
GOAWAY that names no stream, upon which a client opens no further ones there and connects
elsewhere, while everything that is under way is answered. The client closes once it is.

The frame must not land inside another one. Frames are written by the front's own thread in whole
writes; half a frame can only be waiting while the socket's buffer is full. So a connection is told
once its calls are answered (new ones are held back for that moment), its buffer is nearly empty,
and nothing was written for some milliseconds. Where a call takes longer than new ones should be
held back, the last two have to do.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Farewell"]

_GOAWAY: Final = struct.pack(">HBBBIII", 0, 8, 7, 0, 0, 0x7FFFFFFF, 0)
"""Length 8, type 7, no flags, stream 0; last stream 2^31-1, NO_ERROR."""

_TICK_SECONDS: Final = 0.003
_HOLD_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.02
_NEARLY_EMPTY: Final = 64 << 10
_BYTES_ACKED: Final = 120  # its place in struct tcp_info, linux/include/uapi/linux/tcp.h


class _Connection(NamedTuple):
    inode: int
    descriptor: int
    peer: str


class Farewell:
    """Sends the connections of one port away.

    Args:
        port: the one they came to.
        hold: called with a peer (as gRPC writes it) whose new calls are to wait.
        release: called when they may go on.
        busy: the peers that have calls in flight now.
    """

    def __init__(
        self,
        port: int,
        hold: Callable[[str], None],
        release: Callable[[str], None],
        busy: Callable[[], set[str]],
    ) -> None:
        self._port = port
        self._hold, self._release, self._busy = hold, release, busy
        self._told: set[int] = set()
        self._tried: set[int] = set()

    async def say(self, seconds: float) -> bool:
        """Tell every connection, and wait until all have gone; whether they have in time.

        Those that come meanwhile, out of the queue of the listening socket, are told too.
        """
        until = time.monotonic() + seconds
        while open_now := self._connections():
            await asyncio.gather(
                *(self._tell(one) for one in open_now if one.inode not in self._told)
            )
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_PAUSE_SECONDS)
        return True

    async def _tell(self, one: _Connection) -> None:
        self._hold(one.peer)
        patient = one.inode not in self._tried
        self._tried.add(one.inode)
        written, until = -1, time.monotonic() + _HOLD_SECONDS
        try:
            with _borrowed(one.descriptor) as connection:
                while time.monotonic() < until:
                    busy = patient and one.peer in self._busy()
                    now = -1 if busy else _written(connection)
                    if now == written > 0:
                        connection.send(_GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                        self._told.add(one.inode)
                        return
                    written = now
                    await asyncio.sleep(_TICK_SECONDS)
        except OSError:  # it has gone, or its buffer is full after all
            pass
        finally:
            self._release(one.peer)

    def _connections(self) -> list[_Connection]:
        found: dict[int, _Connection] = {}
        folder = Path("/proc/self/fd")
        for descriptor in map(int, os.listdir(folder) if folder.is_dir() else []):  # noqa: PTH208
            with contextlib.suppress(OSError):
                status = os.fstat(descriptor)
                if stat.S_ISSOCK(status.st_mode) and (peer := self._peer(descriptor)):
                    found[status.st_ino] = _Connection(status.st_ino, descriptor, peer)
        return list(found.values())

    def _peer(self, descriptor: int) -> str:
        """Who is connected to our port there, in gRPC's words; empty if nobody is."""
        with _borrowed(descriptor) as one:
            if one.family not in {socket.AF_INET, socket.AF_INET6}:
                return ""
            if one.getsockname()[1] != self._port:
                return ""
            host, port = one.getpeername()[:2]
        family = "ipv6" if ":" in host else "ipv4"
        return f"{family}:[{host}]:{port}" if family == "ipv6" else f"{family}:{host}:{port}"


def _borrowed(descriptor: int) -> socket.socket:
    """A socket object over a duplicate: closing it leaves the owner's alone."""
    duplicate = os.dup(descriptor)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise


def _written(connection: socket.socket) -> int:
    """Bytes written so far; -1 while so many are unsent that a writer may be waiting for room."""
    queued = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]
    if queued > _NEARLY_EMPTY:
        return -1
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
    return int(queued) + int(struct.unpack_from("=Q", info, _BYTES_ACKED)[0])
