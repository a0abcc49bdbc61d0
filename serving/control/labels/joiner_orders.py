"""What control asks of its joiner, and what it is answered. See `serving.control.labels.joiner`."""

from typing import Literal

import msgspec

from serving.performance.losses import LossWindow
from serving.performance.report import PerformanceReport
from serving.performance.slices import Tolerance
from serving.recording.joined import JoinPlan
from serving.recording.label import Label
from serving.rollout.judged.labels import RuleResult

__all__ = [
    "Answer",
    "By",
    "Failed",
    "Found",
    "LookUp",
    "LossRule",
    "Losses",
    "LossesTold",
    "Order",
    "Report",
    "RolloutLosses",
    "RolloutLossesTold",
    "Told",
    "VersionLosses",
]

By = Literal["version", "role", "slice", "time"]


class LookUp(msgspec.Struct, frozen=True, kw_only=True, tag="look_up"):
    """Are these labels of one model known already, and are their predictions in the log?"""

    model: str
    entity: list[str]
    labels: list[Label]


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """How well does a model do? `bucket` is in seconds, for `by` time."""

    plan: JoinPlan
    by: By
    bucket: float
    min_coverage: float
    tolerance: Tolerance


class Losses(msgspec.Struct, frozen=True, kw_only=True, tag="losses"):
    """What did each version lose: by window, and singly in the order in which labels came?

    `metric` is one of `RetrainConfig.metric`; `window` is in seconds. Single losses are those of
    labels with a revision after `after` and not after `upto`, at most about `most`.
    """

    plan: JoinPlan
    metric: str
    window: float
    after: int
    upto: int
    most: int


class LossRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of a rollout about labels.

    `horizon` is in seconds; `sliced`: within each slice of the order's plan. `limit` is the growth
    of the mean loss that is still fine; `prove` the ratio of means that must not be reached.
    `share` is what a breach may spend of α, `alpha` what a proof may.
    """

    name: str
    loss: str
    sliced: bool
    horizon: float
    limit: float
    prove: float | None
    share: float
    alpha: float


class RolloutLosses(msgspec.Struct, frozen=True, kw_only=True, tag="rollout_losses"):
    """What do labels say of a rollout? Of the plan each rule takes its own horizon."""

    plan: JoinPlan
    canary: str
    production: str
    rules: list[LossRule]


class RolloutLossesTold(msgspec.Struct, frozen=True, kw_only=True, tag="rollout_losses_told"):
    """By name of the rule; and how many rows of the canary, copies among them, have a label."""

    results: dict[str, RuleResult]
    labels: int


class Found(msgspec.Struct, frozen=True, kw_only=True, tag="found"):
    """By place in the labels: the value kept for the key, and when the prediction was made."""

    kept: dict[int, float | str]
    made: dict[int, float]


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told"):
    """The report."""

    report: PerformanceReport


class VersionLosses(msgspec.Struct, frozen=True, kw_only=True):
    """What one version's file lost.

    `windows` are in order of time, single losses in that of their labels. `due` rows are past the
    horizon; `coverage` is the share of those, by weight, that has a label.
    """

    version: str
    digest: str
    windows: list[LossWindow]
    due: int
    coverage: float | None
    single: list[float]


class LossesTold(msgspec.Struct, frozen=True, kw_only=True, tag="losses_told"):
    """Losses of every version.

    `newest` is the revision of the newest label, joined or not; `read` the one up to which single
    losses are here; `more`: others wait.
    """

    versions: list[VersionLosses]
    newest: int
    read: int
    more: bool


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """It could not be done. `ours`: no fault of the caller; `large`: for want of memory."""

    words: str
    ours: bool = False
    large: bool = False


Order = LookUp | Report | Losses | RolloutLosses
Answer = Found | Told | LossesTold | RolloutLossesTold | Failed
