"""Tells other nodes what control has its own node do, and hears what they have to say.

What is to be done is on control's own disk; `serving.config.directions` says how it travels. The
store holds a copy, which is made again whenever it is lost or behind. What a node reports (a crash,
a failure) is put where control's own node would have put it, and counts like that.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from serving.clock import Clock
from serving.config.directions import (
    Directions,
    NodeReport,
    Taken,
    directions_of,
    encode_directions,
    read_taken,
    write_taken,
)
from serving.control.fleet.rolls import Rolls
from serving.control.fleet.workers import FORGET_SECONDS
from serving.control.stores.store import Store
from serving.errors import StoreUnavailable
from serving.quarantine import register

__all__ = ["Director"]

_LOOK_SECONDS: Final = 0.25
_COMPARE_SECONDS: Final = 1.0
"""How often the store is compared with the disk when nothing has changed on it."""


class Director:
    """Keeps the store's directions and control's disk alike.

    Args:
        store: where nodes read and report.
        data: control's data directory.
        rolls: the orders.
    """

    def __init__(
        self, store: Store, data: Path, rolls: Rolls, *, clock: Clock, log: logging.Logger
    ) -> None:
        self._store = store
        self._data = data
        self._rolls = rolls
        self._clock = clock
        self._log = log
        self._heard: dict[str, NodeReport] = {}
        self._told: Directions | None = None
        self._compared = 0.0

    async def keep(self) -> None:
        """Do both several times a second, whatever store and disk do; never returns."""
        problem = ""
        while True:
            try:
                await self.hear()
                await self.tell()
                problem = ""
            except StoreUnavailable:
                self._told = None  # the publisher says so; afterwards it may be empty
            except OSError as error:
                if str(error) != problem:
                    problem = str(error)
                    self._log.error("other nodes cannot be followed up: %s", error.strerror)
            await asyncio.sleep(_LOOK_SECONDS)

    async def hear(self) -> None:
        """Take in what nodes report. Raises StoreUnavailable, OSError."""
        for report in await self._store.nodes():
            if self._clock.wall() - report.at > FORGET_SECONDS:
                await self._store.forget_node(report.node)
                self._heard.pop(report.node, None)
            elif self._heard.get(report.node) != report:
                await asyncio.to_thread(self._take_in, report)
                self._heard[report.node] = report

    def _take_in(self, report: NodeReport) -> None:
        register.hear(self._data, report.known)
        if report.engine != self._rolls.orders.engine:
            return
        self._rolls.count_on(report.serial, report.newest)
        if report.failure is not None:
            self._rolls.fail(report.failure, report.node)

    async def tell(self) -> None:
        """Bring the store up to what is on disk. Raises StoreUnavailable, OSError."""
        wanted = await asyncio.to_thread(directions_of, self._data, self._rolls.orders)
        due = self._clock.monotonic() - self._compared >= _COMPARE_SECONDS
        if wanted == self._told and not due:
            return
        stored = await self._store.directions(wanted.engine)
        followed = self._followed(wanted.engine)
        if stored is not None and stored.revision >= followed and _alike(wanted, stored):
            await self._own(stored.revision)
        else:
            revision = max(followed, stored.revision if stored is not None else 0) + 1
            # Before it is in the store: nobody then takes our own words for news.
            await self._own(revision)
            began = stored.began if stored is not None else self._clock.wall()
            await self._store.direct(replace(wanted, revision=revision, began=began))
        self._told, self._compared = wanted, self._clock.monotonic()

    def _followed(self, engine: str) -> int:
        """The highest revision that control or a node has seen of this engine."""
        own = read_taken(self._data)
        nodes = (one.revision for one in self._heard.values() if one.engine == engine)
        return max(own.revision if own.engine == engine else 0, *nodes, 0)

    async def _own(self, revision: int) -> None:
        taken = Taken(engine=self._rolls.orders.engine, revision=revision, own=True)
        if read_taken(self._data) != taken:
            await asyncio.to_thread(write_taken, self._data, taken)


def _alike(wanted: Directions, stored: Directions) -> bool:
    """Whether both say the same under the same number."""
    same = replace(wanted, revision=stored.revision, began=stored.began)
    return encode_directions(same) == encode_directions(stored)
