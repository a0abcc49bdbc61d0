"""One worker at a time tries what no worker of this machine has survived yet.

If all workers loaded a new version at once, or ran their first shadow copies of it, one that
crashes would take all of them along, and production with them. So the first to come holds a lock
on the version's file in `DATA/run` while it loads it, and again for its first copies; the others
wait with the load and drop their copies. A lock says who is alive, the file's text who was not:

    (empty) ──▶ loading W ──▶ loaded ──▶ copying W ──▶ ran

Whoever finds `loading W` or `copying W` without a lock knows that W died of it, and stays away
until W is back, so that one of them always answers. W tries again, or after ten seconds anybody
may; a second crash puts the version into quarantine.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from serving.errors import InvalidArtifact
from serving.files import try_lock

__all__ = ["FirstTries", "Freely"]

_POLL_SECONDS: Final = 0.02
_COPYING_SECONDS: Final = 2.0
_LONGEST: Final = 128
_BACK_SECONDS: Final = 10.0
"""In which a worker that died is back. Well below `WINDOW_SECONDS`, or the second crash would come
too late to count where the dead worker gets no requests any more (clients keep connections)."""

_AFTER_LOADING: Final = ("loaded", "copying", "ran")


class Freely:
    """Nobody else is there to be spared."""

    def may_copy(self, sha256: str) -> bool:
        """Always."""
        del sha256
        return True


class _File:
    """A locked file of one version."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def text(self) -> tuple[str, str]:
        """What it says: a word, and whom it is about."""
        said = os.pread(self._descriptor, _LONGEST, 0).decode(errors="replace")
        word, _, worker = said.partition(" ")
        return word, worker

    def age(self) -> float:
        """Seconds since somebody wrote into it."""
        return time.time() - os.fstat(self._descriptor).st_mtime

    def write(self, text: str) -> None:
        """Say something else; on a full disk nothing is said, and nobody spared."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)

    def close(self) -> None:
        """Let go of the lock; once, as the number may be somebody else's descriptor afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FirstTries:
    """What this worker may try, and what it has.

    Where the files cannot be written (a full disk), everybody tries as they like.

    Args:
        run: the folder that the machine's workers share.
        worker: this worker's name.
        serving: whether there is anything to be spared: a worker that starts loads at once.
    """

    def __init__(self, run: Path, worker: str, serving: Callable[[], bool]) -> None:
        self._run = run
        self._worker = worker
        self._serving = serving
        self._survived: set[str] = set()
        self._copying: dict[str, _File] = {}

    @asynccontextmanager
    async def loading(self, name: str, sha256: str) -> AsyncIterator[None]:
        """Wait until nobody else tries to load these bytes for the first time.

        Raises:
            InvalidArtifact: another worker crashed while it loaded them, a moment ago.
        """
        file = None
        with contextlib.suppress(OSError):
            file = await self._until_locked(sha256) if self._serving() else self._lock(sha256)
        if file is None:
            yield
            return
        try:
            word, worker = file.text()
            if word in _AFTER_LOADING:
                file.close()  # nobody needs to wait for us
                yield
                return
            if self._is_left_to(file, "loading") and self._serving():
                raise InvalidArtifact(
                    f"{name}: {worker} crashed while it loaded this version; whether it can be "
                    "served shows when that has tried again"
                )
            file.write(f"loading {self._worker}")
            try:
                yield
            except BaseException:
                file.write("")
                raise
            file.write("loaded")
        finally:
            file.close()

    def may_copy(self, sha256: str) -> bool:
        """Whether a shadow copy may be run now; False while another worker tries the first ones."""
        if sha256 in self._survived or sha256 in self._copying:
            return True
        try:
            file = self._lock(sha256)
        except OSError:
            self._survived.add(sha256)
            return True
        if file is None:
            return False
        if file.text()[0] == "ran":
            file.close()
            self._survived.add(sha256)
            return True
        if self._is_left_to(file, "copying"):
            file.close()
            return False
        file.write(f"copying {self._worker}")
        self._copying[sha256] = file
        asyncio.get_running_loop().call_later(_COPYING_SECONDS, self._has_survived, sha256)
        return True

    def close(self) -> None:
        """Give up what is being tried: the process ends in order."""
        for file in self._copying.values():
            file.write("loaded")
            file.close()
        self._copying.clear()

    def _has_survived(self, sha256: str) -> None:
        if file := self._copying.pop(sha256, None):
            file.write("ran")
            file.close()
            self._survived.add(sha256)

    def _is_left_to(self, file: _File, doing: str) -> bool:
        """Whether somebody else died of it, so recently that it is theirs to try again."""
        word, worker = file.text()
        return word == doing and worker != self._worker and file.age() < _BACK_SECONDS

    async def _until_locked(self, sha256: str) -> _File:
        while (file := self._lock(sha256)) is None:  # noqa: ASYNC110 - another process has it
            await asyncio.sleep(_POLL_SECONDS)
        return file

    def _lock(self, sha256: str) -> _File | None:
        """The version's file, or None if another process holds it. Raises OSError."""
        lock = try_lock(self._run / f"{sha256}.trial")
        return None if lock is None else _File(lock)
