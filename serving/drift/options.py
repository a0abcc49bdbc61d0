"""What a model's `monitoring` says, in the words of each decision. Pure."""

from serving.config.schema import MonitoringConfig, RetrainConfig
from serving.drift.report import DriftOptions
from serving.drift.retraining import RetrainPolicy
from serving.drift.verdict import Tolerances

__all__ = ["drift_options", "retrain_policy", "tolerances"]


def drift_options(monitoring: MonitoringConfig) -> DriftOptions:
    """For `report`."""
    return DriftOptions(
        alpha=monitoring.alpha,
        min_effect=monitoring.min_effect,
        min_rows=monitoring.min_rows,
        important=frozenset(monitoring.important),
        score=_score(monitoring),
    )


def tolerances(monitoring: MonitoringConfig) -> Tolerances:
    """For `judge`; without `retrain`, its defaults."""
    retrain = monitoring.retrain or RetrainConfig()
    return Tolerances(
        tolerance=retrain.tolerance,
        min_labels=retrain.min_labels,
        min_coverage=monitoring.labels.min_coverage,
        score=_score(monitoring),
    )


def retrain_policy(retrain: RetrainConfig) -> RetrainPolicy:
    """For `decide`."""
    return RetrainPolicy(
        debounce=float(retrain.debounce),
        cooldown=float(retrain.cooldown),
        budget=retrain.budget,
        min_labels=retrain.min_labels,
    )


def _score(monitoring: MonitoringConfig) -> str:
    return monitoring.prediction.score if monitoring.prediction is not None else ""
