"""What is taken from production once, so that it cannot move with what it measures.

Bounds of latency come from production's own durations, bins of scores from the model's reference.
Frozen before they count anything, they favour nobody: under "alike" a canary's request falls
beyond them as often as production's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from serving.config.frozen_bins import FrozenColumn, Reference
from serving.config.schema import ModelConfig
from serving.rollout.state import RolloutState

__all__ = ["ENOUGH", "QUANTILES", "bins", "deciles", "latency_bounds"]

ENOUGH: Final = 200
"""Durations of production from which bounds are taken: two of them lie beyond the 99th
percentile."""

QUANTILES: Final = (0.5, 0.9, 0.99)


def latency_bounds(
    config: ModelConfig, state: RolloutState, seconds: Sequence[float]
) -> dict[str, list[float]]:
    """Bounds that are still missing and can be had, by rule.

    Args:
        config: the model.
        state: what is frozen already.
        seconds: sampled durations of production's requests.
    """
    if config.rollout is None or len(seconds) < ENOUGH:
        return {}
    ordered = sorted(seconds)
    # Alike ones (a clock that is coarse) would count every event twice.
    bounds = sorted({ordered[math.ceil(q * len(ordered)) - 1] for q in QUANTILES})
    return {
        rule.name: bounds
        for rule in config.rollout.guardrails.rules
        if rule.metric == "latency"
        and rule.test == "relative"
        and rule.exceeds is None
        and rule.name not in state.latency_bounds
    }


def bins(
    config: ModelConfig, state: RolloutState, references: Mapping[str, Reference]
) -> dict[str, list[float]]:
    """Inner edges that are still missing and can be had, by rule; none for classes."""
    if config.rollout is None or config.monitoring is None:
        return {}
    prediction, reference = config.monitoring.prediction, references.get(config.model)
    if prediction is None:
        return {}
    column = None
    if reference is not None:
        column = reference.columns.get(prediction.score or prediction.decision)
    edges = deciles(column) if column is not None else []
    return {
        rule.name: edges
        for rule in config.rollout.guardrails.rules
        if rule.metric == "prediction_shift" and rule.name not in state.bins
    }


def deciles(column: FrozenColumn) -> list[float]:
    """The inner edges nearest to the tenths of a reference's numbers, ascending; [] for classes.

    A reference has up to 16 quantiles of its own; two tenths may share one, which then counts once.
    """
    if column.kind != "numeric":
        return []
    counts = column.counts[len(column.special) :]
    total = sum(counts)
    if not total:
        return []
    shares, below = [], 0
    for count in counts[:-1]:
        below += count
        shares.append(below / total)
    inner = column.edges[1:-1]
    chosen = {
        min(range(len(inner)), key=lambda at: abs(shares[at] - tenth / 10))
        for tenth in range(1, 10)
        if inner
    }
    return [inner[at] for at in sorted(chosen)]
