"""What each rule says of a rollout just now: from the plan, the book, and what labels have told.

A breach is proven at α divided by the number of rules that decide, so that all of them together
stop a version as good as production with probability α at most, however often they are asked. A
proof needs α itself: all have to be proven, and one wrong one changes nothing as long as another
is not. Rules of `dry_run` decide nothing and spend nothing; thresholds have no error bound.
"""

from collections.abc import Mapping

from serving.config.schema import RolloutConfig, Rule
from serving.config.snapshot import RolloutTraffic
from serving.rollout.evidence.power import shared
from serving.rollout.judged.case import Case
from serving.rollout.judged.copies import agreement
from serving.rollout.judged.events import event_rule
from serving.rollout.judged.labels import RuleResult, label_rule
from serving.rollout.judged.limits import limit
from serving.rollout.judged.predictions import prediction_shift
from serving.rollout.looks import EventBook, Looks, RuleLook
from serving.rollout.standing import RuleStanding

__all__ = ["deciding", "judge", "learns_in"]


def deciding(config: RolloutConfig) -> list[Rule]:
    """Rules that share α."""
    guardrails = config.guardrails
    return [
        rule
        for rule in guardrails.rules
        if rule.test == "relative" and rule.name not in guardrails.dry_run
    ]


def learns_in(rule: Rule, *, weight: float, shadow: float) -> bool:
    """Whether a step with so much traffic can add anything to a rule's evidence.

    Copies tell of agreement and, in pairs, of losses; the other rules compare requests that were
    drawn, of which there are none at 0 and at 100 percent. A step does not wait for what cannot
    come.

    Args:
        rule: of the plan.
        weight: percent of keys that the canary answers.
        shadow: percent of requests that are copied to it.
    """
    drawn = 0 < weight < 100
    if rule.metric == "shadow_agreement":
        return shadow > 0
    if rule.metric in ("label_loss", "slice_gap"):
        return True  # labels of earlier steps still come
    if rule.test == "threshold":
        return weight > 0
    return drawn


def judge(
    config: RolloutConfig,
    book: EventBook,
    *,
    looks: Looks,
    labels: Mapping[str, RuleResult],
    traffic: RolloutTraffic | None = None,
) -> list[RuleStanding]:
    """How each rule stands, in the plan's order.

    Args:
        config: the plan.
        book: what has been counted, each key once.
        looks: from `looked`, of this look.
        labels: by name: results of the rules about labels; a rule without one has no data.
        traffic: as it is now, for forecasts, and for words about bins and bounds.
    """
    guardrails = config.guardrails
    rules = deciding(config)
    return [
        _judged(
            Case(
                rule=rule,
                alpha=guardrails.alpha,
                share=shared(guardrails.alpha, len(rules)),
                look=looks.get(rule.name, RuleLook()),
                traffic=traffic,
                action=rule.on_breach
                or ("pause" if rule.metric == "prediction_shift" else guardrails.on_breach),
                dry_run=rule.name in guardrails.dry_run,
            ),
            book,
            labels.get(rule.name),
        )
        for rule in guardrails.rules
    ]


def _judged(case: Case, book: EventBook, result: RuleResult | None) -> RuleStanding:
    rule = case.rule
    if rule.metric in ("label_loss", "slice_gap"):
        return label_rule(case, result)
    if rule.test == "threshold":
        return limit(case, book)
    if rule.metric == "shadow_agreement":
        return agreement(case, book)
    if rule.metric == "prediction_shift":
        return prediction_shift(case, book)
    return event_rule(case, book)
