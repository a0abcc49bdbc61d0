"""ModelInfer over the native front without a task: the plane calls when it has the answer.

A call that waits for no more than its inference costs neither a coroutine nor a turn of the event
loop of its own; where it waits for more, the plane makes a task of it (`reply.InTask`).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc

from serving.protocol import grpc as codec
from serving.types import Call, InferRequest, InferResponse
from serving.worker.grpc.call import Edge, InFlight, tell_trace
from serving.worker.grpc.native_call import Details, NativeCall
from serving.worker.reply import Pending, Reply

__all__ = ["GOING", "UNAVAILABLE", "Begin", "Exchanges"]

UNAVAILABLE: Final[int] = grpc.StatusCode.UNAVAILABLE.value[0]
GOING: Final = "the server is shutting down"

Begin = Callable[[bytes, Any, Reply], Pending]
"""Starts on a message; who waits for it is told. Raises what is refused at once."""


class _Exchange(NativeCall):
    """One call, and what it waits for; told the answer (`Reply`)."""

    __slots__ = ("_all", "pending")

    def __init__(self, every: "Exchanges", front: Any, number: int, details: Details) -> None:
        super().__init__(front, number, details)
        self._all = every
        self.pending: Pending | None = None

    def answered(self, request: InferRequest, call: Call, response: InferResponse) -> None:
        """Send the answer."""
        try:
            if call.traceresponse is not None:
                tell_trace(call.traceresponse, self)
            message = codec.encode_infer(request, response)
        except Exception as error:  # noqa: BLE001 - the edge: every caller is answered
            self.failed(error)
            return
        self.respond(message)
        self._all.ended(self)

    def failed(self, error: Exception) -> None:
        """Send why there is no answer."""
        code, words = self._all.edge.refusal(self, error)
        self.fail(code.value[0], words)
        self._all.ended(self)


class Exchanges:
    """Every ModelInfer that has begun and is not answered, by its number.

    Args:
        begin: the service's.
        edge: makes statuses of errors.
        in_flight: where they are counted.
    """

    def __init__(self, begin: Begin, edge: Edge, in_flight: InFlight) -> None:
        self.edge = edge
        self._begin = begin
        self._in_flight = in_flight
        self._open: dict[int, _Exchange] = {}

    def start(self, front: Any, number: int, message: bytes, details: Details) -> None:
        """Begin a call; it is answered whatever happens."""
        exchange = self._open[number] = _Exchange(self, front, number, details)
        self._in_flight.enter()
        try:
            exchange.pending = self._begin(message, exchange, exchange)
        except Exception as error:  # noqa: BLE001 - the edge: every caller is answered
            exchange.failed(error)

    def ended(self, exchange: _Exchange) -> None:
        """A call has been answered."""
        if self._open.pop(exchange.number, None) is not None:
            self._in_flight.leave()

    def peers(self) -> set[str]:
        """Whose calls are not answered yet."""
        return {exchange.peer() for exchange in self._open.values()}

    def cancel(self, number: int) -> "asyncio.Task[None] | None":
        """Give a call up: its client left, its deadline passed, or the server goes.

        Returns what still has to end, if anything has. Nothing happens if it has been answered.
        """
        exchange = self._open.pop(number, None)
        if exchange is None:
            return None
        pending, exchange.pending = exchange.pending, None
        left = pending.cancel() if pending is not None else None
        # A client that left hears nothing; one that is cut off because time is up does.
        exchange.fail(UNAVAILABLE, GOING)
        if left is None:
            self._in_flight.leave()
        else:
            left.add_done_callback(lambda _: self._in_flight.leave())
        return left

    async def cut(self) -> None:
        """Give up all that are left."""
        left = [self.cancel(number) for number in list(self._open)]
        await asyncio.gather(*[task for task in left if task is not None], return_exceptions=True)
