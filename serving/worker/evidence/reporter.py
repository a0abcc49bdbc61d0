"""A worker's evidence of rollouts: who is watched, and that control hears of it.

Read `watch` for what a request does, `notes` for what it leaves behind, `counting` and `signals`
for what becomes of that, `sender` for how it travels, and `orphans` for workers that died.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import redis.asyncio as redis
from redis.exceptions import RedisError

from serving.clock import Clock
from serving.config.keys import node_name
from serving.config.snapshot import RolloutTraffic, Snapshot
from serving.metrics import MetricsFile
from serving.worker.evidence.in_flight import Owner, Word
from serving.worker.evidence.orphans import KILLED, speak_for_the_dead
from serving.worker.evidence.outbox import Outbox
from serving.worker.evidence.sender import PERIOD_SECONDS, Account, Sender, count_lost
from serving.worker.evidence.watch import Watch
from serving.worker.snapshots import connect
from serving.worker.table import LiveTable

__all__ = ["Evidence"]

_ORPHANS_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 1.0
_FAREWELLS: Final = 2
"""How often a worker that leaves tries to have its last words taken."""

_LOG = logging.getLogger("evidence")


class Evidence:
    """Owns what one worker counts for rollouts.

    Args:
        store: address of the gateway's store.
        data: the data directory.
        worker: name and pid of this process, such as `worker-0-4711`.
        slots: most requests that can be in flight.
        metrics: this process's numbers.
        clock: for ages and times.
        born: a number that no other process of this name and pid has.
    """

    def __init__(
        self,
        *,
        store: str,
        data: Path,
        worker: str,
        slots: int,
        metrics: MetricsFile,
        clock: Clock,
        born: int,
    ) -> None:
        self._store = store
        self._folder = data / "run" / "evidence"
        self._worker = f"{node_name()}/{worker}"
        self._incarnation = f"{self._worker}:{born:x}"
        self._slots = slots
        self._metrics = metrics
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._live: frozenset[str] | None = None
        self._urgent = asyncio.Event()
        self._orphans_due = 0.0

    # --- tables -------------------------------------------------------------------------

    def follow(self, table: LiveTable) -> None:
        """Have the models of a table watched, by what its snapshot says of their rollouts.

        Called before the table is served. What is counted under the old one stays.
        """
        snapshot = table.snapshot
        if snapshot is None:
            return
        self._live = frozenset(one.id for one in snapshot.rollouts.values())
        for gone in self._accounts.keys() - self._live:
            self._accounts.pop(gone).watch.flight.close()
        for name, model in table.models.items():
            rollout = snapshot.rollouts.get(name)
            if rollout is not None:
                model.watch = self._watch(name, rollout, snapshot)

    def _watch(self, name: str, rollout: RolloutTraffic, snapshot: Snapshot) -> Watch | None:
        account = self._accounts.get(rollout.id)
        if account is not None:
            # What was counted so far belongs to the step before.
            lost = account.close(self._clock.monotonic(), self._clock.wall())
            count_lost(self._metrics, name, lost)
            account.watch.follow(snapshot.models[name], rollout)
        elif rollout.counting:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                account = self._accounts[rollout.id] = self._open(name, rollout, snapshot)
            except OSError as error:
                _LOG.error("nothing is counted for %s: %s", rollout.id, error)
        return account.watch if account is not None and rollout.counting else None

    def _open(self, name: str, rollout: RolloutTraffic, snapshot: Snapshot) -> Account:
        watch = Watch(
            snapshot.models[name],
            rollout,
            folder=self._folder,
            owner=Owner(
                worker=self._worker,
                incarnation=self._incarnation,
                model=name,
                rollout=rollout.id,
            ),
            slots=self._slots,
            urgent=self._stopped(name, rollout.canary),
        )
        return Account(watch, Outbox(self._worker, self._incarnation))

    def _stopped(self, model: str, canary: str) -> Callable[[], None]:
        def stopped() -> None:
            _LOG.error("%s/%s gets no more requests from this worker", model, canary)
            self._metrics.counter("sluice_hard_stops_total", model=model, version=canary).inc()
            self._urgent.set()

        return stopped

    # --- life ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until cancelled; then `finish`."""
        client = connect(self._store)
        sender = self._sender(client)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD_SECONDS):
                        await self._urgent.wait()
                try:
                    await self._turn(client, sender)
                except Exception as error:  # noqa: BLE001 - a rollout that is blind must not stay so
                    _LOG.error("evidence could not be sent, trying again", exc_info=error)
                    await asyncio.sleep(_AGAIN_SECONDS)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await sender.close()
                await client.aclose()

    async def _turn(self, client: "redis.Redis", sender: Sender) -> None:
        at_once = self._urgent.is_set()
        self._urgent.clear()
        arrived = await sender.send(self._accounts.values(), at_once=at_once)
        if arrived and self._live and self._clock.monotonic() >= self._orphans_due:
            self._orphans_due = self._clock.monotonic() + _ORPHANS_SECONDS
            await self._orphans(client)
        held = sum(account.outbox.bytes for account in self._accounts.values())
        self._metrics.gauge("sluice_evidence_held_bytes").set(held)

    async def finish(self) -> None:
        """Say the last words: nothing is in flight any more."""
        if not self._accounts:
            return
        client = connect(self._store)
        sender = self._sender(client)
        arrived = False
        try:
            for _ in range(_FAREWELLS):
                arrived = await sender.send(self._accounts.values(), at_once=True, ended=True)
                if arrived:
                    break
        finally:
            with contextlib.suppress(RedisError, OSError):
                await sender.close()
                await client.aclose()
        for account in self._accounts.values():
            words = account.watch.flight.words
            if arrived and words[Word.SENT] == words[Word.NOTED]:
                account.watch.flight.close()
            else:  # the file stays: somebody will say that there was more
                _LOG.error("the store did not take the last evidence for %s", account.watch.id)

    def _sender(self, client: "redis.Redis") -> Sender:
        return Sender(client, self._metrics, self._clock, _LOG)

    async def _orphans(self, client: "redis.Redis") -> None:
        try:
            lost = await speak_for_the_dead(self._folder, client, self._live or ())
        except (RedisError, OSError) as error:
            _LOG.warning("dead workers are not spoken for yet: %s", error)
            return
        for model, requests in lost.items():
            count_lost(self._metrics, model, {KILLED: requests})
            _LOG.error("%d requests of %s are lost with their worker", requests, model)
