"""What the admin port is asked, as values; `openapi` documents exactly these."""

from typing import Any

import msgspec

from serving.control.rollouts.traffic_seen import Assumed

__all__ = [
    "ApplyRequest",
    "CandidateRequest",
    "LabelErasure",
    "LabelsRequest",
    "PlanRequest",
    "PushRequest",
    "RepositoryRequest",
    "RetrainingAsk",
    "RetrainingEnd",
    "RollRequest",
    "RolloutRequest",
]


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


class LabelErasure(msgspec.Struct, frozen=True, kw_only=True):
    """A subject whose labels are to go.

    `keys` gives for each entity key the texts it may stand as, `predictions` the first two parts
    of the prediction_id and the row of each prediction that was erased; `models` null for all.
    """

    keys: dict[str, list[str]]
    predictions: list[tuple[str, int]] = []
    models: list[str] | None = None
