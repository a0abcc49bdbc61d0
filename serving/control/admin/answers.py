"""What the admin port answers, as values; `openapi` documents exactly these."""

from typing import Any

import msgspec

from serving.control.fleet.rates import Rate
from serving.control.fleet.rolls import RollStatus
from serving.control.fleet.workers import Acknowledgement
from serving.control.monitoring.events import MonitoringEvent
from serving.control.monitoring.harm_state import Harm
from serving.control.publishing.journal import Summary
from serving.control.publishing.origin import Origin
from serving.control.publishing.plan import Plan
from serving.control.training.retraining import RetrainingStatus
from serving.drift.standing import Watched
from serving.drift.verdict import Level
from serving.models.candidate import Brought
from serving.rollout.forecast import Forecast
from serving.rollout.standing import RolloutStanding
from serving.rollout.state import Event
from serving.types import Signature, TensorMetadata

__all__ = [
    "ApplyAnswer",
    "CandidateAnswer",
    "ConfigAnswer",
    "DriftAnswer",
    "DriftLevel",
    "ErasureNoted",
    "Health",
    "HistoryAnswer",
    "LiftAnswer",
    "LoadAnswer",
    "ModelStatus",
    "QuarantineAnswer",
    "QuarantineStatus",
    "Readiness",
    "RecentAnswer",
    "RepositoryVersion",
    "RoleShare",
    "RollAnswer",
    "RolloutEvents",
    "RolloutHistory",
    "StagedSummary",
    "Status",
    "StoreStatus",
    "UnloadAnswer",
    "VersionStatus",
    "WorkerStatus",
]


class ErasureNoted(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt of `LOG/erasures.jsonl`, and the digest of its line."""

    receipt: str
    sha256: str


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    healthy: bool = True


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the store answers and a worker serves the current revision.

    `quarantined` counts versions that get no requests all the same.
    """

    ready: bool
    reason: str = ""
    quarantined: int = 0


class RoleShare(msgspec.Struct, frozen=True, kw_only=True):
    """A role of a version and the percent of requests it gets in it."""

    role: str
    percent: float


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version: its file, its tensors, its part in the traffic, and who cannot answer."""

    version: str
    sha256: str
    roles: list[RoleShare]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    batchable: bool
    not_ready: dict[str, str] = {}
    """Worker to reason."""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    model: str
    loaded: bool
    placement: str
    versions: list[VersionStatus]


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker; `silent` is one that stopped reporting. `busy` is its share of a core."""

    worker: str
    state: str
    revision: int
    pid: int
    resident_bytes: int
    in_flight: int
    busy: float = 0.0
    node: str = ""
    generation: int = 0
    refused_revision: int = 0
    refused_reason: str = ""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The store's name and version, and whether it answers."""

    name: str
    up: bool


class QuarantineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A version that crashed workers: since when (wall-clock seconds) it is kept out, and why."""

    model: str
    version: str
    sha256: str
    since: float
    crashes: int
    reason: str


class DriftLevel(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a version's traffic in a role, and its gravest reason."""

    model: str
    version: str
    role: str
    level: Level
    reason: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at a glance. `problem`: why the configuration directory is not what is served."""

    version: str
    ready: bool
    revision: int
    author: str
    published_at: float
    store: StoreStatus
    models: list[ModelStatus]
    workers: list[WorkerStatus]
    rates: list[Rate]
    problem: str = ""
    quarantined: list[QuarantineStatus] = []
    drift: list[DriftLevel] = []
    """Of versions that are watched and have traffic."""
    roll: RollStatus = RollStatus()
    rollouts: list[RolloutStanding] = []
    """The last rollout of each model that has had one."""
    origin: Origin | None = None
    """Of the directory that is served; None if it was applied before this was recorded."""


class StagedSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A staged file without its place on disk."""

    sha256: str
    signature: Signature


class ConfigAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The current configuration; secrets are left out.

    `gateway`, `models` and `views` are written as in YAML, defaults included; their form is
    that of `configs/schema.json`.
    """

    revision: int
    author: str
    published_at: float
    gateway: dict[str, Any]
    models: dict[str, dict[str, Any]]
    views: dict[str, dict[str, Any]]
    staged: dict[str, dict[str, StagedSummary]]
    unloaded: list[str]


class ApplyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What changed (or would), and what each worker made of it.

    `published`: `revision` is new; otherwise it is the one that was served before.
    """

    revision: int
    published: bool
    plan: Plan
    lines: list[str]
    warnings: list[str]
    workers: list[Acknowledgement] = []
    roll: RollStatus = RollStatus()
    """How far the engine is, if it was given something to do."""

    forecasts: dict[str, Forecast] = {}
    """Of a plan: what each model's rollout can be expected to see, step by step."""

    held: dict[str, str] = {}
    """By model: why the rollout that its file asks for does not begin by itself."""


class CandidateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The shadow that the configuration has now; `revision` is what is served."""

    candidate: Brought
    revision: int
    published: bool
    workers: list[Acknowledgement] = []


class RollAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was ordered; `GET /api/v1/status` says how far it is."""

    generation: int


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Published revisions, newest first."""

    entries: list[Summary]


class RolloutEvents(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout's events, oldest first."""

    id: str
    events: list[Event]


class RolloutHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A model's rollouts, newest first."""

    rollouts: list[RolloutEvents]


class RecentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Latest predictions of all workers, newest first; workers that did not answer are named."""

    predictions: list[dict[str, Any]]
    unreachable: list[str] = []


class RepositoryVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the repository index."""

    name: str
    version: str
    state: str
    reason: str = ""


class LoadAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """KServe's answer to load."""

    name: str
    load: bool = True


class UnloadAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """KServe's answer to unload."""

    name: str
    unload: bool = True


class QuarantineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Versions in quarantine, oldest first."""

    quarantined: list[QuarantineStatus]


class LiftAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is let back; `waiting` names workers that had not loaded it in time."""

    model: str
    version: str
    waiting: list[str] = []


class DriftAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model's versions; `words` says why there is nothing, if there is not.

    Without a reference (`has_reference`) there never will be.

    `harm`: how each version's losses stand, where `monitoring.retrain` is configured;
    `harm_problem` says why that is not known. `events`: changes of level, newest first.
    """

    model: str
    has_reference: bool = True
    watched: list[Watched]
    words: str = ""
    harm: list[Harm] = []
    harm_problem: str = ""
    retraining: RetrainingStatus | None = None
    events: list[MonitoringEvent] = []
