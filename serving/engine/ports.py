"""Addresses of the listeners: checked for being free, and then held for the workers.

Workers share a port through SO_REUSEPORT, and so would the workers of a second gateway:
the kernel would hand each of them a share of the connections, silently. So an engine first binds
each port *without* that option, which only succeeds if nobody else has it, and turns the
option on afterwards. From then on sockets of the same user that ask for SO_REUSEPORT may join
and nobody else can, until the engine goes. The held socket never listens, so it is never
given a connection. (Linux; see `inet_csk_bind_conflict` in net/ipv4/inet_connection_sock.c.)
"""

import errno
import socket
from typing import Any, Final

import msgspec

from serving.errors import EngineError

__all__ = ["Address", "HeldPort", "parse_address"]

_EXAMPLE: Final = "`127.0.0.1:8000`, or `[::1]:8000` for IPv6"


class Address(msgspec.Struct, frozen=True):
    """A host (name or number, IPv6 without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable(self) -> "Address":
        """What a client on this machine connects to: loopback instead of "every interface"."""
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
        return Address(loopback.get(self.host, self.host), self.port)


def parse_address(text: str, option: str) -> Address:
    """Read `host:port`. Raises EngineError naming `option` (such as `listen.http`)."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise EngineError(f"{option}: `{text}` is not an address; write {_EXAMPLE}")
    return Address(host, int(port))


class HeldPort:
    """One listener's port, ours until `close`.

    `address` has the real port where 0 was asked for. `shared` ports may be joined only by
    sockets with SO_REUSEPORT; the others also by one with SO_REUSEADDR, which is what an
    ordinary single-process server sets.
    """

    def __init__(self, wanted: Address, option: str, *, shared: bool) -> None:
        """Bind `wanted` on every address its host stands for.

        Raises:
            EngineError: The port is taken, not permitted, or the host is unknown. The message
                names the port and `option`.
        """
        self._sockets: list[socket.socket] = []
        port = wanted.port
        try:
            for family, sockaddr in _resolve(wanted, option):
                held = _bind(family, (sockaddr[0], port, *sockaddr[2:]), option)
                self._sockets.append(held)
                port = held.getsockname()[1]
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(not shared))
        except BaseException:
            self.close()
            raise
        self.address: Final = Address(wanted.host, port)

    def close(self) -> None:
        """Let go of the port. Sockets that joined keep it."""
        while self._sockets:
            self._sockets.pop().close()


_Found = list[tuple[socket.AddressFamily, tuple[Any, ...]]]


def _resolve(wanted: Address, option: str) -> _Found:
    try:
        infos = socket.getaddrinfo(
            wanted.host or None, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise EngineError(f"{option}: no such host: `{wanted.host}` ({error.strerror})") from error
    return [(info[0], info[4]) for info in infos]


def _bind(family: socket.AddressFamily, sockaddr: tuple[Any, ...], option: str) -> socket.socket:
    """An exclusive, bound, silent socket."""
    try:
        return _bound(family, sockaddr, reuse=False)
    except OSError as error:
        first = error
    if first.errno == errno.EADDRINUSE:
        # Connections that a gateway closed here a moment ago (TIME_WAIT) refuse a bare bind for
        # a minute. SO_REUSEADDR looks past them, but also past a bound socket that does not
        # listen; listening for an instant is refused if any other socket could listen too.
        try:
            held = _bound(family, sockaddr, reuse=True)
        except OSError:
            pass
        else:
            return held
    where = Address(str(sockaddr[0]), int(sockaddr[1]))
    reason = {
        errno.EADDRINUSE: "is in use by another program (or another gateway)",
        errno.EACCES: "may not be bound by this user (ports below 1024 need privileges)",
        errno.EADDRNOTAVAIL: "does not belong to this machine",
    }.get(first.errno or 0, f"cannot be bound: {first.strerror}")
    raise EngineError(
        f"{where} {reason}; free it or set {option} in gateway.yaml to another address "
        "(port 0 takes a free one)"
    ) from first


def _bound(
    family: socket.AddressFamily, sockaddr: tuple[Any, ...], *, reuse: bool
) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            # `::` must not also claim IPv4: whoever wants both says so with two addresses.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(sockaddr)
        if reuse:
            bound.listen(1)
            bound.shutdown(socket.SHUT_RDWR)  # back to bound and silent (tcp_disconnect)
    except BaseException:
        bound.close()
        raise
    return bound
