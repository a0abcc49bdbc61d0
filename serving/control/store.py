"""The store as control sees it: one snapshot that only moves forward, and the workers' reports.

Two siblings, one contract suite (`tests/contract/test_store_contract.py`): `MemoryStore` here
and `RedisStore` in `serving.control.redis_store`.
"""

import asyncio
from typing import Protocol

from serving.config.keys import WorkerReport
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.errors import InvalidConfig, StoreUnavailable

__all__ = ["MemoryStore", "Store", "Subscription", "readable"]


def readable(content: bytes | str | None) -> Snapshot | None:
    """The snapshot in what a store holds; None for nothing, and for bytes that are none."""
    if not content:
        return None
    try:
        return decode_snapshot(content.encode() if isinstance(content, str) else content)
    except InvalidConfig:  # the store is not only ours
        return None


class Subscription(Protocol):
    """News about published revisions; a hint to look, not a log."""

    async def next(self, timeout_seconds: float) -> int | None:
        """Wait for a revision to be announced; None when the time is up.

        Raises:
            StoreUnavailable: the connection is gone; open a new subscription.
        """
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class Store(Protocol):
    """What control needs of Redis or Valkey. Every method may raise StoreUnavailable."""

    async def check(self) -> str:
        """Say what the store is (`Valkey 9.1.0`).

        Raises:
            InvalidConfig: it is too old, or would evict what must not be lost.
            StoreUnavailable: it does not answer.
        """
        ...

    async def publish(self, snapshot: Snapshot) -> bool:
        """Make `snapshot` the current one and announce it, in one step.

        Returns:
            Whether it is. A revision that is not higher than the current one changes nothing.
        """
        ...

    async def snapshot(self) -> Snapshot | None:
        """The current snapshot, None if there is none (or none that can be read)."""
        ...

    async def report(self, report: WorkerReport) -> None:
        """Write one worker's report over its earlier one."""
        ...

    async def workers(self) -> list[WorkerReport]:
        """Every worker's latest report, by `WorkerReport.key`; without those it cannot read."""
        ...

    async def forget(self, key: str) -> None:
        """Remove a worker's report, by `WorkerReport.key`."""
        ...

    async def metrics(self) -> dict[str, bytes]:
        """What nodes have said of their numbers, by node (`serving.metrics_exchange`)."""
        ...

    async def subscribe(self) -> Subscription:
        """Listen for revisions announced from now on."""
        ...

    async def close(self) -> None:
        """Let go of every connection. Afterwards nothing may be called."""
        ...


class _MemorySubscription:
    def __init__(self, listeners: "set[_MemorySubscription]") -> None:
        self._listeners = listeners
        self.revisions: asyncio.Queue[int] = asyncio.Queue()
        listeners.add(self)

    async def next(self, timeout_seconds: float) -> int | None:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self.revisions.get()
        except TimeoutError:
            return None

    async def close(self) -> None:
        self._listeners.discard(self)


class MemoryStore:
    """A store inside this process, for tests and for trying policies.

    `available = False` makes every call fail as if the server were gone; `clear()` is FLUSHALL.
    Snapshots are kept as bytes, so nothing is shared by reference.
    """

    def __init__(self) -> None:
        self.available = True
        self._snapshot: bytes | None = None
        self._reports: dict[str, WorkerReport] = {}
        self.node_metrics: dict[str, bytes] = {}
        self._listeners: set[_MemorySubscription] = set()

    def clear(self) -> None:
        """Lose everything."""
        self._snapshot = None
        self._reports.clear()
        self.node_metrics.clear()

    def _reach(self) -> None:
        if not self.available:
            raise StoreUnavailable("the store does not answer")

    async def check(self) -> str:
        """See `Store`."""
        self._reach()
        return "memory"

    async def publish(self, snapshot: Snapshot) -> bool:
        """See `Store`."""
        self._reach()
        current = readable(self._snapshot)
        if current is not None and current.revision >= snapshot.revision:
            return False
        self._snapshot = encode_snapshot(snapshot)
        for listener in self._listeners:
            listener.revisions.put_nowait(snapshot.revision)
        return True

    async def snapshot(self) -> Snapshot | None:
        """See `Store`."""
        self._reach()
        return readable(self._snapshot)

    async def report(self, report: WorkerReport) -> None:
        """See `Store`."""
        self._reach()
        self._reports[report.key] = report

    async def workers(self) -> list[WorkerReport]:
        """See `Store`."""
        self._reach()
        return [self._reports[key] for key in sorted(self._reports)]

    async def forget(self, key: str) -> None:
        """See `Store`."""
        self._reach()
        self._reports.pop(key, None)

    async def metrics(self) -> dict[str, bytes]:
        """See `Store`."""
        self._reach()
        return dict(self.node_metrics)

    async def subscribe(self) -> Subscription:
        """See `Store`."""
        self._reach()
        return _MemorySubscription(self._listeners)

    async def close(self) -> None:
        """See `Store`."""
        self._listeners.clear()
