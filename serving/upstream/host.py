"""One process that answers inference, as its callers see it: an address, connections, health."""

import asyncio
import ssl
from collections import deque
from pathlib import Path
from typing import Final

from serving.config.model_url import ModelUrl
from serving.upstream.balance import Health
from serving.upstream.connection import Connection, HttpAnswer

__all__ = ["Host"]

_CONNECT_SECONDS: Final = 1.0


class Host:
    """An address and what is known of it. `where` is a Unix socket, or a model's URL."""

    def __init__(self, where: Path | ModelUrl, identity: tuple[int, ...] = ()) -> None:
        self.where: Final = where
        self.identity: Final = identity
        """Tells a socket from one of the same name that came later."""

        self.health = Health()
        self.gone = False
        """Nobody listens there any more; a process that comes back makes another `Host`."""

        self._idle: deque[Connection] = deque()
        self._loop = asyncio.get_running_loop()
        self._tls = (
            ssl.create_default_context() if isinstance(where, ModelUrl) and where.secure else None
        )

    @property
    def name(self) -> str:
        """For messages to operators; holds no path."""
        return self.where.authority if isinstance(self.where, ModelUrl) else self.where.stem

    async def ask(self, request: list[bytes | memoryview]) -> HttpAnswer:
        """Send a request and bring its answer; cancel to give up.

        A connection that the server closed while it lay idle is no failure of the server's:
        the request goes out again on a fresh one.

        Raises:
            Lost: the connection ended before the answer did.
            OSError: there is none to be had.
        """
        while True:
            connection = self._take() or await self._connect()
            used = connection.used
            try:
                answer = await connection.ask(request)
            except asyncio.CancelledError:
                connection.abort()
                raise
            except ConnectionError as error:
                if used and getattr(error, "silent", False):
                    continue
                raise
            if connection.usable and not self.gone:
                self._idle.append(connection)
            else:
                connection.abort()
            return answer

    def close(self) -> None:
        """Let go of idle connections; those in use end with their answers."""
        self.gone = True
        while self._idle:
            self._idle.pop().abort()

    def _take(self) -> Connection | None:
        while self._idle:
            # The one used last: the others may grow old and be closed by the server.
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        def make() -> Connection:
            return Connection(self._loop)

        # Not wait_for: on Python 3.11 it may swallow a cancellation.
        async with asyncio.timeout(_CONNECT_SECONDS):
            if isinstance(self.where, Path):
                return (await self._loop.create_unix_connection(make, str(self.where)))[1]
            return (
                await self._loop.create_connection(
                    make, self.where.host, self.where.port, ssl=self._tls
                )
            )[1]
