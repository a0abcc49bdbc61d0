"""Asks now and then what labels say of a rollout, and remembers the last answer.

Predictions and labels are joined in a child process of its own; a log of any size costs the
controller nothing but the age of what it knows. It is asked every 30 s, and is at rest three
quarters of the time at least.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from serving.clock import Clock
from serving.config.schema import GatewayConfig, ModelConfig, RolloutConfig, Rule
from serving.control.labels.desk import taken
from serving.control.labels.joiner_orders import LossRule, RolloutLosses, RolloutLossesTold
from serving.control.labels.joiner_process import Joiner, TooLarge
from serving.errors import Overloaded, SluiceError
from serving.recording.joined import JoinPlan
from serving.rollout.evidence.power import shared
from serving.rollout.judge import deciding
from serving.rollout.judged.labels import RuleResult
from serving.tasks import end

__all__ = ["LabelEvidence", "RolloutLabels", "needs_labels", "order_of", "unfit_for_units"]

_SECONDS: Final = 30.0
_REST: Final = 3
"""Seconds of rest after each second of joining."""

_THINNER: Final = 4
_THINNEST: Final = 4096
"""Of a log that cannot be joined whole one of 4, 16 … entities is, one of 4096 at least."""

_AHEAD_SECONDS: Final = 60.0
"""By how much a worker's clock may be ahead."""

_METRICS: Final = ("label_loss", "slice_gap")
_LOSSES: Final = {"binary": "error", "multiclass": "error", "regression": "absolute_error"}
"""Of rules that name none; of a binary model with a score it is `brier`."""

_LOG = logging.getLogger("rollout_labels")


class LabelEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What labels say of a rollout, as far as that is known."""

    rules: dict[str, RuleResult] = {}
    """By name of the rule, for `serving.rollout.judge.judge`."""

    labels: int = 0
    """Rows of the new version with a label, copies among them, since the rollout began."""

    at: float = 0.0
    """When it was asked, seconds since 1970; 0: not yet."""

    problem: str = ""
    """Why it is not known, or not newer."""


class RolloutLabels:
    """One per control process.

    Args:
        gateway: the gateway's configuration now.
        data: the data directory.
        clock: the time.
    """

    def __init__(self, *, gateway: Callable[[], GatewayConfig], data: Path, clock: Clock) -> None:
        self._gateway = gateway
        self._data = data
        self._clock = clock
        self._joiner = Joiner()
        self._known: dict[str, LabelEvidence] = {}
        self._due: dict[str, float] = {}
        self._one_of: dict[str, int] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def latest(
        self, rollout: str, config: ModelConfig, *, production: str, began: float
    ) -> LabelEvidence:
        """What is known, at once; has the joiner asked in the background if that is old.

        Args:
            rollout: its id.
            config: the model's, with the rollout's plan.
            production: the version that it is compared with.
            began: when the rollout began, seconds since 1970; earlier predictions do not count.
        """
        if not needs_labels(config.rollout):
            return LabelEvidence()
        due = self._due.get(rollout, 0.0)
        if rollout not in self._asking and self._clock.monotonic() >= due:
            self._asking[rollout] = asyncio.get_running_loop().create_task(
                self._ask(rollout, config, production, began)
            )
        return self._known.get(rollout, LabelEvidence(problem="not asked yet"))

    async def losses(
        self, config: ModelConfig, *, production: str, began: float, one_of: int = 1
    ) -> LabelEvidence:
        """Ask now.

        Args:
            config: as in `latest`.
            production: likewise.
            began: likewise.
            one_of: of so many entities one is joined; labels are counted as so many times more.

        Raises:
            SluiceError: the log lacks what is needed, or cannot be joined now.
        """
        now = self._clock.wall()
        log = self._gateway().log
        order = order_of(config, production=production, began=began, now=now)
        if order is None:
            return LabelEvidence(at=now)
        if log is None:
            return _without(config, "predictions are not logged: `log` is absent", now)
        plan = msgspec.structs.replace(order.plan, one_of=one_of)
        order = msgspec.structs.replace(order, plan=plan)
        told = await self._joiner.ask(self._data / log.path, order, RolloutLossesTold)
        found = LabelEvidence(rules=told.results, labels=told.labels * one_of, at=now)
        if unfit := unfit_for_units(config):
            return msgspec.structs.replace(_without(config, unfit, now), labels=found.labels)
        return found

    async def forget(self, rollout: str) -> None:
        """It has ended."""
        task = self._asking.pop(rollout, None)
        if task is not None:
            await end(task)
        self._known.pop(rollout, None)
        self._due.pop(rollout, None)
        self._one_of.pop(rollout, None)

    async def close(self) -> None:
        """End what is being asked, and the child."""
        await end(*self._asking.values())
        self._asking.clear()
        await self._joiner.close()

    async def _ask(self, rollout: str, config: ModelConfig, production: str, began: float) -> None:
        begun = self._clock.monotonic()
        before = self._known.get(rollout, LabelEvidence())
        one_of = self._one_of.get(rollout, 1)
        try:
            found = await self.losses(config, production=production, began=began, one_of=one_of)
        except SluiceError as error:
            if isinstance(error, Overloaded | TooLarge):
                self._one_of[rollout] = min(_THINNEST, one_of * _THINNER)
            found = self._failed(rollout, config, before, error.message)
        except Exception:  # noqa: BLE001 - labels are not worth the controller
            _LOG.exception("labels of %s cannot be asked for", rollout)
            found = self._failed(rollout, config, before, "control's log says why")
        self._known[rollout] = found
        now = self._clock.monotonic()
        self._due[rollout] = now + max(_SECONDS, _REST * (now - begun))
        self._asking.pop(rollout, None)

    def _failed(
        self, rollout: str, config: ModelConfig, before: LabelEvidence, problem: str
    ) -> LabelEvidence:
        """What was known stays known; what never was says why."""
        if before.problem != problem:
            _LOG.warning("%s: labels cannot be compared: %s", rollout, problem)
        if before.at:
            return msgspec.structs.replace(before, problem=problem)
        return msgspec.structs.replace(_without(config, problem, 0.0), problem=problem)


def needs_labels(rollout: RolloutConfig | None) -> bool:
    """Whether some rule or step of a plan is about labels."""
    if rollout is None:
        return False
    return any(rule.metric in _METRICS for rule in rollout.guardrails.rules) or any(
        step.bake.require_labels for step in rollout.steps
    )


def order_of(
    config: ModelConfig, *, production: str, began: float, now: float
) -> RolloutLosses | None:
    """What the joiner is asked; None of a plan without labels. Args as in `RolloutLabels.latest`.

    Without a way to count users in the log it is asked for the number of labels alone.
    """
    rollout = config.rollout
    if rollout is None or not needs_labels(rollout):
        return None
    unfit = unfit_for_units(config)
    monitoring = config.monitoring
    prediction = monitoring.prediction if monitoring is not None else None
    task = prediction.task if prediction is not None else ""
    score = prediction.score if prediction is not None else ""
    plan = JoinPlan(
        model=config.model,
        task=task,
        decision=prediction.decision if prediction is not None else "",
        score=score,
        threshold=prediction.threshold if prediction is not None else 0.5,
        entity=sorted(taken(config).entity),
        slices=list(monitoring.slices) if monitoring is not None else [],
        units="" if unfit else config.traffic.assignment.key or "",
        horizon=0.0,  # each rule has its own
        since=began,
        until=now + _AHEAD_SECONDS,
        now=now,
    )
    guardrails = rollout.guardrails
    share = shared(guardrails.alpha, len(deciding(rollout)))
    return RolloutLosses(
        plan=plan,
        canary=rollout.canary,
        production=production,
        rules=[
            LossRule(
                name=rule.name,
                loss=_loss(rule, task, score),
                sliced=rule.metric == "slice_gap",
                horizon=float(rule.horizon or 0.0),
                limit=rule.abs_tolerance or 0.0,
                prove=rule.prove,
                share=share,
                alpha=guardrails.alpha,
            )
            for rule in guardrails.rules
            if rule.metric in _METRICS and not unfit
        ],
    )


def unfit_for_units(config: ModelConfig) -> str:
    """Why the log cannot tell who was drawn, in words; empty: it can.

    Requests of one user are no independent draws, so counting them instead would find differences
    that are not there.
    """
    assignment = config.traffic.assignment
    if assignment.header is not None:
        return f"versions are drawn by the header `{assignment.header}`, which the log has not"
    if assignment.key is not None and config.log.fields.get(assignment.key) == "drop":
        return f"versions are drawn by `{assignment.key}`, which the log drops (`log.fields`)"
    return ""


def _loss(rule: Rule, task: str, score: str) -> str:
    if rule.loss is not None:
        return rule.loss
    return "brier" if task == "binary" and score else _LOSSES.get(task, "error")


def _without(config: ModelConfig, problem: str, at: float) -> LabelEvidence:
    rules = config.rollout.guardrails.rules if config.rollout is not None else []
    return LabelEvidence(
        rules={rule.name: RuleResult(missing=problem) for rule in rules if rule.metric in _METRICS},
        at=at,
        problem=problem,
    )
