"""The HTTP listener of the data port: sockets, the sweep, and the drain.

Read on in `arrival` (before the first byte), `connection` (one client), `framing`
(what is well-formed), `request` and `routes` (what is asked) and `responses`
(how answers look).
"""

import asyncio
import contextlib
import socket
import ssl as tls
from collections.abc import Callable
from typing import Final

from serving.clock import Clock
from serving.config.schema import Limits
from serving.metrics import MetricsFile
from serving.protocol.tensors import TensorLimits
from serving.worker.http.arrival import Arrivals
from serving.worker.http.state import ListenerState
from serving.worker.plane import Plane
from serving.worker.spread import Alone, Spread

__all__ = ["HttpListener"]

_BACKLOG: Final = 2048
_GIVE_UP_SECONDS: Final = 1.0


class HttpListener:
    """Open Inference Protocol V2 over HTTP/1.1, answered by a `Plane`.

    Args:
        plane: what is asked; both listeners of a worker share it.
        limits: bounds on clients.
        tensor_limits: bounds on what one request may declare.
        metrics: where connections and refusals are counted.
        header_names: headers, in lower case, that belong into `Call.headers`. Asked for every
            request; give the same object until they change.
        clock: passed in so that tests can move it.
        spread: where fresh connections go; served here, if none is given.
    """

    def __init__(
        self,
        plane: Plane,
        limits: Limits,
        tensor_limits: TensorLimits,
        metrics: MetricsFile,
        *,
        header_names: Callable[[], frozenset[str]],
        clock: Clock,
        spread: Spread | None = None,
    ) -> None:
        self._shared = ListenerState(
            plane,
            limits,
            tensor_limits,
            metrics,
            header_names=header_names,
            clock=clock,
            spread=spread or Alone(),
        )
        self._tls_timeout = float(limits.header_timeout)
        self._servers: list[asyncio.AbstractServer] = []
        self._sockets: list[socket.socket] = []
        self._arrivals: Arrivals | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._shared.connections)

    @property
    def disconnected(self) -> int:
        """Requests given up because their client left (HTTP's 499)."""
        return self._shared.disconnected

    async def start(self, sockets: list[socket.socket], ssl: tls.SSLContext | None) -> None:
        """Accept on bound stream sockets (TCP or Unix), with TLS if a context is given."""
        shared = self._shared
        shared.loop = loop = asyncio.get_running_loop()
        self._arrivals = arrivals = Arrivals(shared, ssl, self._tls_timeout)
        for one in sockets:
            create = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(lambda: arrivals, sock=one, backlog=_BACKLOG))
        self._sockets.extend(sockets)
        shared.spread.start(arrivals.adopt)
        if self._timer is None:
            self._sweep()

    def _sweep(self) -> None:
        shared = self._shared
        shared.sweep()
        self._timer = shared.loop.call_later(shared.interval, self._sweep)

    def begin_drain(self, patience: float = 0.0) -> None:
        """Accept nothing new, and say `connection: close` in every answer from now on.

        A connection that waits for its next request is closed `patience` seconds and a sweep
        later. Until then a request is answered: closing a connection on which one is just being
        sent loses it, and the longer the wait, the fewer are left that could. Asked again with
        less patience, it waits less.
        """
        shared = self._shared
        for connection in shared.connections:
            if connection.idle:
                ends = shared.soon + shared.interval + patience
                connection.deadline = min(connection.deadline, ends)
        if shared.draining:
            return
        shared.draining = True
        shared.spread.leave()
        if not self._servers:
            return
        # Closing a socket resets what waits in its accept queue, also when other processes
        # share the port. With a backlog of 0 the kernel lets newcomers try again (they then
        # reach another process), while the loop accepts those that had already got in.
        for listening in self._sockets:
            listening.listen(0)
        shared.loop.call_later(shared.interval / 2, self._stop_accepting)

    def _stop_accepting(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._sockets.clear()

    async def drain(self, timeout: float) -> int:  # noqa: ASYNC109 - it says what was abandoned
        """Finish what is in flight, then close everything.

        Returns:
            The number of requests abandoned because `timeout` seconds were not enough.
        """
        self.begin_drain()
        shared = self._shared
        shared.emptied.clear()
        if shared.connections or shared.arriving:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await shared.emptied.wait()
        abandoned = sum(connection.busy for connection in shared.connections)
        tasks = [connection.abandon() for connection in list(shared.connections)]
        given_up = [task for task in tasks if task is not None]
        if self._arrivals is not None:
            self._arrivals.give_up()
        if given_up:
            await asyncio.wait(given_up, timeout=_GIVE_UP_SECONDS)
        self._stop_accepting()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return abandoned
