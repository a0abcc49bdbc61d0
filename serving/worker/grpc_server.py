"""The two servers that can carry our services: the native front, and grpc.aio.

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
import importlib
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final, Protocol

import grpc

from serving.config.schema import Limits
from serving.errors import EngineError
from serving.worker.grpc_call import InFlight

__all__ = ["AioServer", "NativeServer", "Server", "Services", "native_module", "prefers_native"]

Services = dict[str, dict[str, "grpc.RpcMethodHandler[bytes, bytes]"]]
"""Methods by service name, bytes in and bytes out."""

_MAX_METADATA: Final = 8 << 10
_MAX_STREAMS: Final = 100
_CONNECTION_AGE_MS: Final = 600_000
_QUIET_SECONDS: Final = 1.0


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


def native_module() -> Any | None:
    """The optional package's asyncio server, or None where it is not installed."""
    try:
        return importlib.import_module("pygrpc_native.aio")
    except ImportError:
        return None


def prefers_native(host: str) -> bool:
    """Whether the native front may be taken without being asked for: on loopback only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _options(limits: Limits) -> list[tuple[str, int]]:
    metadata = min(int(limits.max_header), _MAX_METADATA)
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", int(limits.max_body)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        ("grpc.max_metadata_size", metadata),
        ("grpc.absolute_max_metadata_size", metadata),
        # A peer that vanished without a word is noticed in 80 seconds.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class AioServer:
    """grpc.aio: everything gRPC has, at three times the CPU of the native front."""

    kind = "grpc.aio"

    def __init__(self, services: Services, limits: Limits, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._server = grpc.aio.server(
            options=[
                *_options(limits),
                # No grace: calls in flight finish, streams included; only the connection ages.
                ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
                ("grpc.max_connection_idle_ms", int(limits.idle_timeout * 1e3)),
                # A client may ping every 10 seconds; after a few too many it is sent away.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 3),
            ]
        )
        _register(self._server, services)
        self._stopped: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen and serve; give the port taken. Raises EngineError if it cannot be had."""
        address = _address(host, port)
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


class NativeServer:
    """pygrpc_native's front: plaintext, a third of the CPU; see the module's table."""

    kind = "pygrpc_native"

    def __init__(self, services: Services, limits: Limits, in_flight: InFlight) -> None:
        module = native_module()
        if module is None:
            raise EngineError(
                "pygrpc-native is not installed; install sluice-gateway[native-grpc] or allow "
                "grpc.aio"
            )
        self._server = module.server(options=_options(limits))
        _register(self._server, services)
        self._in_flight = in_flight
        self._listening: set[int] = set()

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen and serve; give the port taken. Raises EngineError if it cannot be had."""
        assert credentials is None, "the native front has no TLS"
        address = _address(host, port)
        before = set(_listening_sockets())
        try:
            bound: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise EngineError(f"cannot listen for gRPC on {address}: {error}") from error
        self._listening = set(_listening_sockets()) - before
        await self._server.start()
        return bound

    def stop_accepting(self) -> None:
        """Close the listening socket, which the package keeps open until its very end.

        A worker that drains shares its port with others; while its socket listens the kernel
        goes on giving it connections. The package has no call for this, so its descriptors are
        pointed at a socket on which nothing ever happens, which closes the real one.
        """
        with socket.socket() as silent:
            for inode, descriptors in _listening_sockets().items():
                if inode in self._listening:
                    for descriptor in descriptors:
                        os.dup2(silent.fileno(), descriptor, inheritable=False)
        self._listening = set()

    async def stop(self, seconds: float) -> int:
        """Finish what is in flight, at most `seconds`, close; say how many were cut."""
        self.stop_accepting()
        # The package refuses requests on open connections from here on (it sends GOAWAY only
        # at the end), so a quiet instant is waited for first: then nobody is refused.
        quiet = min(_QUIET_SECONDS, seconds / 2)
        await self._in_flight.idle(quiet)
        grace = seconds - quiet
        stopped = asyncio.create_task(self._server.stop(grace))
        # Counted a moment before the package cancels what is left.
        cut = 0 if await self._in_flight.idle(grace * 0.99) else self._in_flight.count
        await stopped
        return cut


def _register(server: Any, services: Services) -> None:
    for name, methods in services.items():
        server.add_registered_method_handlers(name, methods)


def _listening_sockets() -> dict[int, list[int]]:
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
