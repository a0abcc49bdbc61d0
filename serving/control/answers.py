"""What the admin port is asked and answers, as values; `openapi` documents exactly these."""

from typing import Any

import msgspec

from serving.control.harm_state import Harm
from serving.control.journal import Summary
from serving.control.monitoring_events import MonitoringEvent
from serving.control.origin import Origin
from serving.control.plan import Plan
from serving.control.rates import Rate
from serving.control.retraining import RetrainingStatus
from serving.control.rolls import RollStatus
from serving.control.traffic_seen import Assumed
from serving.control.workers import Acknowledgement
from serving.drift.standing import Watched
from serving.drift.verdict import Level
from serving.models.candidate import Brought
from serving.rollout.forecast import Forecast
from serving.rollout.standing import RolloutStanding
from serving.rollout.state import Event
from serving.types import Signature, TensorMetadata

__all__ = [
    "ApplyAnswer",
    "ApplyRequest",
    "CandidateAnswer",
    "CandidateRequest",
    "ConfigAnswer",
    "DriftAnswer",
    "DriftLevel",
    "ErasureNoted",
    "Health",
    "HistoryAnswer",
    "LabelErasure",
    "LabelsRequest",
    "LiftAnswer",
    "LoadAnswer",
    "ModelStatus",
    "PlanRequest",
    "PushRequest",
    "QuarantineAnswer",
    "QuarantineStatus",
    "Readiness",
    "RecentAnswer",
    "RepositoryRequest",
    "RepositoryVersion",
    "RetrainingAsk",
    "RetrainingEnd",
    "RoleShare",
    "RollAnswer",
    "RollRequest",
    "RolloutEvents",
    "RolloutHistory",
    "RolloutRequest",
    "StagedSummary",
    "Status",
    "StoreStatus",
    "UnloadAnswer",
    "VersionStatus",
    "WorkerStatus",
]


# --- requests -------------------------------------------------------------------------------


class PlanRequest(Assumed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`directory` is an absolute path on the gateway's machine.

    The rest replaces what was seen of the traffic, for the forecasts of rollouts.
    """

    directory: str


class ApplyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to publish: `directory` is an absolute path on the gateway's machine.

    `expected_revision` refuses if somebody else was faster, `expected_digest` if the files are not
    those that were looked at (`origin.digest` of the history); `dry_run` only plans;
    `wait_seconds` bounds the wait for workers; `reason` is kept in the history.
    """

    directory: str
    expected_revision: int | None = None
    expected_digest: str = ""
    dry_run: bool = False
    reason: str = ""
    wait_seconds: float = 10.0


class RollRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace every process by one of the code that is on disk now. `reason` is for the log."""

    reason: str = ""


class CandidateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came out of a training. `file` and `golden` are absolute paths on the gateway's machine.

    `version` is a name that is not taken; `percent` of the requests are copied to it; `apply` makes
    workers serve it at once, `wait_seconds` bounds the wait for them.
    """

    file: str
    version: str
    golden: str = ""
    percent: float = 100.0
    apply: bool = False
    wait_seconds: float = 10.0


class RetrainingAsk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a person wants a training; it is part of the event."""

    reason: str = ""


class RetrainingEnd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether what came of a training did better than what it should replace."""

    improved: bool


class RolloutRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person does to a rollout.

    `reason` is kept in the history; `expected_revision` refuses if it has moved on meanwhile;
    `full` is for `promote`: past all steps.
    """

    reason: str = ""
    expected_revision: int | None = None
    full: bool = False


class PushRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows of a view: each has every key and every field by name, `null` where there is no value.

    `event_time` says when a row was true, ISO 8601 or milliseconds since 1970; now if it is left
    out. Of two rows for one entity the newer stays.
    """

    rows: list[dict[str, Any]]


class LabelsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came true.

    An item of `labels` is an object with

    - `prediction_id` and perhaps `row` (0 if left out), or `entity` (every key of the model),
      `time` (the newest prediction at or before it is meant) and perhaps `tolerance` (seconds that
      it may be older; the model's horizon if left out) and `model`;
    - `label`: a number, a text, true or false; `label_time`: when it was known (now if left out);
      `source`: where it comes from.

    Times are ISO 8601 or milliseconds since 1970. `model` and `source` stand for items that do not
    say it. `partial` leaves invalid items out; `dry_run` tells what would become of the labels.
    """

    labels: list[Any]
    model: str = ""
    source: str = ""
    partial: bool = False
    dry_run: bool = False


class RepositoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of the repository verbs, as Triton and KServe clients send it; often empty."""

    parameters: dict[str, Any] = {}
    ready: bool = False


# --- answers --------------------------------------------------------------------------------


class LabelErasure(msgspec.Struct, frozen=True, kw_only=True):
    """A subject whose labels are to go.

    `keys` gives for each entity key the texts it may stand as, `predictions` the first two parts
    of the prediction_id and the row of each prediction that was erased; `models` null for all.
    """

    keys: dict[str, list[str]]
    predictions: list[tuple[str, int]] = []
    models: list[str] | None = None


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
