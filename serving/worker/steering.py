"""Lead new connections past a listening socket that is about to close.

Workers share a port through SO_REUSEPORT, and the kernel gives each new connection to one of
their sockets by a hash. A connection that sits in the queue of a socket that closes, or whose
handshake is under way, is reset. So a worker that drains first has the kernel give it nothing
more: SO_ATTACH_REUSEPORT_CBPF hangs a five-line filter into the group of sockets that picks any
member but this one (socket(7); needs no privilege). What had come before is accepted, and only
then is the socket closed.

The filter counts members by their place in the group, which no call tells. The place is found by
trying: while the filter says `always number k`, one connection of our own shows whose number k is.
The filter stays when its author's socket closes, so a sibling takes it out again (`release`).
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["Steering", "members"]

# linux/include/uapi/asm-generic/socket.h; Python's socket module has no names for them.
_ATTACH: Final = 51
_DETACH: Final = 68

# Classic BPF: load absolute, modulo, jump if greater or equal, add, return constant and A.
_LOAD, _MODULO, _IF_AT_LEAST, _ADD = 0x20, 0x94, 0x35, 0x04
_RETURN, _RETURN_A = 0x06, 0x16
_RANDOM: Final = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: a fresh number a packet

_LISTENING: Final = "0A"
_TRY_SECONDS: Final = 0.05
_PATIENCE_SECONDS: Final = 1.0

_Instruction = tuple[int, int, int, int]


def members(listener: socket.socket, tables: Path = Path("/proc/net")) -> int:
    """How many sockets of this machine listen on `listener`'s address, itself included."""
    name = "tcp6" if listener.family == socket.AF_INET6 else "tcp"
    host, port = listener.getsockname()[:2]
    packed = socket.inet_pton(listener.family, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    wanted = "".join(f"{word:08X}" for word in words) + f":{port:04X}"
    count = 0
    with (tables / name).open() as table:
        next(table)
        for line in table:
            fields = line.split()
            if fields[3] != _LISTENING:
                break  # they come first
            count += fields[1] == wanted
    return count


class Steering:
    """Steers connections past one listening socket.

    Args:
        listener: the socket; it need not be ours to close.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    async def away(self) -> bool:
        """Have the kernel choose other members from now on; False if that cannot be done.

        It cannot where nobody else listens, and where the kernel knows no such filter.
        """
        try:
            count = members(self._listener)
            if count < 2:
                return False
            place = await self._place(count)
            if place is None:
                self.release()
                return False
            self._attach(_any_but(place, count))
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Have the kernel choose by its hash again; does nothing where it does."""
        with contextlib.suppress(OSError):
            self._listener.setsockopt(socket.SOL_SOCKET, _DETACH, b"\0\0\0\0")

    async def _place(self, count: int) -> int | None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < until:
            for place in range(count):
                self._attach([(_RETURN, 0, 0, place)])
                if await self._is_ours():
                    return place
        return None

    async def _is_ours(self) -> bool:
        """Whether a connection that is made now arrives in this process."""
        before = set(_descriptors())
        address = self._listener.getsockname()
        with socket.socket(self._listener.family) as probe:
            probe.settimeout(_TRY_SECONDS)
            try:
                probe.connect(_reachable(address))
            except TimeoutError:
                return False  # its queue is full: somebody else's, or ours and hopeless
            mine = probe.getsockname()[:2]
            before.add(probe.fileno())
            until = time.monotonic() + _TRY_SECONDS
            while time.monotonic() < until:
                if any(_peer(one) == mine for one in set(_descriptors()) - before):
                    return True
                await asyncio.sleep(0.001)
        return False

    def _attach(self, program: list[_Instruction]) -> None:
        code = b"".join(struct.pack("HBBI", *one) for one in program)
        buffer = ctypes.create_string_buffer(code, len(code))
        described = struct.pack("HL", len(program), ctypes.addressof(buffer))
        self._listener.setsockopt(socket.SOL_SOCKET, _ATTACH, described)


def _any_but(place: int, count: int) -> list[_Instruction]:
    return [
        (_LOAD, 0, 0, _RANDOM),
        (_MODULO, 0, 0, count - 1),
        (_IF_AT_LEAST, 0, 1, place),
        (_ADD, 0, 0, 1),
        (_RETURN_A, 0, 0, 0),
    ]


def _reachable(address: tuple[str, int]) -> tuple[str, int]:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104
    return host, address[1]


def _descriptors() -> Iterator[int]:
    # A listing holds its own descriptor too, which is gone by the time anybody looks.
    return map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208 - ten thousand Paths cost


def _peer(descriptor: int) -> tuple[str, int] | None:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as one:
            return one.getpeername()[:2]  # type: ignore[no-any-return]
    except (OSError, TypeError):
        return None
