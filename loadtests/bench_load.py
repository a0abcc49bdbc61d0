"""The benchmark's load generator: closed loop, keep-alive, a process of its own.

Every connection has one request in flight and sends the next when the answer is complete, so
`connections` requests are in flight. Reads its orders as one JSON line on standard input, says
`ready` once all connections are open, starts at the line `go`, and prints the result as JSON.

Both clients are written down to the bytes here, because a client library's own CPU would keep
the server from ever being busy on two cores: HTTP/1.1 on httptools, and gRPC over HTTP/2 with
one stream in flight per connection (RFC 9113; headers as RFC 7541, sent indexed after the
first request of a connection, as gRPC clients do).
"""

import asyncio
import base64
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import httptools
import msgspec
import numpy as np
import orjson
import uvloop

from serving.protocol._generated import inference_pb2 as pb

__all__ = ["Orders", "Result", "connect", "keep_busy"]

CHECK_EVERY: Final = 16
"""Of this many replies of a connection one is decoded and compared; all must say success."""

TOLERANCE: Final = 1e-5
CONNECT_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 10.0


class Orders(msgspec.Struct):
    """What to send, where, for how long. `messages` are base64, answered with `expected`."""

    protocol: str
    host: str
    port: int
    path: str
    connections: int
    seconds: float
    messages: list[str]
    expected: list[list[float]]


class Result(msgspec.Struct):
    """What happened. `seconds` is from the first request to the last answer.

    `failed` counts answers that were no success or not the expected numbers; `problem` describes
    the first of them. If nothing was answered there are no percentiles.
    """

    requests: int
    failed: int
    seconds: float
    p50_us: float | None
    p99_us: float | None
    checked: int
    problem: str = ""


class Tally:
    """What all connections have seen, and when they are to stop."""

    def __init__(self, orders: Orders) -> None:
        self.orders: Final = orders
        self.bodies: Final = [base64.b64decode(text) for text in orders.messages]
        self.stop_at = float("inf")
        self.latencies: list[float] = []
        self.failed = 0
        self.checked = 0
        self.problem = ""

    def fail(self, problem: str) -> None:
        """Count one bad answer."""
        self.failed += 1
        self.problem = self.problem or problem

    def compare(self, index: int, probabilities: list[float]) -> None:
        """Compare one decoded answer with what request `index` must get."""
        self.checked += 1
        expected = self.orders.expected[index]
        right = np.size(probabilities) == len(expected)
        if not (right and np.allclose(probabilities, expected, atol=TOLERANCE)):
            self.fail(f"request {index} was answered {probabilities}")


class Connection(asyncio.Protocol):
    """What both protocols share: one request in flight, its turn, its time."""

    def __init__(self, tally: Tally, number: int) -> None:
        self.tally = tally
        self.number = number
        self.sent = 0
        self.index = 0
        self.started = 0.0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Open; HTTP/1.1 may send at once."""
        self.transport = transport
        self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that the server closed; it does not come back."""
        if not self.ended.done():
            self.tally.fail(f"connection closed early: {exc}")
            self.ended.set_result(None)
        if not self.opened.done():
            self.opened.set_result(None)

    def send(self) -> None:
        """Send the next request."""
        self.index = (self.number + self.sent) % len(self.tally.bodies)
        self.sent += 1
        self.started = time.perf_counter()
        self.write()

    def answered(self) -> None:
        """Take the time, and send again unless the time is over."""
        now = time.perf_counter()
        self.tally.latencies.append(now - self.started)
        if now < self.tally.stop_at:
            self.send()
        else:
            self.ended.set_result(None)
            self.transport.close()

    def write(self) -> None:
        """Write request `index`."""
        raise NotImplementedError


