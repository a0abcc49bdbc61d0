"""Options of a rollout: the steps a new version takes, and what must not get worse meanwhile."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from serving.config.section import Name, Percent, Section, Share
from serving.config.units import Seconds

__all__ = [
    "AfterAbort",
    "Approval",
    "Bake",
    "Breach",
    "Guardrails",
    "HardStops",
    "NotifyConfig",
    "RolloutConfig",
    "Rule",
    "Step",
    "step_words",
]

Breach = Literal["abort", "pause"]


class Bake(Section, frozen=True, kw_only=True):
    """How long a step lasts: until all of it is there and each `prove` is met, or until `max`."""

    min: Seconds = Seconds(0.0)
    """Shortest time of the step."""

    max: Seconds | None = None
    """Longest time of the step; then `guardrails.on_inconclusive` decides. Absent: no limit."""

    min_samples: Annotated[int, Meta(ge=0)] = 0
    """Requests that the new version must have answered (in a shadow step: copies compared)."""

    min_keys: Annotated[int, Meta(ge=0)] = 0
    """Different assignment keys that must have met the new version."""

    require_labels: Annotated[int, Meta(ge=0)] = 0
    """Labels that must have come for the new version's predictions, since the rollout began."""


class Approval(Section, frozen=True, kw_only=True):
    """A person says whether it goes on: `sluice rollout approve`."""

    group: str = ""
    """Who is asked; told in notifications."""

    timeout: Seconds = Seconds(3 * 86400.0)
    """How long it waits."""

    on_timeout: Breach = "abort"
    """What happens if nobody has said anything by then."""


class Step(Section, frozen=True, kw_only=True):
    """One step: exactly one of `shadow`, `weight` and `approve`."""

    shadow: Percent | None = None
    """Percent of requests copied to the new version, whose answers nobody waits for."""

    weight: Percent | None = None
    """Percent of keys that the new version answers. It only grows; the last step is 100."""

    approve: Approval | None = None
    """Traffic stays as it is until a person agrees."""

    bake: Bake = Bake()
    """When the next step begins."""


class Rule(Section, frozen=True, kw_only=True):
    """One thing that must not get worse than production at the same time."""

    name: Name
    """Shown in status and events."""

    metric: Literal[
        "error_rate",
        "latency",
        "prediction_shift",
        "feature_health",
        "shadow_agreement",
        "label_loss",
        "slice_gap",
    ]
    """`error_rate`: failed requests. `latency`: requests slower than `exceeds`, or than
    production's own 50th, 90th and 99th percentile before the step. `prediction_shift`: how often
    each class, or tenth of production's scores, is predicted. `feature_health`: requests with a
    feature that was not fresh. `shadow_agreement`: copies that say the same as production's
    answer. `label_loss`: mean loss once labels are there. `slice_gap`: the same within each slice
    of `monitoring.slices`."""

    test: Literal["relative", "threshold"] = "relative"
    """`threshold` compares the new version's own value with `at_most` or `at_least` instead: it
    sees damage that both versions share, and has no error bound."""

    tolerance: Annotated[float, Meta(ge=1)] | None = None
    """Ratio to production that is still fine; what is proven to be beyond is a breach."""

    prove: Annotated[float, Meta(gt=1)] | None = None
    """Ratio that must be proven not to be reached before the next step. Absent: time is enough."""

    exceeds: Seconds | None = None
    """For `latency`: the time that a request should not exceed."""

    quantile: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """For `latency` with `test: threshold`: the quantile compared with `at_most`, in seconds."""

    at_most: Annotated[float, Meta(ge=0)] | None = None
    """For `test: threshold`: the highest value that is fine (a share, or seconds)."""

    at_least: Annotated[float, Meta(ge=0)] | None = None
    """For `test: threshold` and `shadow_agreement`: the lowest value that is fine (a share)."""

    within: Annotated[float, Meta(ge=0)] = 1e-5
    """For `shadow_agreement`: by how much numbers may differ and still say the same."""

    loss: Literal["error", "brier", "log_loss", "absolute_error", "squared_error"] | None = None
    """For `label_loss` and `slice_gap`: the loss of one prediction."""

    abs_tolerance: Annotated[float, Meta(gt=0)] | None = None
    """For `label_loss` and `slice_gap`: growth of the mean loss that is still fine."""

    horizon: Seconds | None = None
    """For `label_loss` and `slice_gap`: labels that come later than this after their prediction
    are left out of both sides. Absent: none are."""

    sustained: Seconds = Seconds(60.0)
    """For `test: threshold`: how long the value must have been beyond without a break."""

    min_samples: Annotated[int, Meta(ge=1)] = 100
    """For `test: threshold`: requests without which the value says nothing."""

    on_breach: Breach | None = None
    """What happens on a breach. Absent: `guardrails.on_breach`, or `pause` for
    `prediction_shift`, since a new model is meant to predict differently."""


