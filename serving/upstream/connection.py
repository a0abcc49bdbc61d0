"""A client's HTTP/1.1 connection to a model host: one request at a time, kept alive.

httptools (llhttp) reads the answers, as it reads requests in the listener.
"""

import asyncio
from typing import Any, Final

import httptools
import msgspec

__all__ = ["LARGEST_ANSWER", "Connection", "HttpAnswer", "Lost"]

LARGEST_ANSWER: Final = 64 << 20
"""Bytes of an answer's body; a longer one counts as none."""


class Lost(ConnectionError):
    """The connection ended before the answer did.

    `silent`: not one byte of the answer had come. On a connection that was used before, the
    server may simply have closed it as idle at this very moment.
    """

    def __init__(self, message: str, *, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


class HttpAnswer(msgspec.Struct, frozen=True, gc=False):
    """Status, headers (names in lower case) and body."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Connection(asyncio.Protocol):
    """One connection. `ask` while it is `usable` and nobody else asks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[HttpAnswer] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._started = False
        self.usable = False
        """Whether the next request may be sent on it."""

        self.used = False
        """Whether it has brought an answer before."""

    def ask(self, request: list[bytes | memoryview]) -> "asyncio.Future[HttpAnswer]":
        """Send a whole request; the future ends with the answer, or Lost.

        Cancelling it leaves the connection in the middle of an answer: `abort` it then.
        """
        transport = self._transport
        assert transport is not None
        self.usable = False
        self._started = False
        self._waiter = waiter = self._loop.create_future()
        transport.write(b"".join(request))
        return waiter

    def abort(self) -> None:
        """Close without waiting for anything."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Part of an answer, or something nobody asked for."""
        if self._waiter is None:
            self.abort()
            return
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """The server has closed it, or `abort` has."""
        del error
        self.usable = False
        self._fail("the connection was closed before the answer was complete")

    def _fail(self, message: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(Lost(message, silent=not self._started))
        self.abort()

    # --- httptools ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A status line."""
        self._headers = {}
        self._body = []
        self._size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        """A piece of the body."""
        self._size += len(part)
        if self._size > LARGEST_ANSWER:
            self._fail("the answer is too long")
            return
        self._body.append(part)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue and its like announce another
            return
        waiter, self._waiter = self._waiter, None
        self.used = True
        if self._parser.should_keep_alive():
            self.usable = True
        elif self._transport is not None:
            self._transport.close()
        if waiter is not None and not waiter.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            waiter.set_result(HttpAnswer(status, self._headers, body))
        elif waiter is not None:  # given up a moment ago
            self.abort()
