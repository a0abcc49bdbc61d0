"""Tells control on another node what the processes of this one have counted.

One worker of each data directory does it, whoever holds a lock. Where control runs itself there
is nothing to tell: it reads the files, and folds those of the dead, which is done here otherwise.
"""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from serving.config.keys import METRICS_KEY, node_name
from serving.files import try_lock
from serving.metrics_exchange import encode
from serving.metrics_folder import fold, totals
from serving.worker.snapshots import connect

__all__ = ["NodeMetrics"]

_TELL_SECONDS: Final = 2.0


class NodeMetrics:
    """Publishes this node's totals while control is elsewhere.

    Args:
        data: the data directory.
        url: the store's address.
    """

    def __init__(self, data: Path, url: str, log: logging.Logger) -> None:
        self._folder = data / "metrics"
        self._run = data / "run"
        self._url = url
        self._log = log

    async def run(self) -> None:
        """For ever, until cancelled."""
        lock: int | None = None
        try:
            while True:
                if lock is None:
                    lock = try_lock(self._run / "node-metrics.lock")
                if lock is not None and not self._control_is_here():
                    await self._tell()
                await asyncio.sleep(_TELL_SECONDS)
        finally:
            if lock is not None:
                os.close(lock)

    def _control_is_here(self) -> bool:
        return (self._run / "control.sock").exists()

    async def _tell(self) -> None:
        try:
            content = await asyncio.to_thread(self._sum)
        except OSError as error:
            self._log.warning("counters cannot be added up: %s", error.strerror)
            return
        client = connect(self._url)
        try:
            with contextlib.suppress(RedisError, OSError):  # the feed has said that it is away
                await client.hset(METRICS_KEY, node_name(), content)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    def _sum(self) -> bytes:
        fold(self._folder)
        return encode(totals(self._folder))
