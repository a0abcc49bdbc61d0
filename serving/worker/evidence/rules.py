"""What is counted of one model's requests while a rollout lasts; compiled with its table. Pure."""

from typing import Any

import msgspec

from serving.config.schema import HardStops, ModelConfig, PredictionConfig, RolloutConfig
from serving.config.snapshot import RolloutTraffic
from serving.drift.counting import output_column

__all__ = ["CountPlan", "PredictionRule", "compile_plan", "label_of"]


class PredictionRule(msgspec.Struct, frozen=True):
    """A rule about what is predicted: the value at `source`, and how it is sorted."""

    name: str
    source: int
    """Which of the plan's `sources` it reads."""

    edges: tuple[float, ...] | None
    """Inner edges of the bins that a number is counted into; None: by the value itself."""


class CountPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of one step, as workers need them."""

    step: int
    errors: tuple[str, ...]
    """Rules that a failed request is an event of."""

    slow: tuple[tuple[str, float], ...]
    """Signals of latency and the seconds beyond which a request is one."""

    health: tuple[str, ...]
    """Rules that a request with a feature that was not fresh is an event of."""

    predictions: tuple[PredictionRule, ...]
    sources: tuple[tuple[str, int], ...]
    """Values read from an answer: output and column of its first row."""

    within: float
    """By how much a copy's numbers may differ and still say the same."""

    stops: HardStops
    each: frozenset[str] = frozenset()
    """Rules that compare a share with a limit: each request counts, however often a key has it."""

    @property
    def failing(self) -> list[str]:
        """Signals of a request that failed."""
        return [*self.errors, *(signal for signal, _ in self.slow)]


def compile_plan(config: ModelConfig, rollout: RolloutTraffic) -> CountPlan:
    """Resolve the rules that workers count for; those about labels are control's.

    A rule of latency without `exceeds` counts nothing until control has frozen its bounds, one of
    predictions nothing in a model that does not say what its outputs mean.
    """
    plan = config.rollout
    guardrails = plan.guardrails if isinstance(plan, RolloutConfig) else None
    rules = guardrails.rules if guardrails is not None else []
    prediction = config.monitoring.prediction if config.monitoring is not None else None
    slow: list[tuple[str, float]] = []
    predictions: list[PredictionRule] = []
    sources: dict[tuple[str, int], int] = {}
    for rule in rules:
        if rule.metric == "latency":
            if rule.exceeds is not None:
                slow.append((rule.name, float(rule.exceeds)))
            else:
                bounds = rollout.latency_bounds.get(rule.name, [])
                slow += [(f"{rule.name}:{at}", bound) for at, bound in enumerate(bounds)]
        elif rule.metric == "prediction_shift" and prediction is not None:
            source, edges = _predicted(prediction, rollout.bins.get(rule.name, []))
            if source:
                at = sources.setdefault(output_column(source), len(sources))
                predictions.append(PredictionRule(rule.name, at, edges))
    return CountPlan(
        step=rollout.step,
        errors=tuple(rule.name for rule in rules if rule.metric == "error_rate"),
        slow=tuple(slow),
        health=tuple(rule.name for rule in rules if rule.metric == "feature_health"),
        predictions=tuple(predictions),
        sources=tuple(sources),
        within=next((rule.within for rule in rules if rule.metric == "shadow_agreement"), 1e-5),
        stops=guardrails.hard_stops if guardrails is not None else HardStops(),
        each=frozenset(rule.name for rule in rules if rule.test == "threshold"),
    )


def _predicted(
    prediction: PredictionConfig, edges: list[float]
) -> tuple[str, tuple[float, ...] | None]:
    """Where a prediction is read, and the edges of its bins."""
    if edges:
        return prediction.score or prediction.decision, tuple(edges)
    if prediction.decision:
        return prediction.decision, None
    return prediction.score, (prediction.threshold,)


def label_of(value: Any) -> str:
    """A class as text, the same in every worker; at most 40 characters."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)[:40]