class HardStops(Section, frozen=True, kw_only=True):
    """What ends a rollout at once; each worker looks by itself.

    It has to be the new version alone that fails: an incident that production shares trips nothing.
    """

    consecutive_errors: Annotated[int, Meta(ge=0)] = 5
    """So many failed requests of the new version one after another, in one worker. 0: never."""

    error_rate: Share = 0.5
    """This share of the new version's requests failed …"""

    min_requests: Annotated[int, Meta(ge=1)] = 20
    """… among at least so many …"""

    window: Seconds = Seconds(30.0)
    """… of the last time."""


class Guardrails(Section, frozen=True, kw_only=True):
    """What must not get worse, and what happens if it does."""

    alpha: Annotated[float, Meta(gt=0, le=0.5)] = 0.05
    """Probability that the whole rollout of a version as good as production is stopped, however
    often it is looked at. The rules share it."""

    rules: list[Rule] = []
    """Each by its own name."""

    hard_stops: HardStops = HardStops()
    """For what is obvious."""

    on_breach: Breach = "abort"
    """What a proven breach does."""

    on_no_data: Literal["hold", "pause"] = "hold"
    """What happens while nothing arrives. It is never a pass and never a failure."""

    on_inconclusive: Literal["pause", "abort", "promote"] = "pause"
    """What happens when `bake.max` is over and something is not proven."""

    dry_run: list[Name] = []
    """Rules that are evaluated and shown, and decide nothing."""


class AfterAbort(Section, frozen=True, kw_only=True):
    """What is left of a version that was stopped."""

    keep_warm: Seconds = Seconds(1800.0)
    """How long it stays loaded, to be looked at by name."""

    cooldown: Seconds = Seconds(3600.0)
    """How long no other rollout of this model begins."""

    block_same_digest: bool = True
    """Whether the same file can only come again with `sluice rollout retry --reason`."""


class NotifyConfig(Section, frozen=True, kw_only=True):
    """Who hears of a rollout: a webhook or a file."""

    events: Annotated[
        list[
            Literal[
                "started", "advanced", "paused", "resumed", "approval_needed",
                "aborted", "completed", "inconclusive",
            ]
        ],
        Meta(min_length=1),
    ] = msgspec.field(
        default_factory=lambda: ["paused", "approval_needed", "aborted", "completed"]
    )  # fmt: skip
    """What is told."""

    webhook: Annotated[str, Meta(pattern=r"^(https?://.+)?$")] = ""
    """Address that gets a CloudEvent by POST; tried again for a day."""

    secret_file: str = ""
    """File with the key that signs it (HMAC-SHA256), relative to the configuration directory."""

    file: str = ""
    """Or a file that gets a line of JSON, relative to the data directory."""


class RolloutConfig(Section, frozen=True, kw_only=True):
    """How a new version becomes production. It begins when this is applied."""

    canary: Name
    """The new version, one of `versions`."""

    steps: Annotated[list[Step], Meta(min_length=1)]
    """In order; the last is `weight: 100`."""

    guardrails: Guardrails = Guardrails()
    """What must not get worse meanwhile."""

    after_abort: AfterAbort = AfterAbort()
    """What is left of a version that was stopped."""

    notify: list[NotifyConfig] = []
    """Who hears of it."""

    aa_test: bool = False
    """The new version is the same file as production's, to try a plan out."""


def step_words(step: Step) -> str:
    """A step in words: `shadow 25 %`, `weight 5 %`, `approval of fraud-ml`."""
    if step.approve is not None:
        return f"approval of {step.approve.group}" if step.approve.group else "approval"
    if step.shadow is not None:
        return f"shadow {step.shadow:g} %"
    return f"weight {step.weight or 0:g} %"
