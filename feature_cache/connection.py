"""One RESP3 connection for everybody: commands of one turn of the loop leave in one write.

Replies come in the order of the commands, so each command owns one place in a queue until its
reply is there. Nobody who gives up waiting takes that place away: `deliver` is called exactly
once a command, with the reply or an exception, whoever still listens.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis

from feature_cache.errors import StoreRefused, Unavailable

__all__ = ["Connection", "Deliver", "command"]

Deliver = Callable[[Any], None]
_NOTHING: Final = object()
_SESSION_LOST: Final = frozenset({"NOAUTH", "WRONGPASS"})


def command(*words: bytes) -> bytes:
    """A command as RESP bytes."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class Connection(asyncio.Protocol):
    """Hold at most `max_in_flight` commands without a reply; one more is `Unavailable` at once.

    Args:
        on_push: called with each push message (a list) as it stands between the replies.
        on_lost: called once, when the connection is gone and every command has been answered.
        max_in_flight: bound on commands sent or about to be.
    """

    def __init__(
        self,
        *,
        on_push: Callable[[Sequence[Any]], None],
        on_lost: Callable[["Connection"], None],
        max_in_flight: int = 4096,
    ) -> None:
        self._on_push = on_push
        self._on_lost = on_lost
        self._max = max_in_flight
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[Deliver] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.reason = ""
        """Why the connection ended, once it has."""

    @property
    def in_flight(self) -> int:
        """Commands without a reply."""
        return len(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's: it stands."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def submit(self, packed: bytes, deliver: Deliver) -> None:
        """Send a command with this turn's others; `deliver` gets the reply or an exception.

        `StoreRefused` is the store's own error, `Unavailable` ours.
        """
        if self._transport is None:
            deliver(Unavailable(self.reason or "the connection to the store is gone"))
            return
        if len(self._waiting) >= self._max:
            deliver(Unavailable("too many commands wait for the store"))
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._waiting.append(deliver)

    async def call(self, *words: bytes, patience: float) -> Any:
        """Send one command and wait for its reply, at most `patience` seconds.

        Raises:
            StoreRefused: the store's error. Unavailable: no reply in time, or no connection.
        """
        future: asyncio.Future[Any] = self._loop.create_future()

        def deliver(reply: Any) -> None:
            if not future.done():
                future.set_result(reply)

        self.submit(command(*words), deliver)
        try:
            async with asyncio.timeout(patience):
                reply = await future
        except TimeoutError:
            raise Unavailable("the store does not answer") from None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def abort(self, reason: str) -> None:
        """Give the connection up; every command without a reply is `Unavailable`."""
        transport = self._transport
        if transport is not None:
            self._end(reason)
            transport.abort()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        """Asyncio's: bytes came, some whole replies among them, perhaps."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while self._transport is not None and (reply := reader.gets()) is not _NOTHING:
                if isinstance(reply, hiredis.PushNotification):
                    self._on_push(reply)
                elif waiting:
                    self._answer(waiting.popleft(), reply)
                else:
                    self.abort("the store answered what nobody had asked")
        except hiredis.ProtocolError as error:
            self.abort(f"the store does not speak RESP3: {error}")

    def _answer(self, deliver: Deliver, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            reply = StoreRefused(str(reply))
            deliver(reply)
            if reply.code in _SESSION_LOST:
                self.abort("the store no longer knows who we are")
        else:
            deliver(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's: it is gone."""
        self._end(str(exc) if exc else "the store closed the connection")

    def _end(self, reason: str) -> None:
        if self._transport is None:
            return
        self._transport, self.reason = None, reason
        waiting, self._waiting = self._waiting, deque()
        for deliver in waiting:
            deliver(Unavailable(reason))
        self._on_lost(self)
