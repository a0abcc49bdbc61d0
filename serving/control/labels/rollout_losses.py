"""What labels say of a rollout, from the model's log. Runs in the joiner."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.control.labels.joiner_orders import LossRule, RolloutLosses, RolloutLossesTold
from serving.recording.arms import (
    Pairs,
    Units,
    labelled_rows,
    labelled_units,
    loss_pairs,
    loss_units,
)
from serving.recording.joined import JoinPlan, LogLacks, forget, join
from serving.recording.losses import Loss, loss_of
from serving.rollout.evidence.losses import LEAST_UNITS, compared, coverage_gap
from serving.rollout.judged.labels import RuleResult

if TYPE_CHECKING:
    import duckdb

__all__ = ["measure_rollout"]

_NEVER: Final = 1e9
"""A horizon of thirty years: the label counts whenever it comes."""

_SLICES: Final = 200
"""Most slices of all columns together; the largest are kept."""


def measure_rollout(
    connection: "duckdb.DuckDBPyConnection", log: Path, order: RolloutLosses
) -> RolloutLossesTold:
    """Join once for each horizon, and compare.

    Raises:
        LogLacks: an output or the key that the plan names is not in the log; a slice or a loss that
            cannot be told is said in the result of its rule. OSError, duckdb.Error.
    """
    results: dict[str, RuleResult] = {}
    labels = _joined(connection, log, order, _NEVER, results)
    for horizon in sorted({rule.horizon for rule in order.rules} - {0.0}):
        _joined(connection, log, order, horizon, results)
    return RolloutLossesTold(results=results, labels=labels)


def _joined(
    connection: "duckdb.DuckDBPyConnection",
    log: Path,
    order: RolloutLosses,
    horizon: float,
    results: dict[str, RuleResult],
) -> int:
    """Fill in the rules of one horizon; returns how many rows of the canary have a label."""
    rules = [rule for rule in order.rules if (rule.horizon or _NEVER) == horizon]
    sides = order.canary, order.production
    plain = msgspec.structs.replace(order.plan, horizon=horizon, slices=())
    plan = msgspec.structs.replace(plain, slices=order.plan.slices)
    lacking = ""
    try:
        join(connection, log, plan if any(rule.sliced for rule in rules) else plain)
    except LogLacks as error:
        lacking = str(error)
        join(connection, log, plain)  # without the slices; what else is lacking is raised
    labels, delay = labelled_rows(connection, order.canary)
    biased = ""
    if rules and delay is not None:
        before = plan.now - min(horizon, delay)
        biased = _biased(labelled_units(connection, sides, before=before))
    for rule in rules:
        if rule.sliced and lacking:
            results[rule.name] = RuleResult(missing=lacking)
            continue
        try:
            results[rule.name] = _measured(connection, plan, rule, sides, biased)
        except LogLacks as error:
            results[rule.name] = RuleResult(missing=str(error))
    forget(connection)
    return labels


def _measured(
    connection: "duckdb.DuckDBPyConnection",
    plan: JoinPlan,
    rule: LossRule,
    sides: tuple[str, str],
    biased: str,
) -> RuleResult:
    loss = loss_of(plan.task, rule.loss, scored=bool(plan.score))
    whole = _parts(connection, loss, sides, "")
    units, pairs = whole
    canary_losses = np.concatenate((units.value[units.canary], pairs.canary))
    production_losses = np.concatenate((units.value[~units.canary], pairs.production))
    result = RuleResult(
        canary_labels=len(canary_losses),
        production_labels=len(production_losses),
        canary_mean=_mean(canary_losses),
        production_mean=_mean(production_losses),
        biased=biased,
    )
    if not rule.sliced:
        return msgspec.structs.replace(result, bounds=_compared(rule, whole, slices=1)[1])
    found: dict[str, tuple[Units, Pairs]] = {}
    for place, column in enumerate(plan.slices):
        found |= _by_slice(_parts(connection, loss, sides, f"slice{place}"), column)
    if not found:
        return result
    # Slices share α; those seen so far, which is all there are long before one has units enough.
    largest = sorted(found, key=lambda name: -_size(found[name]))[:_SLICES]
    tested = {name: _compared(rule, found[name], slices=len(largest)) for name in largest}
    worst = max(tested, key=lambda name: (tested[name][0], tested[name][1].log_e))
    bounds = tested[worst][1]
    least = min(one.log_proof for _, one in tested.values())
    excess = math.log(len(largest))  # so that the evidence is compared with the rule's own bound
    return msgspec.structs.replace(
        result,
        bounds=msgspec.structs.replace(bounds, log_e=bounds.log_e - excess, log_proof=least),
        slice=worst,
    )


def _parts(
    connection: "duckdb.DuckDBPyConnection", loss: Loss, sides: tuple[str, str], sliced: str
) -> tuple[Units, Pairs]:
    return (
        loss_units(connection, loss, sides, sliced),
        loss_pairs(connection, loss, sides, sliced),
    )


def _by_slice(parts: tuple[Units, Pairs], column: str) -> dict[str, tuple[Units, Pairs]]:
    units, pairs = parts
    names = {str(one) for one in (*np.unique(units.slice), *np.unique(pairs.slice))}
    return {
        f"{column} {name}": (
            Units(*(one[units.slice == name] for one in units)),
            Pairs(*(one[pairs.slice == name] for one in pairs)),
        )
        for name in sorted(names)
    }


def _size(parts: tuple[Units, Pairs]) -> int:
    return len(parts[0].value) + len(parts[1].canary)


def _compared(rule: LossRule, parts: tuple[Units, Pairs], *, slices: int) -> tuple[bool, Any]:
    """Whether there is enough to say something, and what."""
    units, pairs = parts
    production = _mean(np.concatenate((units.value[~units.canary], pairs.production)))
    bounds = compared(
        units.value,
        units.canary,
        units.rho,
        pairs.canary - pairs.production,
        bounded=rule.loss in ("error", "brier"),
        limit=rule.limit,
        prove=((rule.prove or 1.0) - 1) * (production or 0.0),
        low_error=rule.share / slices,
        high_error=rule.alpha,
    )
    return bounds.low is not None, bounds


def _biased(units: Units) -> str:
    canary, production = units.value[units.canary], units.value[~units.canary]
    if min(len(canary), len(production)) < LEAST_UNITS:
        return ""
    if not coverage_gap(units.value, units.canary, units.rho):
        return ""
    return (
        f"{canary.mean():.0%} of the canary's predictions have a label and {production.mean():.0%} "
        "of production's, so that those labelled are not alike"
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
