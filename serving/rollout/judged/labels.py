"""What labels say: by how much the canary's mean loss is above production's."""

import math

import msgspec
from msgspec.structs import replace

from serving.rollout.evidence.losses import MeanBounds
from serving.rollout.judged.case import Case, between, finite, number, reached
from serving.rollout.looks import beyond
from serving.rollout.standing import RuleStanding, Verdict

__all__ = ["RuleResult", "label_rule"]


class RuleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the log and its labels say to one rule; from `serving.control.rollouts.labels`."""

    canary_labels: int = 0
    """Units with a label: keys, or requests without one; of copies, pairs."""

    production_labels: int = 0
    canary_mean: float | None = None
    production_mean: float | None = None
    bounds: MeanBounds = MeanBounds()
    """Of the difference of means: of the worst slice, if there are slices."""

    slice: str = ""
    """Which one that is."""

    biased: str = ""
    """Why the labels do not speak for both versions alike, in words."""

    missing: str = ""
    """Why nothing can be said, in words."""


def label_rule(case: Case, result: RuleResult | None) -> RuleStanding:
    """Judge `label_loss` or `slice_gap`."""
    if result is None or result.missing:
        words = result.missing if result is not None else "no labels yet"
        return case.standing("no_data", words, unit="labels")
    if case.rule.test == "threshold":
        return _limit(case, result)
    found = replace(
        case.standing(
            "ok",
            "",
            log_e=result.bounds.log_e,
            canary=(result.canary_labels, result.canary_labels),
            production=(result.production_labels, result.production_labels),
            unit="labels",
        ),
        value=finite(result.bounds.mean),
        low=finite(result.bounds.low),
        high=finite(result.bounds.high),
    )
    if result.bounds.mean is None:
        found.verdict, found.words = "no_data", "no labels of both versions yet"
        return found
    end = _verdict(case, found, result)
    place = f"{result.slice}: " if result.slice else ""
    found.words = (
        f"{place}mean loss {_signed(result.bounds.mean)} against production, "
        f"{_range(found)}, after {result.canary_labels:,} and {result.production_labels:,} "
        f"labels: {end}"
    )
    return found


def _verdict(case: Case, found: RuleStanding, result: RuleResult) -> str:
    """Set it; returns words. Whoever is labelled differently is never called fine."""
    bounds, tolerance = result.bounds, case.rule.abs_tolerance or 0.0
    if bounds.low is None:
        found.verdict = "undecided"
        return "too few yet"
    if result.biased:
        found.verdict = "undecided"
        return f"biased: {result.biased}"
    if bounds.log_e >= -math.log(case.share):
        found.verdict = "regressed"
        return f"proven worse by more than {number(tolerance)}"
    if case.rule.prove is None:
        return "nothing is proven against it"
    found.proof = reached(bounds.log_proof, case.alpha)
    if bounds.log_proof >= -math.log(case.alpha):
        return f"proven below {number(case.rule.prove)} × production's"
    found.verdict = "undecided"
    return f"not yet proven below {number(case.rule.prove)} × production's"


def _limit(case: Case, result: RuleResult) -> RuleStanding:
    value, rule = result.canary_mean, case.rule
    canary, production = [
        (count, count) for count in (result.canary_labels, result.production_labels)
    ]
    verdict: Verdict = "no_data"
    words = f"fewer than {rule.min_samples:,} labels to tell it by"
    if value is not None and result.canary_labels >= rule.min_samples:
        over = beyond(rule, value)
        verdict = "regressed" if over else "ok"
        words = f"mean loss {number(value)}: {'beyond' if over else 'within'} its limit"
    standing = case.standing(verdict, words, canary=canary, production=production, unit="labels")
    return replace(standing, value=value)


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{number(value)}"


def _range(found: RuleStanding) -> str:
    return between(found.low, found.high)
