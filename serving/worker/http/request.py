"""From an accepted request head to everything about the call that its body does not say.

No I/O. The result depends on the head's bytes and on the names of the headers that routing
wants, and on nothing else, so a connection may use it again for the same bytes.
"""

import re
from typing import Final

import msgspec

from serving.errors import InvalidRequest, ServingError, UnsupportedEncoding
from serving.protocol import rest
from serving.protocol.timeouts import parse_request_timeout
from serving.types import Call
from serving.worker.http.framing import Head, WantedHeaders
from serving.worker.http.routes import Route, Router

__all__ = ["Pattern", "Prepared", "prepare"]

_VISIBLE: Final = re.compile(rb"[!-~]{1,128}")
_DIGITS: Final = re.compile(rb"[0-9]{1,12}")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
_LENGTH_DIGITS: Final = 12
_PATTERN_BYTES: Final = 4096
_SEEN: Final = 32
_NOTHING: Final[dict[str, str]] = {}


class Prepared(msgspec.Struct):
    """One head, made ready to be answered.

    `error`: why it will be refused once its credential has been seen; the framing is sound, so
    the connection can go on. `public`: no credential is needed. `plain`: HTTP/1.1 with
    keep-alive and nothing to echo, the head that `ResponseHeads.json_ok` fits.
    """

    head: Head
    wanted: WantedHeaders
    route: Route | None
    error: Exception | None
    public: bool
    plain: bool
    echo: bytes = b""
    authorization: str | None = None
    timeout: float | None = None
    headers: dict[str, str] = {}
    request_id: str = ""
    traceparent: str | None = None
    tracestate: str | None = None
    header_length: int | None = None
    encoding: str | None = None
    accept_encoding: str | None = None

    def call(self, arrived: float, decoded: float) -> Call:
        """The call this head describes; times in monotonic seconds."""
        return Call(
            "http",
            arrived,
            decoded,
            self.timeout,
            _FOREVER,
            self.authorization,
            self.headers,
            self.request_id,
            self.traceparent,
            self.tracestate,
        )


_FOREVER: Final = float("inf")


class Pattern(msgspec.Struct):
    """The head of an inference, as it will come again but for the digits of Content-Length.

    Most clients send the same head on every request of a connection. llhttp has found `prepared`
    well-formed, and other digits change nothing but the body's length, so bytes that match mean
    the same without being parsed again.
    """

    prepared: Prepared
    before: bytes
    after: bytes
    seen: dict[int, bytes] = {}
    """Heads that have come, digits and all, by the length of head and body together."""

    @classmethod
    def of(cls, prepared: Prepared) -> "Pattern | None":
        """The pattern of a head, if it is a short and ordinary one."""
        head = prepared.head
        usual = head.keep_alive and not head.chunked and not head.expects_continue
        if not usual or len(head.raw) > _PATTERN_BYTES:
            return None
        # llhttp has refused a second Content-Length, so the line found is the header.
        length = _LENGTH.search(head.raw)
        if length is None:
            return None
        return cls(prepared, head.raw[: length.start(1)], head.raw[length.end(1) :])

    def body_of(self, data: bytes, max_body: int) -> bytes | None:
        """The body, if `data` is this head and exactly one whole body; else None."""
        whole = self.seen.get(len(data))
        if whole is not None and data.startswith(whole):
            return data[len(whole) :]
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        end = data.find(b"\r", start, start + _LENGTH_DIGITS)
        digits = data[start:end]
        # After the digits: the CR that `find` found, and all else as before.
        if end < 0 or not digits.isdigit() or not data.startswith(self.after, end):
            return None
        position = end + len(self.after)
        if not len(data) - position == int(digits) <= max_body:
            return None
        if len(self.seen) >= _SEEN:
            self.seen.clear()
        self.seen[len(data)] = data[:position]
        return data[position:]


def prepare(head: Head, router: Router, wanted: WantedHeaders) -> Prepared:
    """Resolve the path and read the headers; what is wrong ends up in `error`."""
    values = head.values
    prepared = Prepared(
        head,
        wanted,
        None,
        None,
        public=False,
        plain=head.minor == 1 and head.keep_alive and head.method != b"HEAD",
        headers=_NOTHING,
    )
    if b"authorization" in values:
        prepared.authorization = values[b"authorization"].decode("latin-1")
    if b"x-request-id" in values and _VISIBLE.fullmatch(values[b"x-request-id"]):
        prepared.request_id = values[b"x-request-id"].decode("ascii")
        prepared.echo = b"x-request-id: %b\r\n" % values[b"x-request-id"]
        prepared.plain = False
    try:
        prepared.route = route = router.resolve(head.target)
        prepared.public = route.public
        route.check(head.method.decode("ascii"))
        if route.answer is None or b"content-encoding" in values:
            _read_headers(prepared, values)
    except ServingError as error:
        prepared.error = error
    return prepared


def _read_headers(prepared: Prepared, values: dict[bytes, bytes]) -> None:
    """Read what only bodies and inference need. Raises InvalidRequest, UnsupportedEncoding."""
    if b"content-encoding" in values:
        prepared.encoding = _encoding(values[b"content-encoding"])
    if b"inference-header-content-length" in values:
        digits = values[b"inference-header-content-length"]
        if _DIGITS.fullmatch(digits) is None:
            raise InvalidRequest(
                "Inference-Header-Content-Length must be the number of bytes of JSON in the body"
            )
        prepared.header_length = int(digits)
    if b"x-request-timeout" in values:
        prepared.timeout = parse_request_timeout(values[b"x-request-timeout"].decode("latin-1"))
    if b"accept-encoding" in values:
        prepared.accept_encoding = rest.choose_encoding(
            values[b"accept-encoding"].decode("latin-1")
        )
    if b"traceparent" in values:
        prepared.traceparent = values[b"traceparent"].decode("latin-1")
        if b"tracestate" in values:
            prepared.tracestate = values[b"tracestate"].decode("latin-1")
    if prepared.wanted.names:
        prepared.headers = _asked_for(prepared.wanted.names, values)


def _encoding(value: bytes) -> str | None:
    encoding = value.decode("latin-1").lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        text = "Content-Encoding must be gzip, deflate or identity, and only one of them"
        raise UnsupportedEncoding(text)
    return encoding


def _asked_for(names: frozenset[str], values: dict[bytes, bytes]) -> dict[str, str]:
    found = {}
    for name in names:
        value = values.get(name.encode("latin-1"))
        if value is not None:
            found[name] = value.decode("latin-1")
    return found or _NOTHING
