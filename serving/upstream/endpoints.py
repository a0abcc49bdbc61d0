"""The hosts of one version, as they come and go."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from serving.config.model_url import ModelUrl
from serving.upstream.host import Host

__all__ = ["Endpoints", "FixedEndpoints", "SocketEndpoints"]

_LOOK_SECONDS: Final = 0.1


class Endpoints(Protocol):
    """Who can be asked now."""

    @property
    def hosts(self) -> list[Host]:
        """All there are; may be empty."""
        ...

    def start(self) -> None:
        """Begin to look, in the running loop."""
        ...

    def look(self) -> None:
        """Look at once: one has just failed."""
        ...

    async def someone(self) -> None:
        """Wait until there is one."""
        ...

    async def close(self) -> None:
        """Stop looking and let go of connections."""
        ...


class FixedEndpoints:
    """Servers at addresses that the configuration names."""

    def __init__(self, urls: list[ModelUrl]) -> None:
        self._urls = urls
        self.hosts: list[Host] = []

    def start(self) -> None:
        """Nothing to look for."""
        self.hosts = [Host(url) for url in self._urls]

    def look(self) -> None:
        """They stay where they are."""

    async def someone(self) -> None:
        """They are always there, even if they do not answer."""

    async def close(self) -> None:
        """Close idle connections."""
        for host in self.hosts:
            host.close()


class SocketEndpoints:
    """Processes of this machine, found by their sockets' names.

    A socket is there while its process takes requests: it appears when the model is loaded and
    goes when the process begins to drain. A killed process leaves it behind; then nobody can
    connect, and whoever finds that out says `look`.

    Args:
        find: lists the sockets.
    """

    def __init__(self, find: Callable[[], list[Path]]) -> None:
        self._find = find
        self.hosts: list[Host] = []
        self._known: dict[tuple[str, tuple[int, ...]], Host] = {}
        self._there = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look ten times a second."""
        self.look()
        self._task = asyncio.get_running_loop().create_task(self._keep_looking())

    def look(self) -> None:
        """Read the directory."""
        found: dict[tuple[str, tuple[int, ...]], Host] = {}
        for path in self._find():
            with contextlib.suppress(OSError):
                status = path.stat()
                # A name that is used again may be given the same inode.
                identity: tuple[int, ...] = (status.st_ino, status.st_ctime_ns)
                key = (path.name, identity)
                found[key] = self._known.get(key) or Host(path, identity)
        for key, host in self._known.items():
            if key not in found:
                host.close()
        self._known = found
        self.hosts = [host for host in found.values() if not host.gone]
        if self.hosts:
            self._there.set()
        else:
            self._there.clear()

    async def someone(self) -> None:
        """Wait for the first."""
        await self._there.wait()

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for host in self._known.values():
            host.close()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()
