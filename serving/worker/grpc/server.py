"""What can carry our services: grpc.aio here, the native front in `grpc/native.py`.

Both take the same registered methods. What differs, as measured with pygrpc-native 0.5 and
grpcio 1.85 (tests/conformance/test_grpc_servers.py holds what can be held):

| | pygrpc_native | grpc.aio |
|---|---|---|
| TLS, client certificates | no | yes |
| bidirectional streams | through a grpc.aio server on a private Unix socket | yes |
| gzip message | inflated whole, then refused if too large | refused while inflating |
| deflate message | UNIMPLEMENTED | yes |
| message over the limit | buffered whole, then refused | refused by its declared length |
| drain | finish; what open connections send meanwhile is UNAVAILABLE; GOAWAY | GOAWAY, finish |
| connection age | no | 10 minutes, calls in flight finish |

The third and fifth row are why the native front is chosen by itself on loopback only: one call
of 1 MB gzip can make it hold 2 GB.
"""

import asyncio
import ipaddress
from typing import Any, Final, Protocol

import grpc

from serving.config.schema import Limits
from serving.errors import EngineError
from serving.worker.grpc.call import InFlight

__all__ = [
    "KEEPALIVE_MS",
    "KEEPALIVE_TIMEOUT_MS",
    "MAX_STREAMS",
    "AioServer",
    "Server",
    "Services",
    "address_of",
    "max_metadata",
    "options_of",
    "prefers_native",
    "register",
]

Services = dict[str, dict[str, "grpc.RpcMethodHandler[bytes, bytes]"]]
"""Methods by service name, bytes in and bytes out."""

MAX_STREAMS: Final = 100
"""Calls that one connection may have open; the client waits with the next."""

KEEPALIVE_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000
"""A peer that vanished without a word is noticed in the sum of both, 80 seconds."""

_MAX_METADATA: Final = 8 << 10
_CONNECTION_AGE_MS: Final = 600_000


class Server(Protocol):
    """One server, for one port."""

    kind: str

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen and serve; give the port taken. Raises EngineError if it cannot be had."""
        ...

    def stop_accepting(self) -> None:
        """Leave new connections to others that share the port."""
        ...

    async def stop(self, seconds: float) -> int:
        """Finish what is in flight, at most `seconds`, close; say how many were cut."""
        ...


def prefers_native(host: str) -> bool:
    """Whether the native front may be taken without being asked for: on loopback only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def max_metadata(limits: Limits) -> int:
    """The most metadata a call may carry, in bytes, counted as HTTP/2 counts header lists."""
    return min(int(limits.max_header), _MAX_METADATA)


def options_of(limits: Limits) -> list[tuple[str, int]]:
    """Channel arguments of a grpc.aio server that serves within `limits`."""
    metadata = max_metadata(limits)
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", int(limits.max_body)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_metadata_size", metadata),
        ("grpc.absolute_max_metadata_size", metadata),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def address_of(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def register(server: Any, services: Services) -> None:
    """Give a grpc.aio server these methods and no others (its type stubs lack the call)."""
    for name, methods in services.items():
        server.add_registered_method_handlers(name, methods)


class AioServer:
    """grpc.aio: everything gRPC has, at five times the CPU of the native front."""

    kind = "grpc.aio"

    def __init__(self, services: Services, limits: Limits, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._server = grpc.aio.server(
            options=[
                *options_of(limits),
                # No grace: calls in flight finish, streams included; only the connection ages.
                ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
                ("grpc.max_connection_idle_ms", int(limits.idle_timeout * 1e3)),
                # A client may ping every 10 seconds; after a few too many it is sent away.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 3),
            ]
        )
        register(self._server, services)
        self._stopped: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen and serve; give the port taken. Raises EngineError if it cannot be had."""
        address = address_of(host, port)
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise EngineError(f"cannot listen for gRPC on {address}: {error}") from error
        await self._server.start()
        return bound

    def stop_accepting(self) -> None:
        """Close the listening socket and send GOAWAY; what is in flight goes on."""
        if self._stopped is None:
            self._stopped = asyncio.create_task(self._server.stop(grace=3600.0))

    async def stop(self, seconds: float) -> int:
        """Finish what is in flight, at most `seconds`, close; say how many were cut."""
        self.stop_accepting()
        assert self._stopped is not None
        done, _ = await asyncio.wait({self._stopped}, timeout=seconds)
        cut = 0 if done else self._in_flight.count
        if not done:
            await self._server.stop(grace=None)
            await self._stopped
        return cut
