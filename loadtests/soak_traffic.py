"""The soak test's load generator: closed loop, a process of its own, requests by number.

Its arguments are in `Orders`, one JSON line on standard input. Then each further line says how
many requests to send; when all have had their answer, a `Done` is printed as JSON. Connections stay
open between, for `LIFE` requests at most; some callers hang up in the middle of a request.
"""

import asyncio
import collections
import sys
from collections.abc import Iterator
from typing import Any, Final

import bench_load
import httptools
import msgspec
import soak_requests
import uvloop
from soak_requests import Request, draw

__all__ = ["Done", "Orders"]

LIFE: Final = 200
"""Requests of one connection."""

PATIENCE_SECONDS: Final = 90.0
AGAIN_SECONDS: Final = 0.05


class Orders(msgspec.Struct):
    """Where to, over how many connections (HTTP, gRPC); `even`: every kind alike."""

    http: str
    grpc: str
    connections: tuple[int, int]
    even: bool = False


class Done(msgspec.Struct):
    """What became of the requests: how many of each kind were answered with which status.

    `wrong` counts answers that their kind does not allow and answers that did not come.
    """

    answered: dict[str, int]
    wrong: int
    connections: int
    """Opened so far."""

    problem: str = ""


class Turns:
    """How many requests are still to be sent, and what became of the others."""

    def __init__(self) -> None:
        self.left = 0
        self.waiting = 0
        self.connections = 0
        self.wrong = 0
        self.problem = ""
        self.answered: collections.Counter[str] = collections.Counter()
        self.over = asyncio.Event()

    def take(self) -> bool:
        """One more request, if any is left."""
        if self.left <= 0:
            return False
        self.left -= 1
        self.waiting += 1
        return True

    def end(self, request: Request, status: int | None, protocol: str, words: str = "") -> None:
        """Count what became of a request; None: no answer."""
        self.waiting -= 1
        if request.leaves is not None:
            status = None
        elif status not in request.expected:
            self.wrong += 1
            self.problem = self.problem or (
                f"{protocol}, {request.kind}: answered {status} instead of "
                f"{sorted(request.expected)}: {words}"
            )
        self.answered[f"{protocol} {request.kind}: {'-' if status is None else status}"] += 1
        if self.left <= 0 and self.waiting <= 0:
            self.over.set()


class Caller:
    """One place in the closed loop: a request at a time, on connections of limited life."""

    def __init__(self, turns: Turns, requests: Iterator[Request], address: str) -> None:
        self.turns = turns
        self.requests = requests
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.line: HttpLine | GrpcLine | None = None
        self.idle = True
        self._task: asyncio.Task[None] | None = None

    def make(self) -> "HttpLine | GrpcLine":
        """A connection that is not yet open."""
        raise NotImplementedError

    def go(self) -> None:
        """Send the next request, over a connection that is opened if need be."""
        line = self.line
        if line is None or line.gone or line.used >= LIFE:
            if line is not None and not line.gone:
                line.leave()
            self.line = None
            self._task = asyncio.get_running_loop().create_task(self._connect())
            return
        if not self.turns.take():
            self.idle = True
            return
        self.idle = False
        line.ask(next(self.requests))

    async def _connect(self) -> None:
        if self.turns.left <= 0:
            self.idle = True
            return
        self.idle = False
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, line = await loop.create_connection(self.make, self.host, self.port)
                async with asyncio.timeout(10):
                    await line.opened
            except (OSError, TimeoutError):
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                break
        self.turns.connections += 1
        self.line = line
        self.go()


class HttpCaller(Caller):
    """Over HTTP/1.1."""

    def make(self) -> "HttpLine":
        return HttpLine(self)


