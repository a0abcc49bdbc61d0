"""One client connection: bytes in, requests one at a time, answers in their order.

    IDLE ──first byte──▶ HEAD ──head complete──▶ BODY ──▶ RUNNING ──answered──▶ IDLE
      ▲                                                      │
      └────── client reads again ── BLOCKED ◀── its buffer is full
    any ──answered with `connection: close`, refused, timed out──▶ CLOSING ──▶ CLOSED

- While a request is RUNNING, what the client pipelines behind it waits unparsed; past 64 KiB
  nothing more is read.
- A request whose framing cannot be trusted is answered and the connection closed. Any other
  failure leaves it usable once the body has been read.
- CLOSING sends the answer and a FIN, then reads and drops what the client still sends for up
  to two seconds: closing at once would reset the connection and could destroy the answer.
- A client that only ends its own direction (half-close) still gets its answer. One that has
  closed looks the same until something is written to it, so after a sweep it is sent an interim
  `100 Continue`, which every HTTP/1.1 client ignores; a closed one answers with a reset, and
  its request is cancelled.
"""

import asyncio
import logging
from typing import Final, cast

from serving.errors import SluiceError
from serving.protocol import rest, status
from serving.types import Principal
from serving.worker.http.flow import Flow
from serving.worker.http.framing import ChunkedBody, HeadReader, Refusal
from serving.worker.http.inference import Exchange
from serving.worker.http.request import Pattern, Prepared, prepare
from serving.worker.http.responses import CONTINUE, JSON, OCTET_STREAM, error_headers
from serving.worker.http.state import ListenerState

__all__ = ["Connection"]

IDLE, HEAD, BODY, RUNNING, BLOCKED, CLOSING, CLOSED = range(7)

_NEVER: Final = float("inf")
_MAX_PIPELINED_BYTES: Final = 64 << 10
_JOIN_BYTES: Final = 64 << 10  # copying more than this behind its head costs more than it saves
# A client whose heads keep changing (request ids, traces) is not worth remembering.
_MAX_MISSES: Final = 8
_CLOSE: Final = b"connection: close\r\n"
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"

