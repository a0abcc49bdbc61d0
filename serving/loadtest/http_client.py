"""Requests over HTTP/1.1: keep-alive connections, one request at a time on each.

Written to the bytes on httptools, because a client library's own CPU would be most of what is
measured. Nothing is sent twice: a connection that breaks costs the request on it, and is opened
anew.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import httptools

from serving.loadtest.answers import Wrong, read_json
from serving.loadtest.bodies import Bodies, KindSpec
from serving.loadtest.outcomes import Outcomes
from serving.loadtest.target import TargetUnreachable
from serving.loadtest.turns import Turns
from serving.loadtest.wire import Orders
from serving.protocol.rest_client import decode_error

__all__ = ["HttpClient"]

_OPEN_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.1
_JSON_LENGTH: Final = b"inference-header-content-length"


class HttpClient:
    """Connections to one listener; `orders` say how many.

    `turns` knows the requests, `outcomes` takes what becomes of them, `freed` is called whenever a
    connection can take another.
    """

    def __init__(
        self,
        orders: Orders,
        bodies: list[Bodies],
        turns: Turns,
        outcomes: Outcomes,
        *,
        freed: Callable[[], None],
    ) -> None:
        self.target = orders.target
        self.turns = turns
        self.outcomes = outcomes
        self.freed = freed
        self.kinds = orders.kinds
        self.idle: deque[_Connection] = deque()
        self.error = ""
        self._bodies = bodies
        self._heads = [_head(orders, kind) for kind in orders.kinds]
        self._count = orders.connections
        self._tls = orders.tls
        self._context: ssl.SSLContext | None = None
        self._open: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False
        self._down = False  # the last try to connect has failed
        self._in_tls = False  # because of TLS

    async def open(self) -> None:
        """Connect. Raises TargetUnreachable if not even one connection can be made."""
        if self._tls is not None:
            self._context = self._tls.context()
        await self._connect()
        if not self._open:
            if self._in_tls:
                raise TargetUnreachable(
                    f"{self.target} takes connections, but TLS cannot be spoken: {self.error}"
                )
            raise TargetUnreachable(f"nobody answers at {self.target}: {self.error}")
        # A few at a time: a listener's backlog is no part of the test.
        for start in range(1, self._count, 32):
            more = min(32, self._count - start)
            await asyncio.gather(*(self._connect() for _ in range(more)))
        if len(self._open) < self._count:
            made, wanted = len(self._open), self._count
            raise TargetUnreachable(
                f"{self.target} takes only {made} of {wanted} connections: {self.error}"
            )

    def free(self) -> bool:
        """Whether a request can leave now; also if it would only find nobody there."""
        return bool(self.idle) or (self._down and not self._open)

    def send(self, index: int) -> None:
        """Send a request; only when `free`."""
        if not self.idle:
            self.outcomes.sent(index, 0)
            self.outcomes.failed(index, self.turns.now(), "refused", self.error, answered=False)
            return
        kind = self.turns.kind[index]
        body, json_length = self._bodies[kind].make(
            self.turns.offset[index], self.turns.rows[index]
        )
        parts = [self._heads[kind], b"Content-Length: %d\r\n" % len(body)]
        if json_length is not None:
            parts.append(b"Inference-Header-Content-Length: %d\r\n" % json_length)
        left = self.turns.left(index)
        if left is not None:
            parts.append(b"x-request-timeout: %.6f\r\n" % max(left, 1e-6))
        parts += (b"\r\n", body)
        self.idle.popleft().ask(index, b"".join(parts))

    def give_up(self) -> None:
        """End requests that have waited too long for their answer."""
        for connection in [*self._open]:
            if connection.index >= 0 and self.turns.over(connection.index):
                connection.end("timeout", "no answer in time")

    async def close(self) -> None:
        """Hang up."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        for connection in [*self._open]:
            connection.transport.abort()
        if self._opening:
            await asyncio.wait(self._opening)

    async def _connect(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await loop.create_connection(
                    lambda: _Connection(self), self.target.host, self.target.port, ssl=self._context
                )
        except (OSError, ssl.SSLError) as error:
            late = f"no connection within {_OPEN_SECONDS:g} s"
            self.error = late if isinstance(error, TimeoutError) else _why(error)
            self._in_tls = isinstance(error, ssl.SSLError)
            self._down = True
            self.freed()  # who waits would wait in vain
            return False
        self._down = False
        return True

    async def _connect_again(self) -> None:
        while not await self._connect():  # noqa: ASYNC110 - nobody else would say when
            await asyncio.sleep(_AGAIN_SECONDS)

    def made(self, connection: "_Connection") -> None:
        """A connection is open."""
        self._open.add(connection)
        self.idle.append(connection)
        self.freed()

    def lost(self, connection: "_Connection") -> None:
        """A connection is gone: open another in its place."""
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self.idle.remove(connection)
        if not self._closed:
            task = asyncio.get_running_loop().create_task(self._connect_again())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
            self.freed()


class _Connection(asyncio.Protocol):
    """One connection; `index` is the request on it, -1 for none."""

    def __init__(self, client: HttpClient) -> None:
        self.index = -1
        self.transport: Any = None
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = 0
        self._json_length = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._client.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("closed", f"the connection was closed before an answer{f': {exc}' if exc else ''}")
        self._client.lost(self)

    def ask(self, index: int, message: bytes) -> None:
        """Send one request."""
        self.index = index
        self._size = 0
        self._client.outcomes.sent(index, len(message))
        self.transport.write(message)

    def end(self, status: str, words: str) -> None:
        """Give the request up, and the connection with it: its answer may still come."""
        index, self.index = self.index, -1
        if index >= 0:
            client = self._client
            client.outcomes.failed(index, client.turns.now(), status, words, answered=False)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.end("unreadable", f"this is no HTTP/1.1: {error}")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer (httptools)."""
        if name.lower() == _JSON_LENGTH and value.isdigit():
            self._json_length = int(value)

    def on_body(self, body: bytes) -> None:
        """Part of a body (httptools)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """A whole answer (httptools)."""
        body = b"".join(self._body)
        self._body.clear()
        json_length, self._json_length = self._json_length, -1
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and the like: the answer is still to come
            return
        index, self.index = self.index, -1
        if index >= 0:
            self._answered(index, status, body, json_length)
        if not self._parser.should_keep_alive():
            self.transport.abort()
        elif not self.transport.is_closing():
            self._client.idle.append(self)
            self._client.freed()

    def _answered(self, index: int, status: int, body: bytes, json_length: int) -> None:
        client = self._client
        now = client.turns.now()
        if status != 200:
            words = decode_error(body) or body[:200].decode(errors="replace")
            client.outcomes.failed(index, now, str(status), words, answered=True, size=self._size)
            return
        turns = client.turns
        kind = client.kinds[turns.kind[index]]
        length = None if json_length < 0 else json_length
        read = read_json(body, length, kind.expected, turns.rows[index])
        if isinstance(read, Wrong):
            outcomes = client.outcomes
            outcomes.failed(index, now, read.status, read.words, answered=True, size=self._size)
            return
        client.outcomes.succeeded(index, now, "200", read, self._size)


def _head(orders: Orders, kind: KindSpec) -> bytes:
    path = f"/v2/models/{kind.model}" + (f"/versions/{kind.version}" if kind.version else "")
    lines = [f"POST {path}/infer HTTP/1.1", f"Host: {orders.target.authority}"]
    lines += [f"{name}: {value}" for name, value in {**orders.headers, **kind.headers}.items()]
    if orders.token:
        lines.append(f"Authorization: Bearer {orders.token}")
    lines.append("Content-Type: application/json\r\n")
    return "\r\n".join(lines).encode("latin-1")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