class HttpLine(asyncio.Protocol):
    """A connection with a request on it, or none."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._request: Request | None = None
        self._transport: Any = None
        self.used = 0
        self.gone = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Open."""
        self._transport = transport
        self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """A request that was on it has got no answer."""
        self.gone = True
        self._end(None, f"the connection was closed: {exc}")

    def leave(self) -> None:
        """Hang up."""
        self.gone = True
        self._transport.close()

    def ask(self, request: Request) -> None:
        """Send a request, or as much of it as its caller stays for."""
        self._request = request
        self.used += 1
        self._transport.write(request.content[: request.leaves])
        if request.leaves is not None:
            self.leave()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Part of a body (httptools)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """A whole answer (httptools)."""
        words = b"".join(self._body)[:300].decode(errors="replace")
        self._body.clear()
        if not self._parser.should_keep_alive():
            self.leave()
        self._end(self._parser.get_status_code(), words)

    def _end(self, status: int | None, words: str) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._caller.turns.end(request, status, "http", words)
            self._caller.go()


class GrpcCaller(Caller):
    """Over gRPC, one call at a time."""

    def make(self) -> "GrpcLine":
        return GrpcLine(self)


class GrpcLine(bench_load.GrpcConnection):
    """The benchmark's client, for any request and any status."""

    def __init__(self, caller: Caller) -> None:
        orders = bench_load.Orders(
            protocol="grpc", host=caller.host, port=caller.port, path="", connections=1,
            seconds=0, messages=[], expected=[],
        )  # fmt: skip
        super().__init__(bench_load.Tally(orders), 0)
        self._caller = caller
        self._request: Request | None = None
        self.gone = False

    @property
    def used(self) -> int:
        """Requests so far."""
        return self.sent

    def connection_lost(self, exc: Exception | None) -> None:
        """A call that was on it has got no answer."""
        self.gone = True
        if not self.opened.done():
            self.opened.set_result(None)
        self._end(None, f"the connection was closed: {exc}")

    def leave(self) -> None:
        """Hang up."""
        self.gone = True
        self.transport.close()

    def ask(self, request: Request) -> None:
        """Call; whoever leaves does so with the call under way."""
        self._request = request
        self._messages = [b"\0" + len(request.content).to_bytes(4, "big") + request.content]
        self.sent += 1
        self.write()
        if request.leaves is not None:
            self.leave()

    def _complete(self) -> None:
        """A call has ended: with a message it went well."""
        status = soak_requests.GRPC_OK if self._answer else soak_requests.GRPC_FAILED
        self._answer.clear()
        self._end(status, "")

    def _end(self, status: int | None, words: str) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._caller.turns.end(request, status, "grpc", words)
            self._caller.go()


async def _serve(orders: Orders) -> None:
    turns = Turns()
    callers: list[Caller] = []
    for number in range(sum(orders.connections)):
        http = number < orders.connections[0]
        kinds = soak_requests.HTTP if http else soak_requests.GRPC
        requests = draw(kinds, number, even=orders.even)
        if http:
            callers.append(HttpCaller(turns, requests, orders.http))
        else:
            callers.append(GrpcCaller(turns, requests, orders.grpc))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        turns.over.clear()
        turns.left = int(line)
        for caller in callers:
            if caller.idle:
                caller.go()
        try:
            await _until_over(turns)
        except TimeoutError:
            turns.wrong += turns.waiting
            turns.problem = f"no answer within {PATIENCE_SECONDS:g} s to {turns.waiting} requests"
        done = Done(
            answered=dict(turns.answered),
            wrong=turns.wrong,
            connections=turns.connections,
            problem=turns.problem,
        )
        turns.answered.clear()
        turns.wrong, turns.problem = 0, ""
        print(msgspec.json.encode(done).decode(), flush=True)


async def _until_over(turns: Turns) -> None:
    """Wait for the last answer. Raises TimeoutError when nothing moves any more."""
    while not turns.over.is_set():
        seen = turns.left, turns.waiting
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await turns.over.wait()
        except TimeoutError:
            if (turns.left, turns.waiting) == seen:
                raise


def main() -> None:
    """Take orders from standard input, print what became of them."""
    uvloop.run(_serve(msgspec.json.decode(sys.stdin.readline(), type=Orders)))


if __name__ == "__main__":
    main()
