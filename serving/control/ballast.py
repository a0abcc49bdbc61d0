"""Room on the disk that is kept for the one thing that cannot wait for more: taking traffic back.

An abort is an event on the disk before anything follows from it, and so is the revision that
carries it out. Where the disk is full, this file is given up and they take its place. The file is
random bytes, written and flushed: what a file system has compressed or only promised is no room.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Final, TypeVar

from serving.errors import ServingError
from serving.files import write_whole

__all__ = ["Ballast", "is_full"]

T = TypeVar("T")
_SIZE: Final = 4 << 20
"""Bytes: a thousand times an event or a revision, so that others may take some of it meanwhile."""

_SPARE: Final = 2
"""So many times its size must be free before it is made anew: not the last room there is."""

_LOG = logging.getLogger("rollouts")


def is_full(error: BaseException) -> bool:
    """Whether an error, or what it came from, says that a disk or a quota is full."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in (ENOSPC, EDQUOT):
            return True
        found = found.__cause__
    return False


class Ballast:
    """One file of `size` bytes in the data directory."""

    def __init__(self, path: Path, *, size: int = _SIZE) -> None:
        self._path = path
        self._size = size

    async def hold(self) -> None:
        """Make it where it is missing and there is room; where there is none, do without."""
        with suppress(OSError):
            await asyncio.to_thread(self._hold)

    def _hold(self) -> None:
        with suppress(FileNotFoundError):
            if self._path.stat().st_size >= self._size:
                return
        free = os.statvfs(self._path.parent)
        if free.f_bavail * free.f_frsize >= _SPARE * self._size:
            write_whole(self._path, os.urandom(self._size))

    async def make_room(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write; where the disk is full, give the file up and write again.

        Raises:
            ServingError: as `write` does, the second time if there was a second one.
        """
        try:
            return await write()
        except ServingError as error:
            if not is_full(error) or not await asyncio.to_thread(self._drop):
                raise
        return await write()

    def _drop(self) -> bool:
        try:
            self._path.unlink()
        except OSError:
            return False
        _LOG.warning("the disk is full: %s was given up for what cannot wait", self._path)
        return True
