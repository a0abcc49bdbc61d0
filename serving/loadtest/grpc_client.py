"""Requests over gRPC: `grpc.aio` channels with a connection each, many calls at a time on one."""

import asyncio
from collections.abc import Callable
from itertools import cycle
from typing import Any, Final

import grpc
import grpc.aio

from serving.loadtest.answers import Wrong, read_grpc
from serving.loadtest.bodies import Bodies
from serving.loadtest.outcomes import Outcomes
from serving.loadtest.target import TargetUnreachable
from serving.loadtest.turns import Turns
from serving.loadtest.wire import Orders
from serving.protocol._generated import inference_pb2 as pb

__all__ = ["GrpcClient"]

_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_OPEN_SECONDS: Final = 5.0
_STREAMS: Final = 100
"""Calls at a time on one connection; the number that servers usually allow (RFC 9113, 6.5.2)."""

_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each channel
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcClient:
    """The same as `http_client.HttpClient`, over gRPC."""

    def __init__(
        self,
        orders: Orders,
        bodies: list[Bodies],
        turns: Turns,
        outcomes: Outcomes,
        *,
        freed: Callable[[], None],
    ) -> None:
        self._target = orders.target
        self._bodies = bodies
        self._kinds = orders.kinds
        self._turns = turns
        self._outcomes = outcomes
        self._count = orders.connections
        self._tls = orders.tls
        self._freed = freed
        bearer = {"authorization": f"Bearer {orders.token}"} if orders.token else {}
        every = {**orders.headers, **bearer}
        self._metadata = [
            tuple((name.lower(), value) for name, value in {**every, **kind.headers}.items())
            for kind in orders.kinds
        ]
        self._channels: list[grpc.aio.Channel] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._next: Any = None

    async def open(self) -> None:
        """Connect. Raises TargetUnreachable."""
        target = self._target
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                # gRPC itself says little about why nobody answers.
                _, writer = await asyncio.open_connection(target.host, target.port)
                writer.close()
        except OSError as error:
            why = error.strerror or "no connection in time"
            raise TargetUnreachable(f"nobody answers at {target}: {why}") from error
        for _ in range(self._count):
            self._channels.append(self._channel())
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        except TimeoutError as error:
            await self.close()
            raise TargetUnreachable(
                f"{target} takes connections but does not speak gRPC"
                f"{' over TLS with these certificates' if target.secure else ''}"
            ) from error
        calls = [
            channel.unary_unary(
                _METHOD,
                request_serializer=None,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            for channel in self._channels
        ]
        self._next = cycle(calls).__next__

    def _channel(self) -> grpc.aio.Channel:
        address, options = self._target.authority, list(_OPTIONS)
        if self._tls is None:
            return grpc.aio.insecure_channel(address, options)
        return grpc.aio.secure_channel(address, self._tls.grpc_credentials(), options)

    def free(self) -> bool:
        """Whether a request can leave now."""
        return len(self._calls) < self._count * _STREAMS

    def send(self, index: int) -> None:
        """Send a request; only when `free`."""
        kind = self._turns.kind[index]
        message, _ = self._bodies[kind].make(self._turns.offset[index], self._turns.rows[index])
        self._outcomes.sent(index, len(message))
        task = asyncio.get_running_loop().create_task(self._call(index, kind, message))
        self._calls.add(task)
        task.add_done_callback(self._ended)

    def give_up(self) -> None:
        """Nothing: gRPC ends calls by itself when their time is over."""

    async def close(self) -> None:
        """Hang up."""
        for task in self._calls:
            task.cancel()
        for channel in self._channels:
            await channel.close(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.result()
        self._freed()

    async def _call(self, index: int, kind: int, message: bytes) -> None:
        turns, outcomes = self._turns, self._outcomes
        left = turns.left(index)
        wait = turns.times[index] + turns.timeout - turns.now()
        allowed = max(wait if left is None else min(wait, left), 1e-6)
        try:
            answer = await self._next()(message, timeout=allowed, metadata=self._metadata[kind])
        except grpc.aio.AioRpcError as error:
            now = turns.now()
            status, words = error.code().name, error.details() or ""
            given_up = turns.times[index] + min(turns.timeout, turns.deadline or turns.timeout)
            # Our own clock ends a call as the server's would; only one of the two is an answer.
            unanswered = (status == "DEADLINE_EXCEEDED" and now >= given_up) or _unreached(
                status, words
            )
            outcomes.failed(index, now, status, words, answered=not unanswered)
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, this request has ended
            words = f"{type(error).__name__}: {error}"
            outcomes.failed(index, turns.now(), "unreadable", words, answered=False)
            return
        now, size = turns.now(), answer.ByteSize()
        read = read_grpc(answer, self._kinds[kind].expected, turns.rows[index])
        if isinstance(read, Wrong):
            outcomes.failed(index, now, read.status, read.words, answered=True, size=size)
            return
        outcomes.succeeded(index, now, "OK", read, size)


def _unreached(status: str, words: str) -> bool:
    words = words.lower()
    return status == "UNAVAILABLE" and ("connect" in words or "socket closed" in words)
