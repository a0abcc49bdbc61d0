"""Where a worker's snapshots come from: the store while it answers, the disk when it does not.

A worker starts from the last good snapshot on its disk and listens to the store; losing the
store costs management, never predictions. A revision that is not higher than the one being
served is ignored.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from serving.config.keys import (
    REPORT_SECONDS,
    SNAPSHOT_CHANNEL,
    SNAPSHOT_KEY,
    WORKERS_KEY,
    WorkerReport,
)
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.errors import InvalidConfig, SluiceError
from serving.files import write_whole
from serving.tasks import end

__all__ = ["SnapshotFeed", "connect"]

_RECONNECT_SECONDS: Final = 0.5
_READ_AGAIN_SECONDS: Final = 5.0
"""A push can be lost; the key is read again this often."""


def connect(url: str) -> "redis.Redis":
    """Make a client that fails within a second instead of redis-py's default minute."""
    return redis.Redis.from_url(
        url,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        health_check_interval=0,
    )


class SnapshotFeed:
    """Bring snapshots to `apply` and this worker's reports to the store.

    `apply` raises SluiceError for a snapshot that cannot be served; it is then reported as
    refused, and tried again whenever the store is read, every five seconds at least.
    """

    def __init__(
        self,
        *,
        url: str,
        data: Path,
        worker: str,
        apply: Callable[[Snapshot], Awaitable[None]],
        report: Callable[[], WorkerReport],
        log: logging.Logger,
    ) -> None:
        self._url = url
        self._file = data / "snapshot.json"
        self._worker = worker
        self._apply = apply
        self._report = report
        self._log = log
        self._seen = 0
        self._changed = asyncio.Event()
        self.refused_revision = 0
        self.refused_reason = ""

    def announce(self) -> None:
        """Report at once: something about this worker has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Serve from disk at once, then follow the store until cancelled."""
        await self._from_disk()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._follow()), loop.create_task(self._reports())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # neither ends by itself: this raises
        finally:
            # Not a TaskGroup: it asks its tasks to end once, and redis-py may drop that.
            ending = loop.create_task(end(*tasks))
            while not ending.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(ending)

    async def _from_disk(self) -> None:
        try:
            snapshot = decode_snapshot(self._file.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, InvalidConfig) as error:
            self._log.warning(
                "the snapshot on disk cannot be read, waiting for the store: %s", error
            )
            return
        await self.offer(snapshot, persist=False)

    async def offer(self, snapshot: Snapshot, *, persist: bool = True) -> None:
        """Apply a snapshot if it is newer than everything seen, or was refused before.

        What kept a revision from being served may have been mended: a file put back, say.
        """
        again = snapshot.revision == self._seen == self.refused_revision
        if snapshot.revision <= self._seen and not again:
            return
        self._seen = snapshot.revision
        started = time.monotonic()
        try:
            await self._apply(snapshot)
        except SluiceError as error:
            if not again or error.message != self.refused_reason:
                self._log.error("revision %d refused: %s", snapshot.revision, error.message)
            self.refused_revision = snapshot.revision
            self.refused_reason = error.message
        else:
            if again:
                self.refused_revision, self.refused_reason = 0, ""
            if persist:
                with contextlib.suppress(OSError):
                    write_whole(self._file, encode_snapshot(snapshot))
            self._log.info(
                "serving revision %d (%.0f ms)",
                snapshot.revision,
                1e3 * (time.monotonic() - started),
            )
        self._changed.set()

    async def _follow(self) -> None:
        silent = False
        while True:
            client = connect(self._url)
            try:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe(SNAPSHOT_CHANNEL)
                    await self._fetch(client)
                    if silent:
                        self._log.warning("the store answers again")
                        silent = False
                    while True:
                        message = await pubsub.get_message(
                            ignore_subscribe_messages=True, timeout=_READ_AGAIN_SECONDS
                        )
                        del message  # only a hint; the key is the truth
                        await self._fetch(client)
            except (RedisError, OSError) as error:
                if not silent:
                    self._log.warning("the store does not answer, serving on: %s", error)
                    silent = True
                await asyncio.sleep(_RECONNECT_SECONDS)
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await client.aclose()

    async def _fetch(self, client: "redis.Redis") -> None:
        body = await client.get(SNAPSHOT_KEY)
        if not isinstance(body, bytes):
            return
        try:
            snapshot = decode_snapshot(body)
        except InvalidConfig as error:
            self._log.error("the store holds a snapshot that cannot be read: %s", error)
            return
        await self.offer(snapshot)

    async def _reports(self) -> None:
        client = connect(self._url)
        try:
            while True:
                report = self._report()
                with contextlib.suppress(RedisError, OSError):
                    await client.hset(WORKERS_KEY, report.key, msgspec.json.encode(report))
                # Not wait_for: on Python 3.11 it can swallow the cancellation that ends us.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_SECONDS):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            try:
                # The last word of a worker that stops in order: it is gone.
                with contextlib.suppress(RedisError, OSError):
                    await client.hdel(WORKERS_KEY, self._report().key)
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await client.aclose()
