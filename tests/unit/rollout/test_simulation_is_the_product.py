"""Trials as arrays and trials through judge and decide end alike."""

import msgspec
import numpy as np
import pytest

from serving.config.schema import Bake, Guardrails, RolloutConfig, Rule, Step
from serving.config.units import Seconds
from serving.rollout.simulate.crowd import Crowd
from serving.rollout.simulate.product import walk
from serving.rollout.simulate.scenarios import traffic
from serving.rollout.simulate.stages import stages
from serving.rollout.simulate.trial import COMPLETED, INCONCLUSIVE, run
from serving.rollout.simulate.watch import watches
from serving.rollout.simulate.world import CANARIES, USERS, Signal, World

WORLD = World(requests_per_second=30.0, error_rate=0.02, bins=(0.7, 0.2, 0.1))
LOOK = 10.0
RULES = [
    Rule(name="errors", metric="error_rate", tolerance=1.2, prove=6.0),
    Rule(name="slow", metric="latency", tolerance=1.1),
    Rule(name="cap", metric="latency", exceeds=Seconds(0.05), tolerance=1.3),
    Rule(name="fresh", metric="feature_health"),
    Rule(name="scores", metric="prediction_shift", tolerance=1.1, prove=6.0),
]
PLAN = RolloutConfig(
    canary="v2",
    steps=[
        Step(weight=weight, bake=Bake(min=Seconds(300.0), max=Seconds(600.0)))
        for weight in (10, 25, 50)
    ]
    + [Step(weight=100)],
    guardrails=Guardrails(rules=RULES),
)


def crowd(seed: int) -> Crowd:
    """One trial's users."""
    return Crowd(
        traffic("incident", 1800.0, LOOK), 30.0, 3000, 1, np.random.default_rng(seed)
    )  # fmt: skip


@pytest.mark.parametrize("canary", ["as-good", "fails-four-times-as-often", "slow-tail"])
@pytest.mark.parametrize("prove", [3.0, 6.0])
def test_both_end_at_the_same_look_for_the_same_reason(canary: str, prove: float) -> None:
    """Whatever decides in control decides in the simulation; 3.0 is never proven, 6.0 mostly."""
    first = msgspec.structs.replace(RULES[0], prove=prove)
    guardrails = msgspec.structs.replace(PLAN.guardrails, rules=[first, *RULES[1:]])
    plan = msgspec.structs.replace(PLAN, guardrails=guardrails)
    steps = stages(plan, WORLD)
    rules = watches(plan, WORLD, CANARIES[canary])
    signals = [signal for rule in rules for signal in rule.signals]
    signals.append(Signal("", USERS, 1.0, 0.0, shared=False))
    in_looks = [
        msgspec.structs.replace(s, at_least=s.at_least / LOOK, at_most=s.at_most / LOOK)
        for s in steps
    ]
    for seed in range(3):
        random = np.random.default_rng(seed)
        fast = run(plan, steps, rules, crowd(seed), errors=None, look=LOOK, trials=1, random=random)
        slow = walk(plan, in_looks, signals, crowd(seed), look=LOOK)

        assert int(fast.ended[0]) == slow.look
        by = int(fast.by[0])
        if by == COMPLETED:
            assert slow.event.kind in ("promoting", "stepped")
        elif by == INCONCLUSIVE:
            assert slow.event.cause == "inconclusive"
        else:
            assert slow.event.cause == "breach"
            assert rules[by].rule.name in slow.event.rules
