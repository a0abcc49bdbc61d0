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

from serving.config.addresses import Address
from serving.errors import EngineError

__all__ = ["HeldPort", "reachable", "written"]


def written(address: Address) -> str:
    """`host:port`, with brackets around an IPv6 address, as `parse_address` reads it."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def reachable(address: Address) -> Address:
    """What a client on this machine connects to: loopback instead of every interface."""
    if not address.is_wildcard:
        return address
    return Address("::1" if ":" in address.host else "127.0.0.1", address.port)


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
            found = _resolve(wanted, option)
            for number, (family, sockaddr) in enumerate(found, 1):
                try:
                    held = _bind(family, (sockaddr[0], port, *sockaddr[2:]), option)
                except _NotHere:
                    # `localhost` stands for ::1 too where the machine has no IPv6.
                    if number < len(found) or self._sockets:
                        continue
                    raise
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


class _NotHere(EngineError):
    """The address belongs to no interface of this machine."""


_Found = list[tuple[socket.AddressFamily, tuple[Any, ...]]]


def _resolve(wanted: Address, option: str) -> _Found:
    try:
        infos = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM)
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
    where = written(Address(sockaddr[0], sockaddr[1]))
    reason = {
        errno.EADDRINUSE: "is in use by another program (or another gateway)",
        errno.EACCES: "may not be bound by this user (ports below 1024 need privileges)",
        errno.EADDRNOTAVAIL: "does not belong to this machine",
    }.get(first.errno or 0, f"cannot be bound: {first.strerror}")
    kind = _NotHere if first.errno == errno.EADDRNOTAVAIL else EngineError
    raise kind(
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
