"""What must hold of the guardrails of a rollout."""

from pathlib import Path

import pytest
from rollout_rules_kit import RolloutDirectory

SCORED = "monitoring: {prediction: {decision: label, score: p}, slices: [person_id]}"
SHADOWED = "[{shadow: 25, bake: {min: 1m}}, {weight: 100}]"


@pytest.fixture
def directory(tmp_path: Path) -> RolloutDirectory:
    """A sound plan, to be changed."""
    return RolloutDirectory(tmp_path)


@pytest.mark.parametrize(
    "rule",
    [
        "metric: error_rate, tolerance: 1.5, prove: 2.0",
        "metric: error_rate, test: threshold, at_most: 0.02, sustained: 3m, min_samples: 50",
        "metric: latency, exceeds: 50ms, tolerance: 1.3",
        "metric: latency, tolerance: 1.3",
        "metric: latency, test: threshold, quantile: 0.99, at_most: 0.08",
        "metric: latency, test: threshold, exceeds: 50ms, at_most: 0.02",
        "metric: prediction_shift, tolerance: 1.5, on_breach: pause",
        "metric: feature_health, tolerance: 1.2",
        "metric: shadow_agreement, at_least: 0.97",
        "metric: label_loss, loss: brier, abs_tolerance: 0.01, horizon: 7d",
        "metric: label_loss, test: threshold, loss: brier, at_most: 0.2",
        "metric: slice_gap, loss: error, abs_tolerance: 0.05",
        "metric: slice_gap, test: threshold, loss: error, at_most: 0.3",
    ],
)
def test_a_whole_rule_has_no_findings(directory: RolloutDirectory, rule: str) -> None:
    """Each metric, with what it needs."""
    found = directory.findings(rules=f"[{{name: one, {rule}}}]", model=SCORED, steps=SHADOWED)

    assert found == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("metric: error_rate", "rules[0]: how much more than production's is still fine? (such"),
        ("metric: latency, exceeds: 50ms", "how much more than production's is still fine?"),
        ("metric: prediction_shift", "how much more than production's is still fine?"),
        ("metric: latency, exceeds: 0ms, tolerance: 2", "exceeds: must be more than nothing"),
        (
            "metric: error_rate, tolerance: 2, prove: 1.5",
            "warning: rollout.guardrails.rules[0].prove: a version between 1.5 and 2 times",
        ),
        ("metric: error_rate, test: threshold", "it needs the highest `error_rate` that is fine"),
        (
            "metric: error_rate, test: threshold, at_least: 0.5",
            "at_least: means nothing for `error_rate` with `test: threshold`",
        ),
        (
            "metric: error_rate, test: threshold, at_most: 1",
            "at_most: a share is never above 1, so 1 stops nothing",
        ),
        (
            "metric: latency, test: threshold, at_most: 0.08",
            "rules[0]: which requests: those slower than `exceeds`, or those at a `quantile`?",
        ),
        (
            "metric: latency, test: threshold, quantile: 0.9, exceeds: 5ms, at_most: 0.08",
            "exceeds: `quantile` is in seconds and `exceeds` a share",
        ),
        (
            "metric: latency, test: threshold, quantile: 0.99, at_most: 80",
            "warning: rollout.guardrails.rules[0].at_most: `at_most` is in seconds: 80 s",
        ),
        (
            "metric: error_rate, tolerance: 2, at_most: 0.5",
            "at_most: counts for `test: threshold` only (add it)",
        ),
        ("metric: latency, tolerance: 2, quantile: 0.9", "quantile: counts for `test: threshold`"),
        (
            "metric: error_rate, tolerance: 2, loss: brier",
            "loss: means nothing for `error_rate` (it takes `prove`, `tolerance`)",
        ),
        (
            "metric: prediction_shift, test: threshold, at_most: 0.1",
            "test: `prediction_shift` is compared with production only",
        ),
        ("metric: shadow_agreement", "which share of copies must say the same as production?"),
        ("metric: shadow_agreement, at_least: 1", "at least 1 can never be proven"),
        ("metric: label_loss, abs_tolerance: 0.1", "rules[0]: which loss? (such as `loss: error`)"),
        (
            "metric: label_loss, test: threshold, loss: error, at_most: 0.2, sustained: 5m",
            "sustained: means nothing for `label_loss` with `test: threshold`",
        ),
        ("metric: label_loss, loss: error", "rules[0]: by how much may the mean loss grow?"),
        (
            "metric: label_loss, loss: squared_error, abs_tolerance: 0.1",
            "loss: `squared_error` is no loss of the task `binary` (one of error, brier, log_loss)",
        ),
        (
            "metric: label_loss, loss: error, abs_tolerance: 0.1, horizon: 0s",
            "horizon: must be more than nothing",
        ),
    ],
)
def test_a_mistake_in_a_rule_is_named(directory: RolloutDirectory, rule: str, words: str) -> None:
    """With the option it is in, and what to write."""
    found = directory.findings(rules=f"[{{name: one, {rule}}}]", model=SCORED, steps=SHADOWED)

    assert any(words in line for line in found), found


