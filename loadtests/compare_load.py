"""The comparison's load generator: one process a server, told phase by phase what to do.

Reads its orders as one JSON line on standard input, says `ready`, and then takes a phase a line and
answers each with its result, until standard input ends:

    closed   so many connections, one request in flight on each, the next when the answer is there
    open     requests at random times (Poisson) at a fixed rate, whatever became of those before;
             latency counts from the time at which a request was due

Connections are those of bench_load.py, written to the bytes, and the schedule that of `sluice
loadtest`. Every answer must say success, and of every connection the first and then one in sixteen
is decoded and compared with what the model says.
"""

import gc
import sys
import time
from collections import deque
from typing import Any, Final

import bench_load
import msgspec
import numpy as np
import orjson
import uvloop
from bench_load import Connection, GrpcConnection, HttpConnection, Tally, connect, keep_busy

from serving.loadtest.arrivals import Piece, arrivals
from serving.loadtest.generator import Generator
from serving.loadtest.outcomes import Facts, Outcomes
from serving.loadtest.turns import Turns

__all__ = ["Orders", "Phase", "Result"]

OPEN_CONNECTIONS: Final = 64
"""Enough that a request finds one free: those that wait for an answer are far fewer."""

TIMEOUT_SECONDS: Final = 10.0
SEED: Final = 7


class Orders(bench_load.Orders, kw_only=True):
    """What to send and where; `connections` and `seconds` are each phase's own.

    `protocol` is `http`, `binary` or `grpc`; for `binary`, `json_lengths` says how many bytes of
    each message are JSON.
    """

    json_lengths: list[int] = []  # noqa: RUF012 - msgspec copies it


class Phase(msgspec.Struct):
    """One part of the run: open at `rate` requests a second, closed where `rate` is 0."""

    seconds: float
    connections: int = OPEN_CONNECTIONS
    rate: float = 0.0


class Result(msgspec.Struct):
    """What a phase saw; times in seconds, None where nothing was answered.

    `failed` counts answers that were no success or not the expected numbers and requests without
    any; `problem` describes the first. `late` is the 99th percentile of how late requests left.
    """

    requests: int
    failed: int
    checked: int
    seconds: float
    p50: float | None
    p99: float | None
    late: float = 0.0
    problem: str = ""


