"""`DATA/hosts.json`: for which versions the engine keeps processes of their own.

While workers go from one revision to the next, both revisions' hosts are wanted; the older ones'
are let go when every worker that reports serves the newer.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from serving.config.hosts import HostSpec, merged, read_hosts, wanted_hosts, write_hosts
from serving.config.keys import WorkerReport
from serving.config.snapshot import Snapshot
from serving.errors import InvalidConfig

__all__ = ["HostList", "may_let_go"]


def may_let_go(revision: int, reports: Sequence[WorkerReport]) -> bool:
    """Whether nobody uses hosts of an older revision: all who report serve this one.

    None reporting proves nothing: workers that have lost the store serve on.
    """
    return bool(reports) and all(report.revision >= revision for report in reports)


class HostList:
    """Keeps the file. A disk that cannot be written costs a warning, and another try."""

    def __init__(self, data: Path, log: logging.Logger) -> None:
        self._data = data
        self._log = log
        self._settled = 0

    async def announce(self, snapshot: Snapshot) -> None:
        """Have the engine start what this snapshot needs, before any worker is told of it."""
        await asyncio.to_thread(self._write, wanted_hosts(snapshot), keep=True)

    def is_settled(self, snapshot: Snapshot) -> bool:
        """Whether nothing but what this snapshot needs is listed."""
        return self._settled >= snapshot.revision

    async def settle(self, snapshot: Snapshot, reports: Sequence[WorkerReport]) -> None:
        """Let the others go once that harms nobody."""
        if self.is_settled(snapshot) or not may_let_go(snapshot.revision, reports):
            return
        if await asyncio.to_thread(self._write, wanted_hosts(snapshot), keep=False):
            self._settled = snapshot.revision

    def _write(self, wanted: list[HostSpec], *, keep: bool) -> bool:
        try:
            there = read_hosts(self._data)
        except InvalidConfig as error:
            self._log.warning("%s; it is written anew", error.message)
            there = []
        listed = merged(there, wanted) if keep else wanted
        if listed == there:
            return True
        try:
            write_hosts(self._data, listed)
        except OSError as error:
            self._log.warning("the list of model hosts cannot be written: %s", error.strerror)
            return False
        return True
