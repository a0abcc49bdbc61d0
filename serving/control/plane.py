"""What the admin port's answers are made from: the publisher, the workers, the counters."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import Metric

from serving.clock import Clock
from serving.config.keys import WorkerReport, node_name
from serving.config.schema import GatewayConfig, ModelConfig
from serving.config.snapshot import Snapshot
from serving.control.audit import AuditLog
from serving.control.ballast import Ballast
from serving.control.features.writer import FeatureWriter
from serving.control.fleet.exposition import Page, own_families
from serving.control.fleet.quarantine import QuarantineKeeper, configured_keys, is_everywhere
from serving.control.fleet.rates import Rates
from serving.control.fleet.rolls import RollStatus
from serving.control.fleet.workers import (
    FORGET_SECONDS,
    Acknowledgement,
    acknowledgements,
    is_settled,
    state_of,
)
from serving.control.labels.desk import LabelDesk
from serving.control.monitoring.drift import DriftMonitor
from serving.control.monitoring.drift_families import drift_families
from serving.control.monitoring.events import MonitoringEvents
from serving.control.monitoring.harm import HarmMonitor
from serving.control.outbound import Reach
from serving.control.publishing.plan import without_secrets
from serving.control.publishing.publisher import Publisher
from serving.control.publishing.rollout_changes import LiveRollout, live_of
from serving.control.rollouts.announcer import Announcer
from serving.control.rollouts.families import rollout_families
from serving.control.rollouts.log import RolloutLog
from serving.control.rollouts.notices import Notices
from serving.control.rollouts.observer import Observer
from serving.control.rollouts.rollouts import Rollouts
from serving.control.rollouts.traffic_seen import Assumed, rate_of, traffic_of
from serving.control.rollouts.verbs import RolloutVerbs
from serving.control.stores.store import Store
from serving.control.training.deliveries import Courier
from serving.control.training.retraining import RetrainingDesk
from serving.errors import StoreUnavailable
from serving.metrics import Samples, total
from serving.metrics_exchange import decode
from serving.metrics_folder import fold, outliving, totals
from serving.recording.ledger import DROPPED
from serving.rollout.forecast import Traffic

__all__ = ["ControlPlane"]

_POLL_SECONDS: Final = 0.05
_UPKEEP_SECONDS: Final = 1.0
_QUARANTINE_SECONDS: Final = 0.25
_LONGEST_WAIT_SECONDS: Final = 60.0
_LOST: Final = frozenset((*DROPPED, "crash"))


class ControlPlane:
    """Collaborators of every endpoint, and the upkeep that they rely on.

    Args:
        publisher: changes what is served.
        features: writes rows that are pushed.
        labels: takes labels.
        audit: the audit log.
        courier: delivers requests for training.
        store: where workers report.
        observer: of what workers count for rollouts.
        data: the data directory.
        version: of this installation.
    """

    def __init__(
        self,
        *,
        publisher: Publisher,
        features: FeatureWriter,
        labels: LabelDesk,
        audit: AuditLog,
        courier: Courier,
        store: Store,
        observer: Observer,
        data: Path,
        version: str,
        clock: Clock,
    ) -> None:
        self.publisher = publisher
        self.features = features
        self.labels = labels
        self.version = version
        self.clock = clock
        self.data = data
        self.sockets = data / "run"
        self.rates = Rates()
        self._elsewhere: Samples = {}
        self.page = Page(self._totals, self._own_metrics)
        self._log = logging.getLogger("control")
        self.quarantine = QuarantineKeeper(data, self._log)
        self.harm = HarmMonitor(
            data / "harm",
            current=self._published,
            gateway=lambda: publisher.running.gateway,
            data=data,
            clock=clock,
        )
        self.drift = DriftMonitor(
            data / "drift",
            current=self._published,
            harm=self.harm.of,
            lost=self._lost_records,
            events=MonitoringEvents(data / "journal" / "monitoring.jsonl"),
            clock=clock,
        )
        self.address = ""
        """URL of the admin port, once it is bound."""
        self.retraining = RetrainingDesk(
            data / "retraining",
            current=self._published,
            verdicts=lambda: self.drift.verdicts,
            harm=self.harm.of,
            courier=courier,
            audit=audit,
            directory=publisher.configured_in,
            source=lambda: self.address,
            log=lambda: self._log_folder(data),
            clock=clock,
        )
        self.notices = Notices(
            data / "rollouts",
            data=data,
            directory=publisher.configured_in,
            reach=self._reach,
            source=lambda: self.address,
            clock=clock,
        )
        publisher.busiest = self.busiest
        self.rollouts = Rollouts(
            RolloutLog(data / "rollouts", store),
            publisher=publisher,
            store=store,
            observer=observer,
            quarantined=lambda: self.quarantine.entries,
            announcer=Announcer(audit),
            ballast=Ballast(data / "ballast"),
            clock=clock,
        )
        publisher.live = self._live
        self.rollouts.tell = self.notices.tell
        self.rollout_verbs = RolloutVerbs(self.rollouts)
        self._metrics_folder = data / "metrics"
        self._store = store
        self._reports: list[WorkerReport] = []

    def _published(self) -> Snapshot | None:
        return self.publisher.current if self.publisher.started else None

    def _reach(self) -> Reach:
        """Where notices may be sent to."""
        notify = self.publisher.running.gateway.notify
        return Reach(hosts=notify.hosts, loopback=notify.private, private=notify.private)

    def _log_folder(self, data: Path) -> str:
        log = self.publisher.running.gateway.log
        return str(data.absolute() / log.path) if log is not None else ""

    def _lost_records(self) -> int:
        """Records that the prediction log has dropped, ever, on all nodes. Reads files."""
        return int(
            sum(
                slots[0]
                for (name, labels), slots in self._totals().items()
                if name == "sluice_log_rows_total" and labels[0] in _LOST
            )
        )

    @property
    def gateway(self) -> GatewayConfig:
        """`gateway.yaml` as the processes go by it, without secrets."""
        return without_secrets(self.publisher.running.gateway)

    async def roll_status(self) -> RollStatus:
        """How far the engine is with what was ordered last."""
        rolls = self.publisher.rolls
        if rolls is None:
            return RollStatus()
        return rolls.status(await self.workers(), self.clock.wall())

    async def until_rolled(self, seconds: float) -> RollStatus:
        """Wait until the engine is done or has given up, at most `seconds`.

        Control's own part is not waited for: whoever asks would not hear of it.
        """
        until = self.clock.monotonic() + min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)
        while True:
            status = await self.roll_status()
            over = status.done or status.failed
            if over or self.clock.monotonic() >= until or self._only_control(status):
                return status
            await asyncio.sleep(_POLL_SECONDS)

    def _only_control(self, status: RollStatus) -> bool:
        return status.control and status.rolled == status.workers > 0

    def traffic(self, model: ModelConfig, assumed: Assumed) -> Traffic:
        """What a rollout of this model would meet now. Reads files."""
        rate = rate_of(model.model, self.rates.now())
        return traffic_of(model, rate, self._totals(), assumed)

    def _live(self) -> dict[str, LiveRollout]:
        log = self.rollouts.log
        last = (told.state for model in log.models if (told := log.last(model)) is not None)
        return live_of(last, self.publisher.current)

    def busiest(self, model: ModelConfig) -> Traffic | None:
        """The most requests a second that a model had in the last day; None: it had none."""
        rate = self.rates.busiest(model.model)
        return Traffic(rate=rate) if rate else None

    async def workers(self) -> list[WorkerReport]:
        """The workers' latest reports; the last ones known while the store is away."""
        try:
            self._reports = await self._store.workers()
        except StoreUnavailable:
            self.publisher.upkeep.store_up = False
        return self._reports

    async def until_settled(self, revision: int, seconds: float) -> list[Acknowledgement]:
        """Wait until every worker has applied or refused `revision`, at most `seconds`."""
        seconds = min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)
        until = self.clock.monotonic() + seconds
        while True:
            answers = acknowledgements(await self.workers(), revision, self.clock.wall())
            if is_settled(answers) or self.clock.monotonic() >= until:
                return answers
            await asyncio.sleep(_POLL_SECONDS)

    async def keep(self) -> None:
        """Fold dead workers' counters, sample rates, forget lost workers; never returns."""
        silent = False
        while True:
            try:
                await asyncio.to_thread(self._count)
                silent = False
            except OSError as error:  # a full disk, say: it costs figures, not the admin port
                if not silent:
                    self._log.warning("counters cannot be added up: %s", error.strerror)
                silent = True
            now = self.clock.wall()
            reports = await self.workers()
            if self.publisher.rolls is not None:
                await asyncio.to_thread(self.publisher.rolls.keep, reports, now)
            for report in reports:
                if now - report.reported_at > FORGET_SECONDS:
                    await self._forget(report.key)
            await self._hear_other_nodes()
            await asyncio.sleep(_UPKEEP_SECONDS)

    async def keep_quarantine(self, audit: AuditLog) -> None:
        """Tell of versions that come into quarantine, forget those nobody has; never returns."""
        silent = False
        while True:
            try:
                await self.quarantine.tell(audit)
                current = self.publisher.current if self.publisher.started else None
                if current is not None and is_everywhere(current.revision, self._reports):
                    await self.quarantine.forget_all_but(configured_keys(current), audit)
                silent = False
            except OSError as error:
                if not silent:
                    self._log.warning("the quarantine cannot be kept: %s", error.strerror)
                silent = True
            await asyncio.sleep(_QUARANTINE_SECONDS)

    def _count(self) -> None:
        self._metrics_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fold(self._metrics_folder)
        self.rates.observe(self._totals(), self.clock.monotonic())

    async def _hear_other_nodes(self) -> None:
        try:
            told = await self._store.metrics()
        except StoreUnavailable:
            return  # what they said last counts until it answers
        now = self.clock.wall()
        alive = {one.node for one in self._reports if state_of(one, now) != "silent"}
        self._elsewhere = total(
            [
                # What a node that has gone counted stays counted; what it held it holds no more.
                decode(content) if node in alive else outliving(decode(content))
                for node, content in sorted(told.items())
                if node != node_name()
            ]
        )

    def _totals(self) -> Samples:
        """What all processes of all nodes have counted. Reads files."""
        return total([totals(self._metrics_folder), self._elsewhere])

    async def _forget(self, key: str) -> None:
        try:
            await self._store.forget(key)
        except StoreUnavailable:
            return  # it will be tried again in a second

    def _own_metrics(self) -> Iterator[Metric]:
        now = self.clock.wall()
        yield from drift_families(self.drift.watched.values())
        yield from rollout_families(self.rollouts.standings())
        yield from own_families(
            version=self.version,
            revision=self.publisher.revision,
            workers=[(report, state_of(report, now)) for report in self._reports],
            store_up=self.publisher.upkeep.store_up,
            feature_writes=self.features.counts,
            stream_lag=self.features.lag,
            label_outcomes=self.labels.counts,
            monitoring_events=self.drift.events.counts,
            retrainings=self.retraining.counts,
            notices=self.notices.counts,
            quarantined=[(one.model, one.version) for one in self.quarantine.entries],
        )
