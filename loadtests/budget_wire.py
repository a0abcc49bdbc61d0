"""What stands around a worker that is counted: a loop without timers, wires without sockets.

Bytes go in by `data_received` and come out by `write`, so that what is counted is ours, and the
same on every run. Whatever the kernel and libuv do with a socket is neither in the gateway's
figures nor in the floor's.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import hiredis
import uvloop

__all__ = ["Answers", "GrpcCall", "Loop", "StoreRows", "Wire"]

_FAR_SECONDS: Final = 1e6


class StoreRows:
    """What the stand-in for the feature store holds: rows, and field lists by view and id."""

    def __init__(
        self, rows: Mapping[bytes, bytes], field_lists: Mapping[bytes, Mapping[bytes, bytes]]
    ) -> None:
        self._rows = rows
        self._field_lists = field_lists

    def answer(self, words: list[bytes]) -> bytes:
        """Answer one command in RESP3, as a store would that says little."""
        match words:
            case [b"HELLO", *_]:
                return b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
            case [b"CLIENT", *_]:
                return b"+OK\r\n"
            case [b"MGET", *keys]:
                return b"*%d\r\n" % len(keys) + b"".join([_bulk(self._rows.get(k)) for k in keys])
            case [b"HGETALL", key]:
                found = self._field_lists.get(key, {})
                parts = [_bulk(part) for pair in found.items() for part in pair]
                return b"%%%d\r\n" % len(found) + b"".join(parts)
        return b"-ERR the stand-in knows nothing of %b\r\n" % words[0]


def _bulk(value: bytes | None) -> bytes:
    return b"_\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


class Answers:
    """Waits for a number of answers, and keeps the last of each connection.

    `told`, if there is one, is called at every answer.
    """

    def __init__(self, count: int) -> None:
        self.last: list[bytes] = [b""] * count
        self.told: Callable[[], None] | None = None
        self._missing = 0
        self._all: asyncio.Future[None]

    def expect(self, count: int) -> "asyncio.Future[None]":
        """A future that is done when so many have come."""
        self._missing = count
        self._all = asyncio.get_running_loop().create_future()
        return self._all

    def take(self, number: int, answer: bytes) -> None:
        """Take the answer of one connection."""
        if self.told is not None:
            self.told()
        self.last[number] = answer
        self._missing -= 1
        if not self._missing:
            self._all.set_result(None)


class Wire(asyncio.Transport):
    """A connection's transport: hands on what is written, a whole answer at a time."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        super().__init__()
        self.written = written
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        """Hand it on."""
        self.written(data)

    def writelines(self, list_of_data: Any) -> None:
        """Hand it on as one."""
        self.written(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing is ever left."""
        return 0

    def abort(self) -> None:
        """Nothing to give up."""

    def close(self) -> None:
        """Nothing to close."""


class Loop(uvloop.Loop):
    """Uvloop, but timers never fire, and connections are `Wire`s.

    Timers would fire as often as the machine is slow. What they do for the gateway (counters
    brought up to date) whoever counts has done at fixed points instead. They are still made and
    cancelled, at their usual price.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = StoreRows({}, {})
        self.accepted: asyncio.Queue[Wire] = asyncio.Queue()

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        """A timer that does not fire."""
        return super().call_later(delay + _FAR_SECONDS, callback, *args, context=context)

    async def connect_accepted_socket(
        self, protocol_factory: Callable[[], Any], sock: Any, **options: Any
    ) -> tuple[Any, Any]:
        """Open a connection without the socket; it waits in `accepted`."""
        del sock, options
        wire = Wire(_nobody)
        wire.protocol = protocol_factory()
        wire.protocol.connection_made(wire)
        self.accepted.put_nowait(wire)
        return wire, wire.protocol

    async def create_unix_connection(
        self, protocol_factory: Callable[[], Any], path: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """Connect to the stand-in for the store, which answers in a later turn of the loop.

        What it answered once it knows by heart: its own work is hardly part of any figure.
        """
        del path, options
        protocol, known = protocol_factory(), dict[bytes, bytes]()

        def written(data: bytes) -> None:
            reply = known.get(data)
            if reply is None:
                reader = hiredis.Reader()
                reader.feed(data)
                commands = iter(reader.gets, False)
                reply = known[data] = b"".join([self.store.answer(one) for one in commands])
            self.call_soon(protocol.data_received, reply)

        wire = Wire(written)
        protocol.connection_made(wire)
        return wire, protocol


def _nobody(data: bytes) -> None:
    raise AssertionError(f"written before anybody asked: {data[:80]!r}")


class GrpcCall:
    """A call as servicers see it, of a client that sends no deadline and reads no metadata."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What gRPC's own Python client sends."""
        return (("user-agent", "grpc-python/1.85.1 grpc-c/55.0.0 (linux; chttp2)"),)

    def time_remaining(self) -> None:
        """No deadline."""

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """Nothing yet."""
        return ()

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Nobody reads it."""

    async def abort(self, code: Any, details: str = "") -> None:
        """The answer was not OK, which here is a mistake."""
        raise AssertionError(f"a call ended with {code}: {details}")
