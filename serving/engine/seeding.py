"""Has the views' seeds loaded while an engine starts."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from serving.config.keys import STORE_VARIABLE
from serving.engine.log_lines import LineSink

__all__ = ["Seeding"]

_PROGRAM: Final = (sys.executable, "-P", "-m", "serving.engine.seed")


class _Said(msgspec.Struct, frozen=True):
    """A line of `serving.engine.seed`."""

    view: str
    written: int = 0
    rejected: int = 0
    known: bool = False
    problem: str = ""


class Seeding:
    """One run of `serving.engine.seed`. What goes wrong is told, and keeps nothing from starting.

    Args:
        configuration: its directory.
        views: how many have a seed.
        lines: takes what there is to say.
        on_change: called when `text` or `done` changed.
    """

    def __init__(
        self, configuration: Path, views: int, *, lines: LineSink, on_change: Callable[[], None]
    ) -> None:
        self.text = f"loading {views} views"
        self.done = False
        self._configuration = configuration
        self._views = views
        self._lines = lines
        self._on_change = on_change

    async def run(self, store: str) -> None:
        """Wait until every seed is loaded, or could not be.

        Args:
            store: address of the gateway's store.
        """
        process = await asyncio.create_subprocess_exec(
            *_PROGRAM,
            *("--config", str(self._configuration.absolute()), "--parent", str(os.getpid())),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, STORE_VARIABLE: store},
        )
        try:
            answer, words = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        for line in words.decode(errors="replace").splitlines():
            self._lines("features", line)
        self._finish(answer, process.returncode or 0)

    def _finish(self, answer: bytes, code: int) -> None:
        said = [msgspec.json.decode(line, type=_Said) for line in answer.splitlines()]
        for one in said:
            if one.problem:
                self._lines("features", f"the seed of {one.view} is not loaded: {one.problem}")
            elif one.rejected:
                self._lines("features", f"{one.rejected} rows of {one.view}'s seed do not fit it")
        written = sum(one.written for one in said)
        if code:
            self.text = "not loaded; see above"
        elif all(one.known for one in said):
            self.text = f"{self._views} views are there already"
        else:
            self.text = f"{written:,} rows in {self._views} views"
        self.done = True
        self._on_change()
