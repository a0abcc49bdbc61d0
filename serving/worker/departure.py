"""How a worker comes to its ports and leaves them without a fresh connection being reset.

One worker of a data directory steers at a time (a lock), as there is one filter a port. The one
that left cannot take its filter out again, having no socket left: it asks a sibling to.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from serving.files import try_lock
from serving.unix_http import ask
from serving.worker.grpc.sockets import listening_sockets
from serving.worker.steering import Steering

__all__ = ["RELEASE", "Departure"]

RELEASE: Final = "/steering/release"
"""Where a worker's private socket is asked to take the filters out."""

_LOCK_SECONDS: Final = 3.0
_LOCK_POLL_SECONDS: Final = 0.01
_LINGER_SECONDS: Final = 0.15
"""Handshakes that had begun end in this time, and what they bring is accepted."""
_ASK_SECONDS: Final = 1.0


class Departure:
    """Leads new connections to a worker's siblings while it leaves.

    Args:
        run: where the workers' private sockets are.
        worker: this one's name.
        ports: the shared ones.
    """

    def __init__(self, run: Path, worker: str, ports: set[int]) -> None:
        self._run = run
        self._worker = worker
        self._ports = ports

    def release(self) -> None:
        """Have the kernel spread connections by its hash again, us included."""
        for listener in self._listeners():
            with listener:
                Steering(listener).release()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Our turn to come or go; gives up waiting for it after some seconds."""
        path, until = self._run / "steering.lock", time.monotonic() + _LOCK_SECONDS
        while (lock := try_lock(path)) is None and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)

    async def begin(self) -> bool:
        """Steer past our sockets, and wait until what had come is accepted.

        Returns:
            Whether new connections go elsewhere now. `end` is called when the sockets are closed.
        """
        listeners = self._listeners()
        try:
            steered = [await Steering(listener).away() for listener in listeners]
        finally:
            for listener in listeners:
                listener.close()
        if not (steered and all(steered)):
            self.release()
            return False
        await asyncio.sleep(_LINGER_SECONDS)
        return True

    async def end(self) -> None:
        """Have a sibling take the filters out."""
        for path in sorted(self._run.glob("worker-*.sock")):
            if path.stem != self._worker:
                answer = await ask(path, RELEASE, method="POST", timeout_seconds=_ASK_SECONDS)
                if answer is not None and answer.status == 200:
                    return

    def _listeners(self) -> list[socket.socket]:
        found = []
        for descriptors in listening_sockets().values():
            one = socket.socket(fileno=os.dup(descriptors[0]))
            tcp = one.family in {socket.AF_INET, socket.AF_INET6}
            if tcp and one.getsockname()[1] in self._ports:
                found.append(one)
            else:
                one.close()
        return found
