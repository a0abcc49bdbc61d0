"""From a model's YAML to the decisions' own words."""

from serving.config.decode import decode
from serving.config.schema import ModelConfig
from serving.drift.options import drift_options, retrain_policy, tolerances
from serving.drift.report import DriftOptions
from serving.drift.retraining import RetrainPolicy
from serving.drift.verdict import Tolerances

TEXT = """\
model: m
versions: {v1: {url: "http://host:8000/v2/models/m"}}
traffic: {production: v1}
monitoring:
  alpha: 0.05
  min_effect: 0.02
  min_rows: 200
  important: [age]
  prediction: {score: "p[1]"}
  labels: {min_coverage: 0.7}
  retrain: {tolerance: 0.1, min_labels: 50, debounce: 5m, cooldown: 2h, budget: 7}
"""


def monitoring(text: str = TEXT) -> object:
    """The section, read as the gateway reads it."""
    decoded = decode(text, "models/m.yaml", ModelConfig)
    assert isinstance(decoded.value, ModelConfig), decoded.problems
    return decoded.value.monitoring


def test_every_option_arrives() -> None:
    """Each in its own decision, times in seconds."""
    section = monitoring()

    assert drift_options(section) == DriftOptions(
        alpha=0.05, min_effect=0.02, min_rows=200, important=frozenset({"age"}), score="p[1]"
    )
    assert tolerances(section) == Tolerances(
        tolerance=0.1, min_labels=50, min_coverage=0.7, score="p[1]"
    )
    assert retrain_policy(section.retrain) == RetrainPolicy(
        debounce=300, cooldown=7200, budget=7, min_labels=50
    )


def test_the_decisions_have_the_configurations_defaults() -> None:
    """Whoever calls them without one gets what an empty section says."""
    section = monitoring(TEXT[: TEXT.index("  alpha")].rstrip() + " {retrain: {}}\n")

    assert drift_options(section) == DriftOptions()
    assert tolerances(section) == Tolerances()
    assert retrain_policy(section.retrain) == RetrainPolicy()
