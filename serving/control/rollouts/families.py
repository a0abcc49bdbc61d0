"""How rollouts stand, in Prometheus' shape: for charts, and for alerts on what needs a person."""

from collections.abc import Iterable, Iterator
from typing import Final, get_args

from prometheus_client.core import GaugeMetricFamily, Metric

from serving.rollout.standing import RolloutStanding, Verdict
from serving.rollout.state import Phase

__all__ = ["rollout_families"]

_PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)


def rollout_families(standings: Iterable[RolloutStanding]) -> Iterator[Metric]:
    """Gauges of each model's last rollout.

    Label values are of the configuration and of this program, so there are at most as many children
    as models times rules times verdicts.
    """
    step = GaugeMetricFamily(
        "sluice_rollout_step", "Step of the model's last rollout, from 1.", labels=("model",)
    )
    weight = GaugeMetricFamily(
        "sluice_rollout_weight", "Percent of keys that the canary answers.", labels=("model",)
    )
    phase = GaugeMetricFamily(
        "sluice_rollout_phase", "1 for the phase that it is in.", labels=("model", "phase")
    )
    e_value = GaugeMetricFamily(
        "sluice_rollout_rule_e_value",
        "Evidence of a rule for a breach; it is proven at its bound.",
        labels=("model", "rule"),
    )
    bound = GaugeMetricFamily(
        "sluice_rollout_rule_bound",
        "Evidence at which a rule's breach is proven.",
        labels=("model", "rule"),
    )
    verdict = GaugeMetricFamily(
        "sluice_rollout_rule_verdict",
        "1 for what a rule says: regressed, ok, undecided, no_data.",
        labels=("model", "rule", "verdict"),
    )
    lost = GaugeMetricFamily(
        "sluice_rollout_evidence_lost",
        "Evidence of the rollout that was lost, by reason.",
        labels=("model", "reason"),
    )
    for standing in standings:
        model = standing.model
        step.add_metric((model,), standing.step + 1)
        weight.add_metric((model,), standing.weight)
        for one in _PHASES:
            phase.add_metric((model, one), one == standing.phase)
        for rule in standing.rules:
            e_value.add_metric((model, rule.name), rule.e_value)
            bound.add_metric((model, rule.name), rule.bound)
            for said in _VERDICTS:
                verdict.add_metric((model, rule.name, said), said == rule.verdict)
        for reason, count in sorted(standing.lost.items()):
            lost.add_metric((model, reason), count)
    yield from (step, weight, phase, e_value, bound, verdict, lost)