class BinaryConnection(HttpConnection):
    """HTTP/1.1 with the protocol's binary tensors, both ways."""

    def __init__(self, tally: Tally, number: int) -> None:
        super().__init__(tally, number)
        self._json_length = 0

    def headers(self, number: int) -> str:
        lengths = self.tally.orders.json_lengths  # type: ignore[attr-defined]
        return (
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {lengths[number]}\r\n"
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of an answer (httptools)."""
        if name.lower() == b"inference-header-content-length":
            self._json_length = int(value)

    def probabilities(self, body: bytes) -> list[float]:
        place = self._json_length
        for output in orjson.loads(body[:place])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            if output["name"] == "probabilities":
                return np.frombuffer(body[place : place + size], "<f4").tolist()
            place += size
        return []


CLOSED: Final[dict[str, type[Connection]]] = {
    "http": HttpConnection,
    "binary": BinaryConnection,
    "grpc": GrpcConnection,
}


async def closed(orders: Orders, phase: Phase) -> Result:
    """Keep `phase.connections` requests in flight for `phase.seconds`."""
    tally = Tally(orders)
    kind = CLOSED[orders.protocol]
    connections = await connect(orders, lambda number: kind(tally, number), phase.connections)
    seconds = await keep_busy(tally, connections, phase.seconds)
    return _result(tally, np.array(tally.latencies), seconds)


def _result(tally: Tally, latencies: Any, seconds: float, late: float = 0.0) -> Result:
    p50, p99 = np.percentile(latencies, (50, 99)).tolist() if len(latencies) else (None, None)
    return Result(
        len(latencies), tally.failed, tally.checked, seconds, p50, p99, late, tally.problem
    )


# --- open loop ---------------------------------------------------------------------------------


class OpenClient:
    """Connections on which `Generator` sends what is due; the seam is its `Client`."""

    def __init__(self, orders: Orders, tally: Tally, turns: Turns, outcomes: Outcomes) -> None:
        self.generator: Generator | None = None
        self._orders = orders
        self._tally = tally
        self._turns = turns
        self._outcomes = outcomes
        self._idle: deque[Any] = deque()
        self._all: list[Any] = []

    async def open(self) -> None:
        """Connect."""
        kind = OPEN[self._orders.protocol]
        self._all = await connect(
            self._orders, lambda number: kind(self, self._tally, number), OPEN_CONNECTIONS
        )
        self._idle.extend(self._all)

    def free(self) -> bool:
        """Whether a request can leave now."""
        return bool(self._idle)

    def send(self, index: int) -> None:
        """Send request `index` of the schedule."""
        connection = self._idle.popleft()
        connection.turn = index
        self._outcomes.sent(index, 0)
        connection.send()

    def answered(self, connection: Any) -> None:
        """A connection has its answer, right or wrong: the tally has looked at it."""
        turn, connection.turn = connection.turn, -1
        if turn >= 0:
            self._outcomes.succeeded(turn, self._turns.now(), "answered", NOTHING, 0)
            self._idle.append(connection)
            assert self.generator is not None
            self.generator.freed()

    def lost(self, connection: Any) -> None:
        """A connection was closed by the server; none is opened in its place."""
        turn, connection.turn = connection.turn, -1
        if turn >= 0:
            self._outcomes.failed(turn, self._turns.now(), "closed", "", answered=False)
        elif connection in self._idle:
            self._idle.remove(connection)

    def give_up(self) -> None:
        """End requests that have waited too long."""
        for connection in self._all:
            if connection.turn >= 0 and self._turns.over(connection.turn):
                self._tally.fail(f"no answer within {TIMEOUT_SECONDS:g} s")
                self.lost(connection)

    async def close(self) -> None:
        """Hang up."""
        for connection in self._all:
            if not connection.ended.done():
                connection.ended.set_result(None)
            connection.transport.close()


NOTHING: Final = Facts()


class _OpenTurn(Connection):
    """A connection that tells its client of each answer and sends nothing by itself."""

    def __init__(self, client: OpenClient, tally: Tally, number: int) -> None:
        super().__init__(tally, number)
        self.client = client
        self.turn = -1

    def answered(self) -> None:
        self.client.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.client.lost(self)


class _OpenHttp(_OpenTurn, HttpConnection):
    pass


class _OpenBinary(_OpenTurn, BinaryConnection):
    pass


class _OpenGrpc(_OpenTurn, GrpcConnection):
    pass


OPEN: Final[dict[str, type[_OpenTurn]]] = {
    "http": _OpenHttp,
    "binary": _OpenBinary,
    "grpc": _OpenGrpc,
}


async def opened(orders: Orders, phase: Phase) -> Result:
    """Send at `phase.rate`, evenly at random; the same times for every server and round."""
    every = Piece(0.0, phase.seconds, phase.rate, phase.rate)
    times = arrivals([every], random=np.random.default_rng(SEED))
    nothing = np.zeros(len(times), np.int64)
    turns = Turns(
        times=times, kind=nothing, rows=nothing, offset=nothing, deadline=None,
        timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    outcomes, tally = Outcomes(len(times)), Tally(orders)
    client = OpenClient(orders, tally, turns, outcomes)
    generator = client.generator = Generator(turns, outcomes)
    await client.open()
    start = time.monotonic()
    await generator.run(client, start + 0.05, lambda: None)
    await client.close()
    for _ in range(int((~outcomes.ok).sum()) - tally.failed):
        tally.fail("a request found no connection free, or its connection was closed")
    took = (outcomes.ended - times)[outcomes.ok]
    late = float(np.percentile(outcomes.lag, 99)) if len(times) else 0.0
    return _result(tally, took, time.monotonic() - start, late)


# --- the process -------------------------------------------------------------------------------


def main() -> None:
    """Take orders and phases from standard input, print a result each."""
    orders = msgspec.json.decode(sys.stdin.readline(), type=Orders)
    # What is there now stays; collecting it again and again would only make requests late.
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        phase = msgspec.json.decode(line, type=Phase)
        run = opened if phase.rate else closed
        try:
            result = uvloop.run(run(orders, phase))
        except OSError as error:  # TimeoutError is one
            words = str(error) or "no connection in time"
            result = Result(0, 1, 0, 0.0, None, None, problem=words)
        print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
