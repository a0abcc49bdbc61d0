"""HTTP/1.1 framing: which request heads and chunked bodies are acceptable. No I/O.

llhttp (through httptools) is strict about line ends, folded headers, header tokens,
Content-Length beside Transfer-Encoding and repeated Content-Length. It does accept a missing
or repeated Host, runs of spaces in the request line, `Transfer-Encoding: gzip, chunked`,
chunked framing in HTTP/1.0 and foreign version numbers; those are refused here. Every
violation is a `Refusal`, after which the connection is closed: its framing is not known any
more. Rules: RFC 9112 (messages), RFC 9110 (Expect, Host, Connection).

A parser reads exactly one head, so nothing of one request can reach the next.
"""

import re
from typing import Final

import httptools
import msgspec

__all__ = ["STANDARD_HEADERS", "ChunkedBody", "Head", "HeadReader", "Refusal", "WantedHeaders"]

STANDARD_HEADERS: Final = frozenset(
    {
        b"accept-encoding",
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"expect",
        b"host",
        b"inference-header-content-length",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"x-request-id",
        b"x-request-timeout",
    }
)
"""Header names the listener itself reads, in lower case."""

# Repeating these means a list (RFC 9110 §5.3). Two traceparents joined are not a valid one,
# which is what Trace Context asks for: the trace restarts.
_LISTS: Final = frozenset(
    {b"accept-encoding", b"connection", b"content-encoding", b"traceparent", b"tracestate"}
)
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+;=:\[\]%-]*")
_NOT_HTTP_2: Final = "this port speaks HTTP/1.1, not HTTP/2; gRPC calls have a port of their own"
_MAX_CHUNKS: Final = 65_536  # tiny chunks cost a server far more than their bytes (CVE-2025-23310)
_CHUNK_LINE_BYTES: Final = 20  # 16 hex digits and two line ends
_BLANK_LINE: Final = b"\r\n\r\n"
_CHUNKED_PREAMBLE: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class Refusal(Exception):
    """A request whose framing cannot be trusted: answer `status`, then close.

    `headers` are further header lines of the answer, each ending in CRLF.
    """

    def __init__(self, status: int, message: str, headers: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class Head(msgspec.Struct):
    """What one accepted request head says about framing.

    `values` holds the headers somebody reads, names in lower case, values stripped. Without a
    body `content_length` is 0 and `chunked` false.
    """

    raw: bytes
    method: bytes
    target: bytes
    minor: int
    keep_alive: bool
    content_length: int
    chunked: bool
    expects_continue: bool
    values: dict[bytes, bytes]


class WantedHeaders(msgspec.Struct, frozen=True):
    """Header names worth keeping: those of the protocol, and `names` that routing asks for.

    Names are in lower case; `keys` are all of them as they are on the wire.
    """

    names: frozenset[str]
    keys: frozenset[bytes]

    @classmethod
    def of(cls, names: frozenset[str]) -> "WantedHeaders":
        """The protocol's own names and `names`."""
        return cls(names, STANDARD_HEADERS | {name.encode("latin-1") for name in names})


class HeadReader:
    """Reads one request head of at most `max_bytes`.

    `take` bytes as they come; once `complete`, `finish`.
    """

    __slots__ = (
        "_keys",
        "_max_bytes",
        "_parser",
        "_raw",
        "_repeated",
        "_values",
        "complete",
        "wanted",
    )

    def __init__(self, wanted: WantedHeaders, max_bytes: int) -> None:
        self.wanted = wanted
        self.complete = False
        self._keys = wanted.keys
        self._max_bytes = max_bytes
        self._raw: bytes | bytearray = b""
        self._values: dict[bytes, bytes] = {}
        self._repeated = b""
        self._parser = httptools.HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp for every header line, in order."""
        name = name.lower()
        if name in self._keys:
            values = self._values
            value = value.strip(b" \t")
            if name not in values:
                values[name] = value
            elif name in _LISTS:
                values[name] += b", " + value
            else:
                self._repeated = name

    def take(self, data: bytes, position: int) -> int:
        """Take bytes from `position` on; returns the position of the first one not taken.

        Blank lines before a request are skipped (RFC 9112 §2.2).

        Raises:
            Refusal: as soon as a byte is wrong, or there are too many.
        """
        if not self._raw:
            if data[position] in b"\r\n":
                position = len(data) - len(data[position:].lstrip(b"\r\n"))
                if position == len(data):
                    return position
            end = data.find(_BLANK_LINE, position)
            if end >= 0:
                self._raw = data[position : end + 4]
                self._feed(self._raw)
                self.complete = True
                return end + 4
            self._raw = bytearray()
        assert isinstance(self._raw, bytearray)
        known = len(self._raw)
        self._raw += data[position:]
        end = self._raw.find(_BLANK_LINE, max(0, known - 3))
        if end >= 0:
            del self._raw[end + 4 :]
            self.complete = True
        taken = len(self._raw) - known
        self._feed(data[position : position + taken])
        return position + taken

    def _feed(self, part: bytes) -> None:
        if len(self._raw) > self._max_bytes:
            text = "request line and headers are larger than limits.max_header"
            raise Refusal(431, f"{text} ({self._max_bytes} bytes)")
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            pass  # the head is whole, and an Upgrade may be ignored (RFC 9110 §7.8)
        except httptools.HttpParserError as error:
            raise self._refusal(str(error)) from error

    @property
    def started(self) -> bool:
        """Whether any byte of the head has come."""
        return bool(self._raw)

    def _refusal(self, reason: str) -> Refusal:
        if self._parser.get_method() == b"PRI":
            return Refusal(505, _NOT_HTTP_2)
        if reason == "Invalid HTTP version":
            return Refusal(505, "HTTP version not supported; send HTTP/1.1")
        return Refusal(400, f"malformed HTTP request: {reason}")

    def finish(self) -> Head:
        """Judge the complete head.

        Raises:
            Refusal: with 400, 405 (CONNECT), 417, 501 (transfer coding) or 505.
        """
        # It holds our methods: together the two would be left to the garbage collector.
        del self._parser
        raw = bytes(self._raw)
        line = raw[: raw.index(b"\r\n")].split(b" ")
        if len(line) != 3:
            text = "malformed HTTP request: write the request line with single spaces"
            raise Refusal(400, text)
        method, target, version = line
        if version == b"HTTP/1.1":
            minor = 1
        elif version == b"HTTP/1.0":
            minor = 0
        else:
            foreign = "HTTP version not supported; send HTTP/1.1"
            raise Refusal(505, _NOT_HTTP_2 if method == b"PRI" else foreign)
        if method == b"CONNECT":
            raise Refusal(405, "CONNECT is not offered", b"allow: GET, HEAD, POST\r\n")
        values = self._values
        self._check_unique(minor)
        chunked = self._chunked(minor)
        expects_continue = False
        if minor and b"expect" in values:
            if values[b"expect"].lower() != b"100-continue":
                raise Refusal(417, "Expect: only 100-continue is understood")
            expects_continue = True
        keep_alive = minor == 1
        if b"connection" in values:
            tokens = [token.strip() for token in values[b"connection"].lower().split(b",")]
            keep_alive = b"close" not in tokens and (keep_alive or b"keep-alive" in tokens)
        return Head(
            raw,
            method,
            target,
            minor,
            keep_alive,
            int(values.get(b"content-length", b"0")),
            chunked,
            expects_continue,
            values,
        )

    def _check_unique(self, minor: int) -> None:
        if self._repeated:
            raise Refusal(400, f"header {self._repeated.decode('latin-1')} appears more than once")
        host = self._values.get(b"host")
        if host is None:
            if minor:
                raise Refusal(400, "header Host is missing; HTTP/1.1 needs exactly one")
        elif _HOST.fullmatch(host) is None:
            raise Refusal(400, "header Host must be a host name with an optional port")

    def _chunked(self, minor: int) -> bool:
        coding = self._values.get(b"transfer-encoding")
        if coding is None:
            return False
        if not minor:
            raise Refusal(400, "Transfer-Encoding is not part of HTTP/1.0; send Content-Length")
        if coding.lower() != b"chunked":
            raise Refusal(501, "Transfer-Encoding: only chunked is understood")
        return True


class ChunkedBody:
    """Decodes one chunked body and says where it ends.

    At most `max_body` decoded bytes, 65,536 chunks, and `max_overhead` bytes of chunk
    extensions and trailers (which are dropped).
    """

    __slots__ = (
        "_chunks",
        "_fed",
        "_max_body",
        "_max_overhead",
        "_parser",
        "_parts",
        "_pieces",
        "_size",
        "_tail",
        "complete",
        "overrun",
    )

    def __init__(self, *, max_body: int, max_overhead: int) -> None:
        self._max_body = max_body
        self._max_overhead = max_overhead
        self._parts: list[bytes] = []
        self._size = self._fed = self._chunks = self._pieces = 0
        self._tail = b""
        self.complete = False
        self.overrun = False
        """The next request's bytes were swallowed too: answer this one, then close."""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_PREAMBLE)

    def on_body(self, part: bytes) -> None:
        """Called by llhttp with decoded bytes."""
        self._parts.append(part)
        self._size += len(part)

    def on_chunk_header(self) -> None:
        """Called by llhttp for every chunk."""
        self._chunks += 1

    def on_message_complete(self) -> None:
        """Called by llhttp at the end of the trailers."""
        self.complete = True

    def on_message_begin(self) -> None:
        """Called by llhttp for the preamble, and for bytes after the end."""
        self.overrun = self.complete

    def value(self) -> bytes:
        """The whole decoded body."""
        return b"".join(self._parts)

    def feed(self, data: bytes, position: int) -> int:
        """Take bytes from `position` on; returns the position of the first one not taken.

        Raises:
            Refusal: 400 for malformed chunks, 413 past `max_body`.
        """
        view = memoryview(data)
        while position < len(data) and not self.complete:
            end = self._piece_end(data, position)
            try:
                self._parser.feed_data(view[position:end])
            except httptools.HttpParserError as error:
                raise Refusal(400, f"malformed chunked body: {error}") from error
            self._fed += end - position
            self._tail = (self._tail + data[max(position, end - 3) : end])[-3:]
            position = end
            self._check_size()
        return position

    def _piece_end(self, data: bytes, position: int) -> int:
        # llhttp does not say where a message ended. A chunked one can end only with a blank
        # line, so bytes are fed up to one at a time. A body with very many of them is fed
        # whole in the end: then a request pipelined behind it costs the connection.
        self._pieces += 1
        if self._pieces > _MAX_CHUNKS:
            return len(data)
        across = (self._tail + data[position : position + 3]).find(_BLANK_LINE)
        if across >= 0:
            return position + across + 4 - len(self._tail)
        found = data.find(_BLANK_LINE, position)
        return len(data) if found < 0 else found + 4

    def _check_size(self) -> None:
        if self._size > self._max_body:
            raise Refusal(413, f"body is larger than limits.max_body ({self._max_body} bytes)")
        if self._chunks > _MAX_CHUNKS:
            raise Refusal(400, f"chunked body has more than {_MAX_CHUNKS} chunks")
        overhead = self._fed - self._size - self._chunks * _CHUNK_LINE_BYTES
        if overhead > self._max_overhead:
            raise Refusal(431, "chunk extensions and trailers are larger than limits.max_header")