_log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """The protocol object of one accepted socket."""

    __slots__ = (
        "_arrived",
        "_chunked",
        "_current",
        "_exchange",
        "_flow",
        "_known",
        "_misses",
        "_missing",
        "_parts",
        "_pending",
        "_pending_at",
        "_phase",
        "_principal",
        "_reader",
        "_shared",
        "_transport",
        "deadline",
    )

    def __init__(self, shared: ListenerState) -> None:
        self._shared = shared
        self._transport: asyncio.Transport
        self._flow: Flow
        self._phase = IDLE
        self._known: Pattern | None = None
        self._misses = 0
        self._exchange = Exchange(shared, self)
        self._current: Prepared | None = None
        self._reader: HeadReader | None = None
        self._chunked: ChunkedBody | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._pending = bytearray()
        self._pending_at = self._arrived = 0.0
        self._principal: Principal | None = None
        self.deadline = _NEVER
        """When `expire` is due, in monotonic seconds."""

    @property
    def busy(self) -> bool:
        """Whether a request has begun and its answer has not been handed over."""
        return self._phase in (HEAD, BODY, RUNNING)

    @property
    def idle(self) -> bool:
        """Whether it waits for the first byte of a request."""
        return self._phase == IDLE

    # --- what the transport says --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it in, or out if there are too many."""
        shared = self._shared
        self._transport = cast("asyncio.Transport", transport)
        self._flow = Flow(self._transport)
        self.deadline = shared.header_until
        shared.opened(self)
        if len(shared.connections) > shared.max_connections:
            text = "too many connections (limits.max_connections); try again later"
            self._refuse(Refusal(503, text, b"retry-after: 1\r\n"))

    def data_received(self, data: bytes) -> None:
        """Take bytes; never more than one request is started."""
        phase = self._phase
        if phase == IDLE:
            shared = self._shared
            self._arrived = shared.now()
            known = self._known
            if known is not None:
                body = known.body_of(data, shared.max_body)
                prepared = known.prepared
                if body is not None and prepared.wanted is shared.wanted():
                    self._misses = 0
                    self._current = prepared
                    error = self._unauthorized(prepared)
                    if error is None:  # only heads of inferences are known
                        self._infer(prepared, body)
                    else:
                        self.fail(error, prepared)
                    return
            self._advance(data)
        elif phase in (HEAD, BODY):
            self._advance(data)
        elif phase in (RUNNING, BLOCKED):
            self._wait(data)

    def eof_received(self) -> bool:
        """The client sends no more. Returns whether the other direction stays open."""
        self._flow.ended = True
        if self._flow.tls or self._phase >= CLOSING:
            return False
        if self._phase in (RUNNING, BLOCKED):
            if self._phase == RUNNING:
                self.deadline = self._shared.soon
        else:
            self._ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what runs for a client that is gone."""
        del exc
        self._phase = CLOSED
        self._shared.closed(self)
        self._exchange.give_up()

    def pause_writing(self) -> None:
        """The client does not read its answers: take no more of its requests."""
        self._flow.blocked = True
        if self._phase == IDLE:
            self._block()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._flow.blocked = False
        if self._phase == BLOCKED:
            self._phase = IDLE
            self.deadline = self._shared.idle_until
            self._resume()

    def expire(self) -> None:
        """`deadline` has passed."""
        phase = self._phase
        if phase == IDLE:
            self._transport.close()
            self.deadline = self._shared.linger_until
            self._phase = CLOSING
        elif phase == HEAD:
            text = "the request's head did not arrive in time (limits.header_timeout)"
            self._refuse(Refusal(408, text))
        elif phase == BODY:
            text = "the request's body did not arrive in time (limits.body_timeout)"
            self._refuse(Refusal(408, text))
        elif phase == RUNNING:
            self.deadline = self._shared.soon
            self._flow.probe(interim=self._current is not None and self._current.head.minor == 1)
        elif self._flow.is_draining():  # a slow reader, but it reads
            self.deadline = self._shared.body_until
        else:
            self._transport.abort()

    # --- reading --------------------------------------------------------------------------

    def _advance(self, data: bytes) -> None:
        """Go through bytes until they are used up or a request runs."""
        position, size = 0, len(data)
        try:
            while position < size:
                phase = self._phase
                if phase in (IDLE, HEAD):
                    position = self._read_head(data, position)
                elif phase == BODY:
                    position = self._read_body(data, position)
                elif phase in (RUNNING, BLOCKED):
                    self._wait(data[position:])
                    break
                else:
                    return
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:  # noqa: BLE001 - a bug of ours must not leave the client unanswered
            _log.exception("a request could not be read")
            self._refuse(Refusal(500, status.INTERNAL_ERROR))
        if self._flow.ended and self._phase < RUNNING:
            self._ended()

    def _wait(self, data: bytes) -> None:
        if not self._pending:
            self._pending_at = self._shared.now()
        self._pending += data
        if len(self._pending) > _MAX_PIPELINED_BYTES:
            self._flow.stop_reading()

    def _resume(self) -> None:
        """Turn to what was pipelined behind the request just answered."""
        self._flow.read_on()
        data = bytes(self._pending)
        self._pending.clear()
        self._arrived = self._pending_at
        self._advance(data)

    def _read_head(self, data: bytes, position: int) -> int:
        shared = self._shared
        reader = self._reader or HeadReader(shared.wanted(), shared.max_header)
        position = reader.take(data, position)
        if not reader.complete:
            if self._phase == IDLE and reader.started:
                self._phase = HEAD
                self._reader = reader
                self.deadline = shared.header_until
            return position
        self._reader = None
        head = reader.finish()
        prepared = self._current = prepare(head, shared.router, reader.wanted)
        if head.content_length > shared.max_body:
            text = f"body is larger than limits.max_body ({shared.max_body} bytes)"
            raise Refusal(413, text)
        error = self._unauthorized(prepared) or prepared.error
        arriving = head.chunked or len(data) - position < head.content_length
        if error is not None and arriving:
            # The answer is known; what is still on its way is not worth waiting for.
            self.fail(error, prepared, close=True)
            return position
        prepared.error = error
        self._missing = head.content_length
        if head.chunked:
            self._chunked = ChunkedBody(max_body=shared.max_body, max_overhead=shared.max_header)
        elif not self._missing:
            self._begin(prepared, b"")
            return position
        self._phase = BODY
        self.deadline = shared.body_until
        if head.expects_continue and position == len(data):
            self._transport.write(CONTINUE)
        return position

    def _read_body(self, data: bytes, position: int) -> int:
        prepared = self._current
        assert prepared is not None
        chunked = self._chunked
        if chunked is not None:
            position = chunked.feed(data, position)
            if chunked.complete:
                self._chunked = None
                if chunked.overrun:
                    prepared.head.keep_alive = prepared.plain = False
                self._begin(prepared, chunked.value())
            return position
        part = data[position : position + self._missing]
        self._missing -= len(part)
        if self._missing:
            self._parts.append(part)
        elif self._parts:
            self._parts.append(part)
            body = b"".join(self._parts)
            self._parts.clear()
            self._begin(prepared, body)
        else:
            self._begin(prepared, part)
        return position + len(part)

    def _unauthorized(self, prepared: Prepared) -> Exception | None:
        if not prepared.public:
            try:
                self._principal = self._shared.authorize(prepared.authorization, "infer")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
                return error
        return None

    # --- answering ------------------------------------------------------------------------

    def _begin(self, prepared: Prepared, body: bytes) -> None:
        if prepared.error is None:
            self._start(prepared, body)
        else:
            self.fail(prepared.error, prepared)

    def _start(self, prepared: Prepared, body: bytes) -> None:
        """Work on a request that is whole and allowed."""
        shared = self._shared
        route = prepared.route
        assert route is not None
        if route.answer is None:
            self._infer(prepared, body)
            return
        try:
            if prepared.encoding is not None:
                body = rest.inflate(
                    body, prepared.encoding, shared.max_body, shared.max_inflate_ratio
                )
            code, payload = route.answer(shared.plane, route, body)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            self.fail(error, prepared)
        else:
            self._send(code, payload, prepared)

    def _infer(self, prepared: Prepared, body: bytes) -> None:
        self._phase = RUNNING
        self.deadline = _NEVER
        if prepared.encoding is None:
            self._exchange.ask(prepared, body, self._arrived, self._principal)
        else:
            self._exchange.inflate(prepared, body, self._arrived, self._principal)

    def turn(self) -> None:
        """Turn to what came while a request ran; for whoever is not called from reading."""
        if (self._pending or self._flow.ended) and self._phase == IDLE:
            self._resume()

    def answer(
        self,
        prepared: Prepared,
        payload: bytes,
        json_length: int | None,
        encoding: str | None,
        trace: str | None,
    ) -> None:
        """Send a successful inference."""
        shared = self._shared
        if (
            json_length is None
            and encoding is None
            and trace is None
            and prepared.plain
            and not shared.draining
        ):
            start, size = shared.heads.json_ok, len(payload)
            if size < _JOIN_BYTES:
                self._transport.write(b"%b%d\r\n\r\n%b" % (start, size, payload))
            else:
                self._transport.writelines((b"%b%d\r\n\r\n" % (start, size), payload))
            if self._known is None or prepared is not self._known.prepared:
                self._remember(prepared)
            self._next(close=False)
            return
        extra = b""
        if json_length is not None:
            extra = b"inference-header-content-length: %d\r\n" % json_length
        if encoding is not None:
            extra += b"content-encoding: %b\r\nvary: accept-encoding\r\n" % encoding.encode()
        if trace is not None:
            extra += b"traceresponse: %b\r\n" % trace.encode()
        self._send(
            200,
            payload,
            prepared,
            extra,
            content_type=JSON if json_length is None else OCTET_STREAM,
        )

    def fail(
        self, error: Exception, prepared: Prepared, *, close: bool = False, count: bool = True
    ) -> None:
        """Send an error."""
        if not isinstance(error, SluiceError):
            _log.error("a request failed unexpectedly", exc_info=error)
        code = status.http_status(error)
        if count:
            self._shared.count_refusal(code)
        payload = rest.encode_error(status.public_message(error))
        self._send(code, payload, prepared, error_headers(error), close=close)

    def _send(
        self,
        code: int,
        payload: bytes,
        prepared: Prepared,
        extra: bytes = b"",
        *,
        content_type: bytes = JSON,
        close: bool = False,
    ) -> None:
        shared = self._shared
        head = prepared.head
        close = close or shared.draining or not head.keep_alive
        extra += prepared.echo
        if close:
            extra += _CLOSE
        elif not head.minor:
            extra += _KEEP_ALIVE
        text = shared.heads.render(code, len(payload), content_type=content_type, extra=extra)
        if head.method == b"HEAD":
            payload = b""
        self._transport.write(text + payload)
        if code == 200:
            self._remember(prepared)
        self._next(close=close)

    def _remember(self, prepared: Prepared) -> None:
        """Keep the meaning of a head that got an answer; it will probably come again."""
        if self._known is not None and prepared is self._known.prepared:
            return
        if prepared.route is not None:
            self._shared.router.remember(prepared.head.target, prepared.route)
            if prepared.route.answer is None:
                self._misses += 1
                self._known = Pattern.of(prepared) if self._misses <= _MAX_MISSES else None

    def _refuse(self, refusal: Refusal) -> None:
        """Answer a request whose framing is not to be trusted, and close."""
        shared = self._shared
        if self._phase >= CLOSING:
            return
        shared.count_refusal(refusal.status)
        payload = rest.encode_error(refusal.message)
        extra = refusal.headers + _CLOSE
        self._transport.write(
            shared.heads.render(refusal.status, len(payload), extra=extra) + payload
        )
        self._hang_up()

    def _next(self, *, close: bool) -> None:
        """The answer is written: wait for the next request, or close."""
        self._current = None
        if close:
            self._hang_up()
        elif self._flow.blocked:
            self._block()
        else:
            self._phase = IDLE
            self.deadline = self._shared.idle_until

    # --- ending ---------------------------------------------------------------------------

    def _block(self) -> None:
        """Start nothing more until the client has read."""
        self._phase = BLOCKED
        self._flow.note_unsent()
        self._flow.stop_reading()
        self.deadline = self._shared.body_until

    def _hang_up(self) -> None:
        """Close once everything is sent, and give the client a little time to read it."""
        self._phase = CLOSING
        self._pending.clear()
        self._parts.clear()
        self._chunked = self._reader = self._known = self._current = None
        shared = self._shared
        self.deadline = shared.body_until if self._flow.note_unsent() else shared.linger_until
        self._flow.finish()

    def abandon(self) -> "asyncio.Task[None] | None":
        """Drop the connection now; returns what still has to end with it, if anything has."""
        self._transport.abort()
        return self._exchange.give_up()

    def _ended(self) -> None:
        """The client ended its direction, and no request of its runs."""
        if self._phase == IDLE:
            self._hang_up()
        else:
            self._refuse(Refusal(400, "the connection ended before the request did"))
