"""A plan over a log: production against itself."""

import numpy as np
import pytest
from msgspec.structs import replace

from serving.config.schema import Bake, Guardrails, RolloutConfig, Rule, Step
from serving.config.units import Seconds
from serving.rollout.simulate.history import Rows, history_of
from serving.rollout.simulate.replay import Replay, replayed, shortened
from serving.rollout.simulate.stages import Stage
from serving.rollout.simulate.world import Signal

HOUR = 3600.0
ERRORS = Rule(name="errors", metric="error_rate")


def plan(*rules: Rule, weight: float = 25, alpha: float = 0.05) -> RolloutConfig:
    """An hour at one weight."""
    step = Step(weight=weight, bake=Bake(min=Seconds(HOUR), max=Seconds(HOUR)))
    return RolloutConfig(
        canary="v2",
        steps=[step, Step(weight=100)],
        guardrails=Guardrails(alpha=alpha, rules=list(rules)),
    )


def log(requests: int = 20_000, users: int = 500, seed: int = 1) -> Rows:
    """An hour of users who differ: some fail always, some are slow."""
    random = np.random.default_rng(seed)
    key = random.integers(0, users, requests)
    return Rows(
        at=1.8e9 + np.sort(random.uniform(0, HOUR, requests)),
        key=key,
        failed=key % 10 == 0,
        seconds=random.exponential(0.01, requests),
        prediction=random.random(requests),
    )


def test_a_key_counts_once_for_each_thing() -> None:
    """Fifty users fail, forty times each."""
    history = history_of(log(), plan(ERRORS))

    assert len(history.requests.key) == 20_000
    assert len(history.events["errors"].key) == len(set(history.events["errors"].key)) == 50


def test_what_happened_is_the_same_in_every_split() -> None:
    """Only whose it is differs."""
    history = history_of(log(), plan(ERRORS))
    replay = Replay(
        history.requests, history.events, keys=history.keys, trials=30,
        random=np.random.default_rng(1),
    )  # fmt: skip
    replay.begin(0.25, np.zeros(30, np.int64))

    canary, production = replay.events(Signal("errors", "errors", 0.1, 0.1), 0, 3600)

    assert (canary + production).sum((0, 2)).tolist() == [50] * 30
    assert len(set(canary.sum((0, 2)).tolist())) > 3


def test_users_whose_errors_come_together_stop_no_more_than_alpha() -> None:
    """The trap of counting their requests is not stepped into."""
    found = replayed(plan(ERRORS), history_of(log(), plan(ERRORS)), runs=1000, seed=2)

    assert found.stopped > 0
    assert found.high <= 0.05


def test_a_log_that_is_shorter_than_the_plan_ends_it() -> None:
    """The steps that fit are tried."""
    steps = [Stage(0, 0.01, 900, 900), Stage(1, 0.1, 900, 7200), Stage(2, 0.5, 900, 900)]

    found = shortened(steps, 1200.0)

    assert [(stage.number, stage.at_least, stage.at_most) for stage in found] == [
        (0, 900, 900),
        (1, 300.0, 300.0),
    ]


def test_a_rule_that_the_log_says_nothing_of_is_left_out() -> None:
    """Its features' states were not logged."""
    rollout = plan(ERRORS, Rule(name="health", metric="feature_health"))

    found = replayed(rollout, history_of(log(), rollout), runs=20, seed=1)

    assert found.left_out == ["health"]


def test_scores_are_sorted_into_tenths_and_classes_by_themselves() -> None:
    """Each key is in one bin, its first."""
    rule = Rule(name="scores", metric="prediction_shift")
    rows = log()
    scores = history_of(rows, plan(rule))
    classes = history_of(
        replace(rows, prediction=(rows.key % 3).astype(np.float64), classes=True), plan(rule)
    )

    assert len(scores.signals["scores"][0].bins) == 10
    assert len(classes.signals["scores"][0].bins) == 3
    assert len(scores.events["scores"].key) == 500


def test_latency_without_a_bound_is_taken_at_three_percentiles() -> None:
    """Half of the requests are beyond the first."""
    rule = Rule(name="slow", metric="latency")
    (half, tenth, hundredth) = history_of(log(), plan(rule)).signals["slow"]

    # A failed request is slow, and a tenth of them fail.
    assert half.production == pytest.approx(0.55, abs=0.01)
    assert tenth.production == pytest.approx(0.19, abs=0.01)
    assert hundredth.production == pytest.approx(0.109, abs=0.01)
