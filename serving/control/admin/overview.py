"""Snapshots and reports become answers; decides, does no I/O."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from serving.config.keys import WorkerReport
from serving.config.schema import GatewayConfig, ModelConfig
from serving.config.snapshot import Snapshot
from serving.control.admin.answers import (
    ConfigAnswer,
    DriftLevel,
    HistoryAnswer,
    ModelStatus,
    QuarantineStatus,
    Readiness,
    RoleShare,
    StagedSummary,
    VersionStatus,
    WorkerStatus,
)
from serving.control.fleet.workers import names_of, state_of
from serving.control.publishing.journal import Entry, Summary
from serving.control.publishing.plan import as_written, compare
from serving.drift.standing import Watched
from serving.quarantine.decision import Quarantined
from serving.traffic.rolled import effective
from serving.types import RepositoryEntry

__all__ = [
    "config_answer",
    "drift_levels",
    "history",
    "is_ready",
    "model_statuses",
    "quarantine_statuses",
    "repository_index",
    "worker_statuses",
]

_State = Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]


def worker_statuses(reports: Iterable[WorkerReport], now: float) -> list[WorkerStatus]:
    """Every reported worker, `now` in wall-clock seconds."""
    return [
        WorkerStatus(
            worker=report.worker,
            state=state_of(report, now),
            revision=report.revision,
            pid=report.pid,
            resident_bytes=report.resident_bytes,
            in_flight=report.in_flight,
            busy=report.busy,
            node=report.node,
            generation=report.generation,
            refused_revision=report.refused_revision,
            refused_reason=report.refused_reason,
        )
        for report in reports
    ]


def is_ready(
    reports: Iterable[WorkerReport], revision: int, now: float, *, store_up: bool
) -> Readiness:
    """Judge readiness: the store answers and at least one worker serves `revision`."""
    if not store_up:
        return Readiness(ready=False, reason="the store does not answer")
    if revision == 0:
        return Readiness(ready=False, reason="nothing has been published yet")
    if any(state_of(one, now) == "ready" and one.revision >= revision for one in reports):
        return Readiness(ready=True)
    return Readiness(ready=False, reason=f"no worker serves revision {revision} yet")


def model_statuses(snapshot: Snapshot, reports: Sequence[WorkerReport]) -> list[ModelStatus]:
    """Every model and version with its part in the traffic."""
    named = names_of(reports)
    return [
        ModelStatus(
            model=name,
            loaded=name not in snapshot.unloaded,
            placement=config.serve.placement,
            versions=[
                VersionStatus(
                    version=version,
                    sha256=staged.sha256,
                    roles=_roles(config, version),
                    inputs=staged.signature.inputs,
                    outputs=staged.signature.outputs,
                    batchable=staged.signature.batchable,
                    not_ready={
                        named[report.key]: report.not_ready[f"{name}/{version}"]
                        for report in reports
                        if f"{name}/{version}" in report.not_ready
                    },
                )
                for version, staged in snapshot.staged.get(name, {}).items()
            ],
        )
        for name, config in sorted(effective(snapshot).items())
    ]


def quarantine_statuses(entries: Iterable[Quarantined]) -> list[QuarantineStatus]:
    """The quarantine as it is shown."""
    return [
        QuarantineStatus(
            model=one.model,
            version=one.version,
            sha256=one.sha256,
            since=one.since,
            crashes=one.crashes,
            reason=one.reason,
        )
        for one in entries
    ]


def drift_levels(watched: Iterable[Watched]) -> list[DriftLevel]:
    """The verdicts as they are shown, of versions that have traffic."""
    return [
        DriftLevel(
            model=one.standing.model,
            version=one.standing.version,
            role=one.standing.role,
            level=one.verdict.level,
            reason=next(iter(one.verdict.reasons), ""),
        )
        for one in watched
        if one.standing.is_current
    ]


def _roles(config: ModelConfig, version: str) -> list[RoleShare]:
    traffic = config.traffic
    weight = traffic.canary.weight if traffic.canary else 0.0
    roles = []
    if traffic.production == version:
        roles.append(RoleShare(role="production", percent=100 - weight))
    if traffic.canary and traffic.canary.version == version:
        roles.append(RoleShare(role="canary", percent=weight))
    roles += [
        RoleShare(role="shadow", percent=shadow.percent)
        for shadow in traffic.shadow
        if shadow.version == version
    ]
    return roles


def repository_index(
    snapshot: Snapshot, reports: Sequence[WorkerReport], now: float
) -> list[RepositoryEntry]:
    """Every version in the configuration and its state over all living workers."""
    living = [report for report in reports if state_of(report, now) in ("ready", "loading")]
    entries = []
    for model, versions in sorted(snapshot.staged.items()):
        for version in versions:
            state, reason = _version_state(snapshot, living, model, version)
            entries.append(RepositoryEntry(model, version, state, reason))
    return entries


def _version_state(
    snapshot: Snapshot, living: Sequence[WorkerReport], model: str, version: str
) -> tuple[_State, str]:
    behind = [report for report in living if report.revision < snapshot.revision]
    refusals = [r for r in behind if r.refused_revision >= snapshot.revision]
    if model in snapshot.unloaded:
        return ("UNLOADING", "") if len(behind) > len(refusals) else ("UNAVAILABLE", "unloaded")
    failed = [report.not_ready.get(f"{model}/{version}") for report in living]
    if reason := next((text for text in failed if text), ""):
        return "UNAVAILABLE", reason
    if not living:
        return "UNAVAILABLE", "no worker is running"
    if refusals:
        return "UNAVAILABLE", refusals[0].refused_reason
    return ("LOADING", "") if behind else ("READY", "")


def config_answer(snapshot: Snapshot, gateway: GatewayConfig) -> ConfigAnswer:
    """The current configuration as it may be shown; `gateway` has no secrets any more."""
    return ConfigAnswer(
        revision=snapshot.revision,
        author=snapshot.author,
        published_at=snapshot.published_at,
        gateway=_plain(gateway),
        models=_plain(snapshot.models),
        views=_plain(snapshot.views),
        staged={
            model: {
                version: StagedSummary(sha256=staged.sha256, signature=staged.signature)
                for version, staged in versions.items()
            }
            for model, versions in snapshot.staged.items()
        },
        unloaded=snapshot.unloaded,
    )


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=as_written)


def history(entries: Sequence[Entry], limit: int) -> HistoryAnswer:
    """The newest `limit` entries with what each changed; entries are given oldest first."""
    newest = []
    for position in range(len(entries) - 1, max(len(entries) - 1 - limit, -1), -1):
        entry = entries[position]
        before = entries[position - 1] if position else None
        plan = compare(
            before.snapshot if before else None,
            entry.snapshot,
            (before.gateway, entry.gateway) if before else None,
        )
        newest.append(
            Summary(
                revision=entry.snapshot.revision,
                author=entry.author,
                at=entry.at,
                action=entry.action,
                reason=entry.reason,
                changes=plan.lines(),
                origin=entry.origin,
            )
        )
    return HistoryAnswer(entries=newest)
