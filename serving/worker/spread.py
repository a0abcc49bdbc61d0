"""Spreads fresh HTTP connections over the workers of a node.

Each worker has a Unix datagram socket, `run/spread-N.sock`, on which its siblings hand it the
descriptors of connections that they have accepted and read nothing of (SCM_RIGHTS, unix(7)). To
whom is decided in `spread_choice`, by the counts in `spread_table`.

No connection is lost on the way. One that cannot be handed over (nobody there, queue full) stays
with who accepted it, and one is handed over once at most. A worker that leaves first shuts its
socket's receiving side, from which moment on nothing gets in, and then takes what had come. Only a
worker that dies takes what waits for it along, as it does with its own accept queue.
"""

import array
import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from serving.clock import Clock
from serving.metrics import MetricsFile
from serving.unix_socket import bound_for_owner
from serving.worker.spread_choice import choose, is_even
from serving.worker.spread_table import WORKERS, SpreadTable

__all__ = ["Alone", "Spread", "Spreading"]

_ROOM: Final = socket.CMSG_LEN(array.array("i").itemsize)
"""For one descriptor."""

_log = logging.getLogger(__name__)


class Spread(Protocol):
    """Where a listener's fresh connections go."""

    def start(self, adopt: Callable[[socket.socket], None]) -> None:
        """Take part, on the running loop; `adopt` serves what siblings hand over."""
        ...

    def count(self, connections: int) -> None:
        """Note how many connections there are now."""
        ...

    def elsewhere(self) -> int | None:
        """Who would better serve one more connection; None: nobody."""
        ...

    def give(self, receiver: int, descriptor: int) -> bool:
        """Hand a connection over; on True it is theirs, and ours is to be closed silently."""
        ...

    def leave(self) -> None:
        """Give nothing and be given nothing from now on."""
        ...


class Alone:
    """The spread of a listener that has no siblings."""

    def start(self, adopt: Callable[[socket.socket], None]) -> None:
        """Nothing to take part in."""

    def count(self, connections: int) -> None:
        """Nobody wants to know."""

    def elsewhere(self) -> int | None:
        """Nowhere."""
        return None

    def give(self, receiver: int, descriptor: int) -> bool:
        """To nobody."""
        del receiver, descriptor
        return False

    def leave(self) -> None:
        """Nothing to leave."""


class Spreading:
    """The spread of a worker's shared port.

    Args:
        run: where the table and the sockets are.
        me: the worker's number.
        metrics: where connections handed over are counted.
        clock: by which siblings are taken for alive.
    """

    def __init__(self, run: Path, me: int, metrics: MetricsFile, clock: Clock) -> None:
        self._run = run
        self._me = me
        self._clock = clock
        self._handed_over = metrics.counter("sluice_connections_handed_over_total")
        self._connections = 0
        self._others: list[int] = []
        """Siblings that are alive; who cannot be given one is left out until our next beat."""
        self._table: SpreadTable | None = None
        """Set while we take part."""
        self._inbox: socket.socket
        self._outbox: socket.socket
        self._adopt: Callable[[socket.socket], None]

    def start(self, adopt: Callable[[socket.socket], None]) -> None:
        """Take part, on the running loop; where that cannot be, serve what the kernel gives."""
        if self._me >= WORKERS:
            return
        self._adopt = adopt
        try:
            table = SpreadTable(self._run, self._me, self._clock)
            self._inbox = bound_for_owner(Path(self._path(self._me)), socket.SOCK_DGRAM)
        except OSError as error:
            _log.warning("connections are not spread over workers: %s", error.strerror)
            return
        self._outbox = _datagrams()
        asyncio.get_running_loop().add_reader(self._inbox, self._take)
        table.count(self._connections)
        self._table = table
        self.beat()

    def beat(self) -> None:
        """Show the siblings that we are alive; to be called several times a second."""
        if self._table is not None:
            self._others = self._table.beat()
            self._take()

    def count(self, connections: int) -> None:
        """Note how many connections there are now."""
        self._connections = connections
        if self._table is not None:
            self._table.count(connections)

    def elsewhere(self) -> int | None:
        """Who would better serve one more connection; None: nobody."""
        table, others, mine = self._table, self._others, self._connections
        # A cheap look first: what waits for others can only make it more even.
        if table is None or not others or is_even(mine, table.opens(others)):
            return None
        ready = table.ready(others)
        place = choose(mine, list(ready.values()))
        return None if place is None else list(ready)[place]

    def give(self, receiver: int, descriptor: int) -> bool:
        """Hand a connection over; on True it is theirs, and ours is to be closed silently."""
        table = self._table
        if table is None:
            return False
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        table.giving(receiver)
        try:
            self._outbox.sendmsg([b"1"], [rights], 0, self._path(receiver))
        except OSError:
            table.giving(receiver, -1)
            self._others = [other for other in self._others if other != receiver]
            return False
        self._handed_over.inc()
        return True

    def leave(self) -> None:
        """Give nothing and be given nothing from now on; what waits for us is served."""
        table, self._table, self._others = self._table, None, []
        if table is None:
            return
        table.leave()
        # From here on sending to us fails, and what had been sent can still be read.
        self._inbox.shutdown(socket.SHUT_RD)
        asyncio.get_running_loop().remove_reader(self._inbox)
        self._take_waiting()
        self._inbox.close()
        self._outbox.close()
        Path(self._path(self._me)).unlink(missing_ok=True)

    def _take(self) -> None:
        self._take_waiting()
        if self._table is not None:
            self._table.took_all()

    def _take_waiting(self) -> None:
        """Serve what waits; from then on our own count has it."""
        while True:
            try:
                # `socket.recv_fds` loses its flags (python/cpython#128881).
                _, rights, _, _ = self._inbox.recvmsg(1, _ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            if not rights:
                _log.warning(
                    "a connection was lost on its way here: no file descriptor is free "
                    "(raise `ulimit -n`)"
                )
            for _, _, data in rights:
                [descriptor] = array.array("i", data)
                self._adopt(socket.socket(fileno=descriptor))

    def _path(self, number: int) -> str:
        return f"{self._run}/spread-{number}.sock"


def _datagrams() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
