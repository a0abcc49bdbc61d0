"""The admin port's server: uvicorn with our limits, on a socket that is bound beforehand."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette

from serving.config.addresses import Address
from serving.config.schema import TlsConfig

__all__ = [
    "BACKLOG",
    "AdminServer",
    "admin_server",
    "bound_address",
    "public_socket",
    "tls_options",
]

BACKLOG: Final = 128
_CONNECTIONS: Final = 256
"""Requests at once; one more is answered 503 by uvicorn. Nobody's prediction waits here."""

_GRACE_SECONDS: Final = 5


class AdminServer(uvicorn.Server):
    """uvicorn without its own signal handling: this process has one of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def admin_server(app: Starlette, options: dict[str, Any]) -> AdminServer:
    """Serve an application; `options` are uvicorn's for TLS, from `tls_options`."""
    return AdminServer(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            ws="none",
            **options,
        )
    )


def tls_options(root: Path, tls: TlsConfig | None) -> dict[str, Any]:
    """What uvicorn calls these files, which are relative to `root`; nothing without TLS."""
    if tls is None:
        return {}
    options: dict[str, Any] = {
        "ssl_certfile": root / tls.cert,
        "ssl_keyfile": root / tls.key,
    }
    if tls.client_ca is not None:
        options["ssl_ca_certs"] = root / tls.client_ca
        options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
    return options


def public_socket(address: Address) -> socket.socket:
    """Listen there; nobody shares the port. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((address.host, address.port))
    bound.listen(BACKLOG)
    bound.setblocking(False)
    return bound


def bound_address(bound: socket.socket) -> str:
    """`host:port` with the real port."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
