"""Keeps one connection to the store: finds the master, says hello, listens, begins again.

While there is no connection every command is `Unavailable` at once; nobody waits for one.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from feature_cache.address import Address
from feature_cache.connection import Connection, Deliver
from feature_cache.errors import StoreRefused, Unavailable

__all__ = ["Link"]

_HEARTBEAT_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 0.5
"""How long connecting, a greeting or a heartbeat may take."""
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5

_LOG = logging.getLogger("features")


class Link:
    """A connection that comes back by itself. `start` it inside a running loop, `close` it after.

    Args:
        address: where the store is. With several hosts the first that is master is taken; if
            none is, the first that answers.
        on_invalid: called with the keys that changed, or None for all of them. With it the
            store is asked to announce what this connection has read.
        on_connect: called when a new connection is ready: what the old one read may be old.
    """

    def __init__(
        self,
        address: Address,
        *,
        on_invalid: Callable[[Sequence[bytes] | None], None] | None = None,
        on_connect: Callable[[], None] | None = None,
    ) -> None:
        self._address = address
        self._on_invalid = on_invalid
        self._on_connect = on_connect
        self._live: Connection | None = None
        self._lost = asyncio.Event()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told = ""
        self.reason = ""
        """Why there is no connection, or why the last one ended."""
        self.connects = 0
        """How often a connection became ready."""

    @property
    def connected(self) -> bool:
        """Whether commands are sent now."""
        return self._live is not None

    @property
    def in_flight(self) -> int:
        """Commands without a reply."""
        return self._live.in_flight if self._live is not None else 0

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def ready(self, patience: float) -> bool:
        """Wait for a connection, at most `patience` seconds; false if there is none by then."""
        try:
            async with asyncio.timeout(patience):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Drop the connection and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def submit(self, packed: bytes, deliver: Deliver) -> None:
        """Send a packed command; see `Connection.submit`."""
        if self._live is None:
            deliver(Unavailable("there is no connection to the store"))
        else:
            self._live.submit(packed, deliver)

    async def call(self, *words: bytes, patience: float = 1.0) -> Any:
        """Send one command and wait; see `Connection.call`."""
        if self._live is None:
            raise Unavailable("there is no connection to the store")
        return await self._live.call(*words, patience=patience)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            connection = await self._connect()
            if connection is not None:
                pause = _FIRST_PAUSE_SECONDS
                try:
                    await self._keep(connection)
                finally:
                    self._live = None
                    self._ready.clear()
                    connection.abort("closed")
                self.reason = connection.reason
                self._say(f"the feature store's connection is lost: {self.reason}")
            # Not all processes of all machines in the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _say(self, words: str) -> None:
        """Log what is new, once."""
        if words != self._told:
            self._told = words
            _LOG.warning("%s", words)

    async def _keep(self, connection: Connection) -> None:
        """Serve with a connection until it is lost; ask it now and then whether it lives."""
        self._live = connection
        self.connects += 1
        if self._on_connect is not None:
            self._on_connect()
        self._ready.set()
        if self._told:
            self._say("the feature store answers again")
            self._told = ""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                await self._heartbeat(connection)

    async def _heartbeat(self, connection: Connection) -> None:
        """Without it a half-open connection would lose announcements for minutes.

        HELLO also says whether this is still the master.
        """
        try:
            role = _role(await connection.call(b"HELLO", patience=_PATIENCE_SECONDS))
        except StoreRefused as error:
            if error.code != "LOADING":
                connection.abort(f"it refuses the heartbeat: {error.code}")
        except Unavailable as error:
            connection.abort(str(error))
        else:
            if role != "master" and len(self._address.hosts) > 1:
                connection.abort("it is a replica now")

    async def _connect(self) -> Connection | None:
        """Connect to the master, or to whoever answers if nobody is; None if nobody does."""
        targets: list[tuple[str, int] | None] = list(self._address.hosts) or [None]
        spare: Connection | None = None
        reason = ""
        for target in targets:
            self._lost.clear()
            connection: Connection | None = None
            try:
                async with asyncio.timeout(2 * _PATIENCE_SECONDS):
                    connection = await self._open(target)
                    role = await self._greet(connection)
            except (OSError, TimeoutError, StoreRefused, Unavailable) as error:
                reason = str(error) or "it does not answer"
                if connection is not None:
                    connection.abort(reason)
                continue
            except BaseException:
                if connection is not None:
                    connection.abort("closed")
                raise
            if role == "master" or len(targets) == 1:
                if spare is not None:
                    spare.abort("another host is the master")
                self._lost.clear()
                return connection
            if spare is None:
                spare = connection
            else:
                connection.abort("a replica")
        if spare is not None:
            self._lost.clear()
            return spare
        self.reason = reason
        self._say(f"the feature store cannot be reached: {reason}")
        return None

    async def _open(self, target: tuple[str, int] | None) -> Connection:
        loop = asyncio.get_running_loop()

        def make() -> Connection:
            return Connection(on_push=self._pushed, on_lost=self._ended)

        if target is None:
            return (await loop.create_unix_connection(make, self._address.path))[1]
        host, port = target
        tls = self._address.tls_context()
        return (await loop.create_connection(make, host, port, ssl=tls))[1]

    async def _greet(self, connection: Connection) -> str:
        address = self._address
        words = [b"HELLO", b"3"]
        if address.password:
            words += [b"AUTH", (address.username or "default").encode(), address.password.encode()]
        role = _role(await connection.call(*words, patience=_PATIENCE_SECONDS))
        if address.db:
            await connection.call(b"SELECT", b"%d" % address.db, patience=_PATIENCE_SECONDS)
        if self._on_invalid is not None:
            await connection.call(b"CLIENT", b"TRACKING", b"ON", patience=_PATIENCE_SECONDS)
        return role

    def _pushed(self, message: Sequence[Any]) -> None:
        if self._on_invalid is not None and len(message) == 2 and message[0] == b"invalidate":
            self._on_invalid(message[1])

    def _ended(self, connection: Connection) -> None:
        if connection is self._live or self._live is None:
            self._live = None
            self._lost.set()


def _role(hello: Any) -> str:
    role = hello.get(b"role", b"master") if isinstance(hello, dict) else b"master"
    return role.decode() if isinstance(role, bytes) else "master"
