"""The worker's private Unix socket: health, load, recent records, drain.

A request to the shared ports reaches any worker; whoever supervises this one asks here. Only
the files' owner can connect.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from serving.unix_socket import bound_for_owner

__all__ = ["PrivateSocket"]

Answer = tuple[int, Any]
Endpoint = Callable[[dict[str, str]], Answer]

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_SECONDS: Final = 2.0
"""For a whole exchange: what the caller has not sent or read by then is dropped."""

_LOG = logging.getLogger("private")


class PrivateSocket:
    """Answers one request a connection. `endpoints` maps `GET /healthz` to a function."""

    def __init__(self, path: Path, endpoints: dict[str, Endpoint]) -> None:
        self._path = path
        self._endpoints = endpoints
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; a socket that a dead worker left behind is replaced."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=bound_for_owner(self._path)
        )

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = self._answer(head)
                payload = msgspec.json.encode(body)
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode()
                    + payload
                )
                await writer.drain()
        except TimeoutError:
            writer.transport.abort()  # closing would wait for what nobody reads
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> Answer:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return 400, {"error": "not a request"}
        try:
            target = urlsplit(words[1])
            endpoint = self._endpoints.get(f"{words[0]} {target.path}")
            if endpoint is None:
                return 404, {"error": "no such endpoint"}
            query = {name: values[-1] for name, values in parse_qs(target.query).items()}
            return endpoint(query)
        except ValueError as error:
            return 400, {"error": str(error)}
        except Exception:  # noqa: BLE001 - whatever it is, it is answered
            _LOG.exception("a question on the private socket failed")
            return 500, {"error": "internal error"}
