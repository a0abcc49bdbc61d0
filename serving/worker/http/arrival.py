"""What becomes of an accepted connection before its first byte is read.

It is given to a sibling that has fewer, or served here. The loop accepts without TLS, because who
shakes hands keeps the connection; with TLS the handshake begins here, on a socket of our own.
"""

import asyncio
import contextlib
import os
import socket
import ssl as tls
from typing import cast

from serving.worker.http.connection import Connection
from serving.worker.http.state import ListenerState

__all__ = ["Arrivals"]


class Arrivals(asyncio.Protocol):
    """The protocol of every fresh connection of a listener; it has no state of any one of them.

    Args:
        shared: the listener's.
        ssl: the context, if it speaks TLS.
        handshake_seconds: in which a TLS handshake must be over.
    """

    def __init__(
        self, shared: ListenerState, ssl: tls.SSLContext | None, handshake_seconds: float
    ) -> None:
        self._shared = shared
        self._ssl = ssl
        self._handshake_seconds = handshake_seconds if ssl is not None else None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give it away or serve it; nothing has been read of it."""
        shared = self._shared
        receiver = shared.spread.elsewhere()
        if receiver is None and self._ssl is None:
            connection = Connection(shared)
            transport = cast("asyncio.Transport", transport)
            transport.set_protocol(connection)
            connection.connection_made(transport)
            return
        descriptor: int = transport.get_extra_info("socket").fileno()
        if receiver is None or not shared.spread.give(receiver, descriptor):
            # No descriptor is free: closed, as the loop does with what it cannot accept.
            with contextlib.suppress(OSError):
                self.adopt(socket.socket(fileno=os.dup(descriptor)))
        # Ours alone: another descriptor of the connection is with who serves it, so that the
        # client sees neither a FIN nor a reset.
        cast("asyncio.Transport", transport).abort()

    def adopt(self, accepted: socket.socket) -> None:
        """Serve a connection that came without a transport. It becomes ours to close."""
        connection = Connection(self._shared)
        self._shared.arrived(connection)
        task = self._shared.loop.create_task(self._serve(connection, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def give_up(self) -> None:
        """Drop the connections whose handshake is not over."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, connection: Connection, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            await self._shared.loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._ssl,
                ssl_handshake_timeout=self._handshake_seconds,
            )
        except OSError:  # the client has gone, or does not speak our TLS
            accepted.close()
        except BaseException:
            accepted.close()
            raise
        finally:
            self._shared.not_coming(connection)
