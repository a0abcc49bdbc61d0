"""The socket's side of one HTTP connection: back-pressure, half-closing, lingering, leaving."""

import asyncio
import socket

from serving.worker.http.responses import CONTINUE

__all__ = ["Flow"]


class Flow:
    """What a connection does to its transport besides writing answers."""

    __slots__ = ("_probed", "_reading", "_transport", "_unsent", "blocked", "ended", "tls")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reading = True
        self._probed = False
        self._unsent = 0
        self.tls = transport.get_extra_info("sslcontext") is not None
        self.blocked = False
        """The client does not read: the write buffer is full."""
        self.ended = False
        """The client sends no more."""

    def stop_reading(self) -> None:
        """Let the kernel's buffers fill, and so slow the client down."""
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def read_on(self) -> None:
        """Take what the client sends again."""
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def note_unsent(self) -> int:
        """Remember, and return, how many bytes are still to be sent."""
        self._unsent = self._transport.get_write_buffer_size()
        return self._unsent

    def is_draining(self) -> bool:
        """Whether there are bytes to be sent, but fewer than at the last look."""
        before = self._unsent
        return 0 < self.note_unsent() < before

    def finish(self) -> None:
        """Send what is written and a FIN; the client's own ends the connection.

        Closing at once would reset a connection on which the client is still sending, and
        the reset could destroy the answer on its way.
        """
        transport = self._transport
        if transport.is_closing():
            return
        if self.ended or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self.read_on()

    def probe(self, *, interim: bool) -> None:
        """Find out whether a client that sends no more still reads.

        The first call sends it an interim answer if it knows such (HTTP/1.1); a client that
        has closed responds with a reset, which later calls look for.
        """
        if not self._probed:
            self._probed = True
            if interim:
                self._transport.write(CONTINUE)
            return
        connection = self._transport.get_extra_info("socket")
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
