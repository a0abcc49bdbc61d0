"""Plans that are tried: one weight for an hour, a ramp, and the demo's own."""

from pathlib import Path
from typing import Final

from serving.config.load import load_directory
from serving.config.rollout import Bake, Guardrails, RolloutConfig, Rule, Step
from serving.config.units import Seconds

__all__ = ["ERRORS", "RAMP", "demo", "plan"]

ERRORS: Final = Rule(name="errors", metric="error_rate", tolerance=1.0)
RAMP: Final = (1.0, 5.0, 25.0, 50.0)
HOUR: Final = 3600.0
DEMO: Final = Path(__file__).resolve().parents[2] / "configs" / "demo"


def plan(
    *weights: float, rules: tuple[Rule, ...] = (ERRORS,), seconds: float = HOUR, alpha: float = 0.05
) -> RolloutConfig:
    """These weights, each for the same part of `seconds`."""
    bake = Bake(min=Seconds(seconds / len(weights)), max=Seconds(seconds / len(weights)))
    steps = [Step(weight=weight, bake=bake) for weight in weights]
    return RolloutConfig(
        canary="v2",
        steps=[*steps, Step(weight=100)],
        guardrails=Guardrails(alpha=alpha, rules=list(rules)),
    )


def demo() -> RolloutConfig | None:
    """The plan of the demo's model, if it has one."""
    models = load_directory(DEMO).configuration.models
    return next((model.rollout for model in models.values() if model.rollout is not None), None)
