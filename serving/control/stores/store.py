"""The store as control sees it: one snapshot that only moves forward, and the workers' reports.

Two siblings, one contract suite (`tests/contract/test_store_contract.py`): `MemoryStore` here
and `RedisStore` in `serving.control.stores.redis_store`.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from serving.config.directions import (
    Directions,
    NodeReport,
    decode_directions,
    encode_directions,
)
from serving.config.keys import WorkerReport
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.control.stores.evidence_store import EvidenceStore, MemoryEvidence
from serving.errors import InvalidConfig, StoreUnavailable

__all__ = ["MemoryStore", "Store", "Subscription", "outdated", "readable"]

_ENGINES_KEPT: Final = 8


def readable(content: bytes | str | None) -> Snapshot | None:
    """The snapshot in what a store holds; None for nothing, and for bytes that are none."""
    if not content:
        return None
    try:
        return decode_snapshot(content.encode() if isinstance(content, str) else content)
    except InvalidConfig:  # the store is not only ours
        return None


def outdated(stored: Mapping[str, bytes]) -> list[str]:
    """Engines whose directions nobody will ask for again: all but the latest few."""
    found = {engine: decode_directions(content) for engine, content in stored.items()}
    by_age = sorted(found, key=lambda engine: one.began if (one := found[engine]) else 0.0)
    return by_age[:-_ENGINES_KEPT]


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

    evidence: EvidenceStore
    """Of rollouts."""

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

    async def direct(self, directions: Directions) -> bool:
        """Make `directions` the current ones of their engine and announce them, in one step.

        Those of a few earlier engines are kept, of more not.

        Returns:
            Whether they are. A revision that is not higher than the current one changes nothing.
        """
        ...

    async def directions(self, engine: str) -> Directions | None:
        """An engine's current directions, None if there are none (or none that can be read)."""
        ...

    async def nodes(self) -> list[NodeReport]:
        """Every other node's latest report, by its name; without those it cannot read."""
        ...

    async def forget_node(self, node: str) -> None:
        """Remove a node's report."""
        ...

    async def metrics(self) -> dict[str, bytes]:
        """What nodes have said of their numbers, by node (`serving.metrics_exchange`)."""
        ...

    async def rollouts(self) -> dict[str, int]:
        """How many events of each rollout are there, by its id."""
        ...

    async def rollout_events(self, rollout: str) -> dict[int, bytes]:
        """A rollout's events as JSON, by revision."""
        ...

    async def add_rollout_events(self, rollout: str, events: Mapping[int, bytes]) -> bool:
        """Add events in one step; one that is there already stays as it is.

        Returns:
            Whether each of them is there now, and not another one under its revision.
        """
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
        self.node_reports: dict[str, NodeReport] = {}
        self._directions: dict[str, bytes] = {}
        self._rollouts: dict[str, dict[int, bytes]] = {}
        self._listeners: set[_MemorySubscription] = set()
        self.memory_evidence = MemoryEvidence(self._reach)
        self.evidence: EvidenceStore = self.memory_evidence

    def clear(self) -> None:
        """Lose everything."""
        self._snapshot = None
        self._reports.clear()
        self.node_metrics.clear()
        self.node_reports.clear()
        self._directions.clear()
        self._rollouts.clear()
        self.memory_evidence.clear()

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

    async def direct(self, directions: Directions) -> bool:
        """See `Store`."""
        self._reach()
        current = decode_directions(self._directions.get(directions.engine))
        if current is not None and current.revision >= directions.revision:
            return False
        for engine in outdated(self._directions):
            del self._directions[engine]
        self._directions[directions.engine] = encode_directions(directions)
        return True

    async def directions(self, engine: str) -> Directions | None:
        """See `Store`."""
        self._reach()
        return decode_directions(self._directions.get(engine))

    async def nodes(self) -> list[NodeReport]:
        """See `Store`."""
        self._reach()
        return [self.node_reports[node] for node in sorted(self.node_reports)]

    async def forget_node(self, node: str) -> None:
        """See `Store`."""
        self._reach()
        self.node_reports.pop(node, None)

    async def metrics(self) -> dict[str, bytes]:
        """See `Store`."""
        self._reach()
        return dict(self.node_metrics)

    async def rollouts(self) -> dict[str, int]:
        """See `Store`."""
        self._reach()
        return {rollout: len(events) for rollout, events in self._rollouts.items()}

    async def rollout_events(self, rollout: str) -> dict[int, bytes]:
        """See `Store`."""
        self._reach()
        return dict(self._rollouts.get(rollout, {}))

    async def add_rollout_events(self, rollout: str, events: Mapping[int, bytes]) -> bool:
        """See `Store`."""
        self._reach()
        there = self._rollouts.setdefault(rollout, {})
        for revision, event in events.items():
            there.setdefault(revision, event)
        return all(there[revision] == event for revision, event in events.items())

    async def subscribe(self) -> Subscription:
        """See `Store`."""
        self._reach()
        return _MemorySubscription(self._listeners)

    async def close(self) -> None:
        """See `Store`."""
        self._listeners.clear()