class HttpConnection(Connection):
    """HTTP/1.1 with JSON."""

    def __init__(self, tally: Tally, number: int) -> None:
        super().__init__(tally, number)
        orders = tally.orders
        self._requests = [
            (
                f"POST {orders.path} HTTP/1.1\r\nHost: {orders.host}:{orders.port}\r\n"
                f"{self.headers(number)}Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
            for number, body in enumerate(tally.bodies)
        ]
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    def headers(self, number: int) -> str:
        """Header lines of request `number`, beside those of every request."""
        del number
        return "Content-Type: application/json\r\n"

    def probabilities(self, body: bytes) -> list[float]:
        """What an answer says; empty if it says nothing of them."""
        outputs = orjson.loads(body)["outputs"]
        found = [output["data"] for output in outputs if output["name"] == "probabilities"]
        return found[0] if found else []

    def write(self) -> None:
        self.transport.write(self._requests[self.index])

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Part of a body (httptools)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """A whole answer (httptools)."""
        body = b"".join(self._body)
        self._body.clear()
        if self._parser.get_status_code() != 200:
            self.tally.fail(f"status {self._parser.get_status_code()}: {body[:200]!r}")
        elif self.sent % CHECK_EVERY == 1:
            try:
                found = self.probabilities(body)
            except (ValueError, KeyError, TypeError, AttributeError):
                self.tally.fail(f"200, but no answer of the protocol: {body[:200]!r}")
            else:
                self.tally.compare(self.index, found)
        self.answered()


_FRAME_DATA, _FRAME_HEADERS, _FRAME_RST_STREAM, _FRAME_SETTINGS = 0, 1, 3, 4
_FRAME_PING, _FRAME_GOAWAY, _FRAME_WINDOW_UPDATE = 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_SETTINGS_HEADER_TABLE_SIZE, _SETTINGS_INITIAL_WINDOW_SIZE = 1, 4
_GRPC_PATH: Final = b"/inference.GRPCInferenceService/ModelInfer"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def _text(value: bytes) -> bytes:
    """A header string without Huffman coding; shorter than 127 bytes."""
    return bytes((len(value),)) + value


class GrpcConnection(Connection):
    """One unary gRPC call at a time over HTTP/2 with prior knowledge."""

    def __init__(self, tally: Tally, number: int) -> None:
        super().__init__(tally, number)
        orders = tally.orders
        authority = f"{orders.host}:{orders.port}".encode()
        # `:method POST` and `:scheme http` are entries 3 and 6 of the static table. The other
        # four enter the dynamic table in this order, the latest of them becoming entry 62.
        self._first_headers = (
            b"\x83\x86\x44" + _text(_GRPC_PATH) + b"\x41" + _text(authority)
            + b"\x40" + _text(b"te") + _text(b"trailers") + b"\x5f" + _text(b"application/grpc")
        )  # fmt: skip
        self._later_headers = bytes((0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62))
        self._messages = [b"\0" + len(body).to_bytes(4, "big") + body for body in tally.bodies]
        self._window = 65_535
        self._stream = 0
        self._buffer = bytearray()
        self._answer = bytearray()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        settings = _SETTINGS_INITIAL_WINDOW_SIZE.to_bytes(2, "big") + (1 << 30).to_bytes(4, "big")
        transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_FRAME_SETTINGS, 0, 0, settings)
            # Room for a gigabyte of answers, so that none has to be made later.
            + _frame(_FRAME_WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big"))
        )

    def write(self) -> None:
        stream = self._stream = 2 * self.sent - 1
        message = self._messages[self.index]
        headers = self._first_headers if self.sent == 1 else self._later_headers
        if self._window < len(message):
            raise RuntimeError("the server has given no room for another request")
        self._window -= len(message)
        self.transport.write(
            _frame(_FRAME_HEADERS, _END_HEADERS, stream, headers)
            + _frame(_FRAME_DATA, _END_STREAM, stream, message)
        )

    def data_received(self, data: bytes) -> None:
        """Take frames off the buffer."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) >= start + 9:
            end = start + 9 + int.from_bytes(buffer[start : start + 3], "big")
            if len(buffer) < end:
                break
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big")
            if stream in (0, self._stream):
                flags = buffer[start + 4]
                self._on_frame(buffer[start + 3], flags, stream, bytes(buffer[start + 9 : end]))
            start = end
        del buffer[:start]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _FRAME_DATA:
            padding = payload[0] + 1 if flags & _PADDED else 0
            self._answer += payload[1 : len(payload) - padding + 1] if padding else payload
        elif kind == _FRAME_SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _FRAME_PING and not flags & _ACK:
            self.transport.write(_frame(_FRAME_PING, _ACK, 0, payload))
        elif kind == _FRAME_WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == _FRAME_GOAWAY:
            self.tally.fail(f"the server went away: {payload[8:].decode(errors='replace')}")
            self.transport.close()
        if kind == _FRAME_RST_STREAM or (
            kind in (_FRAME_DATA, _FRAME_HEADERS) and flags & _END_STREAM
        ):
            self._complete()

    def _on_settings(self, payload: bytes) -> None:
        settings = {
            int.from_bytes(payload[i : i + 2], "big"): int.from_bytes(payload[i + 2 : i + 6], "big")
            for i in range(0, len(payload), 6)
        }
        if settings.get(_SETTINGS_HEADER_TABLE_SIZE, 4096) < 4096:
            raise RuntimeError("the server's header table is smaller than the protocol's default")
        self.transport.write(_frame(_FRAME_SETTINGS, _ACK, 0, b""))
        if not self.opened.done():
            self.opened.set_result(None)

    def _complete(self) -> None:
        """A stream has ended: a unary success carries exactly one message, a failure none."""
        answer = bytes(self._answer)
        self._answer.clear()
        if len(answer) < 5 or answer[0] or len(answer) != 5 + int.from_bytes(answer[1:5], "big"):
            self.tally.fail(f"no whole message in the answer ({len(answer)} bytes)")
        elif self.sent % CHECK_EVERY == 1:
            message = pb.ModelInferResponse.FromString(answer[5:])
            raw = {
                output.name: raw
                for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
            }
            found = np.frombuffer(raw.get("probabilities", b""), "<f4")
            self.tally.compare(self.index, found.tolist())
        self.answered()


async def connect(orders: Orders, make: Callable[[int], Connection], count: int) -> list[Any]:
    """Open so many connections, each made from its number and ready to be sent on.

    Raises:
        OSError, TimeoutError: The server does not take one.
    """
    loop = asyncio.get_running_loop()
    made = []
    for number in range(count):
        _, connection = await loop.create_connection(
            lambda number=number: make(number),  # type: ignore[misc]
            orders.host,
            orders.port,
        )
        await asyncio.wait_for(connection.opened, CONNECT_SECONDS)
        made.append(connection)
    return made


async def keep_busy(tally: Tally, connections: list[Any], seconds: float) -> float:
    """Keep a request in flight on each for so long; the seconds until the last answer."""
    start = time.perf_counter()
    tally.stop_at = start + seconds
    for connection in connections:
        connection.send()
    # A server that stops answering must not hold the benchmark: some seconds of grace, then
    # whoever is still waiting counts as failed.
    ended = [connection.ended for connection in connections]
    _, unanswered = await asyncio.wait(ended, timeout=seconds + GRACE_SECONDS)
    for _ in unanswered:
        tally.fail(f"no answer within {GRACE_SECONDS:g} s")
    return time.perf_counter() - start


async def _run(orders: Orders, wait_for_go: Callable[[], None]) -> Result:
    tally = Tally(orders)
    kind = {"http": HttpConnection, "grpc": GrpcConnection}[orders.protocol]
    connections = await connect(orders, lambda number: kind(tally, number), orders.connections)
    print("ready", flush=True)
    wait_for_go()
    seconds = await keep_busy(tally, connections, orders.seconds)
    p50 = p99 = None
    if tally.latencies:
        p50, p99 = (np.percentile(tally.latencies, (50, 99)) * 1e6).tolist()
    return Result(
        len(tally.latencies), tally.failed, seconds, p50, p99, tally.checked, tally.problem
    )


def main() -> None:
    """Take orders from standard input, print the result."""
    orders = msgspec.json.decode(sys.stdin.readline(), type=Orders)
    result = uvloop.run(_run(orders, lambda: None if sys.stdin.readline() else sys.exit(1)))
    print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
