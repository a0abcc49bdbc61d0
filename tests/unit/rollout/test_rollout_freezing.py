from typing import Any

import msgspec
import pytest

from serving.config.frozen_bins import FrozenColumn, Reference
from serving.config.schema import ModelConfig
from serving.config.snapshot_codec import dec_hook
from serving.rollout.freezing import ENOUGH, bins, deciles, latency_bounds
from serving.rollout.state import RolloutState

STATE = RolloutState(id="demo-r1", model="demo")


def model(*rules: dict[str, Any]) -> ModelConfig:
    """A model whose score is `p`, with these rules."""
    body = {
        "model": "demo",
        "versions": {"v1": {"path": "a", "sha256": "1" * 64}},
        "traffic": {"production": "v1"},
        "monitoring": {"prediction": {"score": "p[1]"}},
        "rollout": {
            "canary": "v2", "steps": [{"weight": 100}], "guardrails": {"rules": list(rules)},
        },
    }  # fmt: skip
    return msgspec.convert(body, ModelConfig, dec_hook=dec_hook)


def numeric(counts: list[int], edges: list[float]) -> FrozenColumn:
    """A column of numbers; its first four bins hold what is no ordinary number."""
    return FrozenColumn(type="float", kind="numeric", edges=edges, counts=[0, 0, 0, 0, *counts])


SLOW = {"name": "slow", "metric": "latency"}
SCORES = {"name": "scores", "metric": "prediction_shift"}


def test_bounds_are_productions_own_quantiles() -> None:
    """The 50th, 90th and 99th percentile, each a duration that was measured."""
    seconds = [at / 1000 for at in range(1000, 0, -1)]

    assert latency_bounds(model(SLOW), STATE, seconds) == {"slow": [0.5, 0.9, 0.99]}


def test_too_few_durations_freeze_nothing() -> None:
    """The rule has no data until there are enough."""
    assert latency_bounds(model(SLOW), STATE, [0.1] * (ENOUGH - 1)) == {}


def test_alike_quantiles_are_one_bound() -> None:
    """A request beyond it would else count several times."""
    assert latency_bounds(model(SLOW), STATE, [0.1] * ENOUGH) == {"slow": [0.1]}


@pytest.mark.parametrize(
    "rule",
    [
        {**SLOW, "exceeds": "50ms"},
        {**SLOW, "test": "threshold", "quantile": 0.99, "at_most": 0.1},
        {"name": "errors", "metric": "error_rate"},
    ],
)
def test_only_a_rule_without_a_bound_of_its_own_gets_one(rule: dict[str, Any]) -> None:
    """Not those that name theirs, and not other metrics."""
    assert latency_bounds(model(rule), STATE, [0.1] * ENOUGH) == {}


def test_frozen_is_frozen() -> None:
    """Bounds there are stay, or what they have counted would mean something else."""
    state = msgspec.structs.replace(STATE, latency_bounds={"slow": [0.2]}, bins={"scores": [0.5]})

    assert latency_bounds(model(SLOW), state, [0.1] * ENOUGH) == {}
    assert bins(model(SCORES), state, {}) == {}


def test_sixteen_quantiles_become_tenths() -> None:
    """The nearest of the reference's own edges for each tenth."""
    column = numeric([10] * 16, [float(at) for at in range(17)])

    assert deciles(column) == [2.0, 3.0, 5.0, 6.0, 8.0, 10.0, 11.0, 13.0, 14.0]


def test_a_lump_of_scores_takes_one_edge_for_several_tenths() -> None:
    """Half of the scores in one bin: no bin is without a score of its own."""
    column = numeric([10, 80, 10], [0.0, 0.1, 0.9, 1.0])

    assert deciles(column) == [0.1, 0.9]


def test_scores_are_counted_into_the_references_bins() -> None:
    """Of the column that `monitoring.prediction` names."""
    column = numeric([50, 50], [0.0, 0.5, 1.0])
    reference = Reference(
        model="demo", rows=100, created="2026", source="test", columns={"p[1]": column}
    )

    assert bins(model(SCORES), STATE, {"demo": reference}) == {"scores": [0.5]}


def test_without_a_reference_classes_are_counted() -> None:
    """No edges: by the decision, or by which side of the threshold a score is."""
    assert bins(model(SCORES), STATE, {}) == {"scores": []}
