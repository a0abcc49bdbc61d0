"""Response heads, formatted ahead of time. No I/O.

Header names are lower-case, which HTTP allows and some proxies need; `Content-Type` of JSON is
exactly `application/json`, because KServe's client compares the whole value.
"""

import math
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from serving.errors import MethodNotAllowed, Overloaded, Unauthenticated, UnsupportedEncoding

__all__ = ["CONTINUE", "JSON", "OCTET_STREAM", "ResponseHeads", "error_headers"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON: Final = b"application/json"
OCTET_STREAM: Final = b"application/octet-stream"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class ResponseHeads:
    """Renders heads that carry the current date, which `refresh` moves on."""

    __slots__ = ("_date", "_second", "json_ok")

    def __init__(self, wall: float) -> None:
        self._second = -1
        self._date = b""
        self.json_ok = b""
        """The usual head up to the number that `content-length` needs."""
        self.refresh(wall)

    def refresh(self, wall: float) -> None:
        """Set the date (seconds since 1970); cheap to call several times a second."""
        second = int(wall)
        if second != self._second:
            self._second = second
            self._date = b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
            self.json_ok = (
                _STATUS_LINES[200]
                + self._date
                + b"content-type: application/json\r\ncontent-length: "
            )

    def render(
        self, status: int, length: int, *, content_type: bytes = JSON, extra: bytes = b""
    ) -> bytes:
        """A whole head with its blank line.

        `extra` are further header lines, each ending in CRLF.
        """
        return b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (
            _STATUS_LINES[status],
            self._date,
            content_type,
            length,
            extra,
        )


def error_headers(error: Exception) -> bytes:
    """The header lines an error brings along, each ending in CRLF."""
    match error:
        case Overloaded():
            return b"retry-after: %d\r\n" % max(1, math.ceil(error.retry_after_seconds))
        case MethodNotAllowed():
            return b"allow: %b\r\n" % ", ".join(error.allowed).encode()
        case UnsupportedEncoding():
            return b"accept-encoding: gzip, deflate\r\n"
        case Unauthenticated():
            return b"www-authenticate: Bearer\r\n"
        case _:
            return b""