def test_two_rules_of_one_name_are_refused(directory: RolloutDirectory) -> None:
    """Status and events tell them apart by it."""
    rule = "{name: errors, metric: error_rate, tolerance: 1.5}"
    found = directory.findings(rules=f"[{rule}, {rule}]")

    assert any("rules[1].name: `errors` is also rules[0]" in line for line in found), found


def test_a_dry_run_of_no_rule_is_refused(directory: RolloutDirectory) -> None:
    """With the near name: the rule that was meant would decide."""
    found = directory.findings(guardrails="dry_run: [error]")

    assert any(
        "dry_run[0]: `error` is the name of no rule (did you mean `errors`?)" in line
        for line in found
    ), found


def test_nothing_to_look_at_is_refused(directory: RolloutDirectory) -> None:
    """Without rules it is a warning while there are hard stops, and an error without them."""
    with_stops = directory.findings(rules="[]")
    without = directory.findings(
        rules="[]", guardrails="hard_stops: {consecutive_errors: 0, error_rate: 1.0}"
    )

    assert any("warning: rollout.guardrails: without rules only" in line for line in with_stops)
    assert any("error: rollout.guardrails: there is neither" in line for line in without)


def test_copies_are_compared_in_one_way(directory: RolloutDirectory) -> None:
    """A second measure would be ignored."""
    rule = "{name: %s, metric: shadow_agreement, at_least: 0.9, within: %s}"
    found = directory.findings(
        rules=f"[{rule % ('one', 0.1)}, {rule % ('two', 0.2)}]", steps=SHADOWED
    )

    assert any("rules[1].within: another rule compares copies within 0.1" in one for one in found)


def test_agreement_needs_a_shadow_step(directory: RolloutDirectory) -> None:
    """Without copies nothing is compared."""
    found = directory.findings(rules="[{name: one, metric: shadow_agreement, at_least: 0.9}]")

    assert any("metric: no step has `shadow`" in line for line in found), found


@pytest.mark.parametrize("metric", ["prediction_shift, tolerance: 2", "label_loss, loss: error"])
def test_a_rule_about_answers_needs_their_meaning(directory: RolloutDirectory, metric: str) -> None:
    """Which output is the decision or the score."""
    found = directory.findings(rules=f"[{{name: one, metric: {metric}}}]")

    assert any("metric: without `monitoring.prediction`" in line for line in found), found


@pytest.mark.parametrize("metric", ["label_loss", "slice_gap"])
def test_a_rule_about_labels_needs_the_log(directory: RolloutDirectory, metric: str) -> None:
    """Labels are joined with it, and it has to keep predictions of both."""
    rule = f"[{{name: one, metric: {metric}, loss: error, abs_tolerance: 0.1}}]"
    none = directory.findings(rules=rule, model=SCORED, gateway="")
    kept = directory.findings(rules=rule, model=SCORED + "\nlog: {sample: {canary: 0.0}}")

    assert any("metric: without a prediction log" in line for line in none), none
    assert any("`log.sample` keeps no prediction of canary" in line for line in kept), kept


def test_a_loss_of_scores_needs_a_score(directory: RolloutDirectory) -> None:
    """A decision alone has no Brier score."""
    found = directory.findings(
        rules="[{name: one, metric: label_loss, loss: brier, abs_tolerance: 0.1}]",
        model="monitoring: {prediction: {decision: label}}",
    )

    assert any("`brier` needs `monitoring.prediction.score`" in line for line in found), found


def test_slices_need_a_name(directory: RolloutDirectory) -> None:
    """Without `monitoring.slices` there is no gap between any."""
    found = directory.findings(
        rules="[{name: one, metric: slice_gap, loss: error, abs_tolerance: 0.1}]",
        model="monitoring: {prediction: {decision: label}}",
    )

    assert any("without `monitoring.slices` there are no slices" in line for line in found), found
