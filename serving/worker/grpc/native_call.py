"""A call of the native front, as our methods see it."""

import asyncio
import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc

__all__ = ["Details", "NativeCall"]

Metadata = Sequence[tuple[str, str | bytes]]
Details = tuple[Metadata, str, float | None]
"""Metadata, peer, seconds to the deadline."""


def _stream_full() -> int:
    full: int = importlib.import_module("pygrpc_native").STREAM_FULL
    return full


class NativeCall:
    """The part of grpc.aio's servicer context that our methods use."""

    __slots__ = ("_details", "_front", "_trailing", "number")

    def __init__(self, front: Any, number: int, details: Details) -> None:
        self.number = number
        self._front = front
        self._details = details
        self._trailing: Metadata = ()

    def peer(self) -> str:
        """Who asks."""
        return self._details[1]

    def invocation_metadata(self) -> Metadata:
        """What the client sent, in order."""
        return self._details[0]

    def time_remaining(self) -> float | None:
        """Seconds to the deadline when the call arrived; None if it has none."""
        return self._details[2]

    def trailing_metadata(self) -> Metadata:
        """What goes back with the status."""
        return self._trailing

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Replace what goes back with the status."""
        self._trailing = trailing_metadata

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """End the call with a status that is not OK."""
        self.fail(code.value[0], details)
        raise grpc.aio.AbortError

    async def write(self, message: bytes) -> None:
        """Send one message of a stream; wait while the client is behind.

        Nothing happens if the client has gone: the front has the call cancelled then.
        """
        front = self._front
        if front.stream_try_send(self.number, message) == _stream_full():
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, front.stream_send, self.number, message)

    def respond(self, message: bytes) -> None:
        """Send the only message of a unary call, and the status OK."""
        if self._trailing:
            self._front.respond(self.number, message, None, self._trailing)
        else:
            self._front.respond(self.number, message)

    def end(self) -> None:
        """Send a stream's status OK."""
        self._front.stream_end(self.number, self._trailing)

    def fail(self, code: int, details: str) -> None:
        """End the call with a status that is not OK; nothing happens if it has ended."""
        self._front.fail(self.number, code, details, self._trailing)
