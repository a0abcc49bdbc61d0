"""`sluice rollout simulate`, as it is called."""

import json
from pathlib import Path

import log_files_kit
import pytest
from click.testing import CliRunner, Result

from serving.cli.app import app

PLAN = """
rollout:
  canary: v2
  steps:
    - {weight: 5, bake: {min: 5m, max: 10m}}
    - {weight: 100}
  guardrails:
    rules:
      - {name: errors, metric: error_rate, tolerance: 1.0}
      - {name: quality, metric: label_loss, loss: brier, abs_tolerance: 0.01}
"""
MODEL = """schema_version: 1
model: NAME
versions: {v1: {path: a.onnx}, v2: {path: b.onnx}}
entity: {person_id: INT64}
traffic: {production: v1, assignment: {key: person_id}}
monitoring: {prediction: {decision: label, score: "probabilities[1]"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration with a model that has a plan and one that has none."""
    (tmp_path / "models").mkdir()
    (tmp_path / "gateway.yaml").write_text("schema_version: 1\n")
    model = MODEL.replace("NAME", "employment") + PLAN
    (tmp_path / "models" / "employment.yaml").write_text(model)
    (tmp_path / "models" / "plain.yaml").write_text(MODEL.replace("NAME", "plain"))
    return tmp_path


def call(*words: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["rollout", "simulate", *map(str, words)])


def test_rates_of_exactly_this_plan_are_shown_with_their_intervals(folder: Path) -> None:
    """For people."""
    done = call(folder, "--runs", "20", "--scenario", "flat")

    assert done.exit_code == 0, done.output
    assert "95 % INTERVAL" in done.output
    assert "fails-twice-as-often" in done.output
    assert "not tried: quality" in done.output


def test_json_names_every_scenario_and_every_fault(folder: Path) -> None:
    """For programs; nothing else is on standard output."""
    words = ("--runs", "20", "--rps", "20", "--keys", "200", "--json")
    found = json.loads(call("employment", "--config", folder, *words).stdout)

    assert found["model"] == "employment"
    assert list(found["false_aborts"]) == ["flat", "daily", "incident", "rising", "falling"]
    assert found["detection"]["always-fails"]["share"] == 1.0
    assert found["left_out"] == ["quality"]


def test_a_directory_of_several_models_takes_the_one_with_a_plan(folder: Path) -> None:
    """Unless it is told another."""
    other = call(folder, "--model", "plain")
    unknown = call(folder, "--model", "emplyment")

    assert other.exit_code == 1
    assert "`plain` has no plan" in other.output
    assert "did you mean `employment`" in unknown.output


def test_a_bound_that_is_proven_to_be_passed_is_an_answer_of_no(folder: Path) -> None:
    """Exit 1, for CI."""
    file = folder / "models" / "employment.yaml"
    file.write_text(file.read_text().replace("guardrails:", "guardrails:\n    alpha: 0.5"))
    words = (folder, "--runs", "50", "--scenario", "flat", "--error-rate", "0.05", "--fail-on")

    assert call(*words, "100").exit_code == 0
    over = call(*words, "5")
    assert over.exit_code == 1
    assert "as good as production are stopped" in over.output


def test_the_log_of_production_is_split_anew(folder: Path, tmp_path: Path) -> None:
    """Production against itself, by the key of the assignment; callers' faults are left out."""
    log = tmp_path / "predictions"
    codes = ["OK", "OK", "OK", "INTERNAL", "INVALID_ARGUMENT"]
    log_files_kit.segment(
        log,
        [log_files_kit.row(n % 90, log_files_kit.EPOCH + n, code=codes[n % 5]) for n in range(400)],
    )
    words = ("--from-log", "--log", log, "--runs", "20", "--json")
    done = call(folder, *words)

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found["false_aborts"]) == ["log"]
    assert found["false_aborts"]["log"]["completed"] == 20


def test_a_log_with_next_to_nothing_says_so(folder: Path, tmp_path: Path) -> None:
    """A share of three requests is none."""
    log = tmp_path / "predictions"
    log_files_kit.segment(log, [log_files_kit.row(n) for n in range(3)])

    done = call(folder, "--from-log", "--log", log)

    assert done.exit_code == 1
    assert "the log has 3 requests" in done.output
