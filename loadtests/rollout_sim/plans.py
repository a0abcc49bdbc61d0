"""Plans that are tried: one weight for an hour, a ramp, and the demo's own."""

from pathlib import Path
from typing import Final

from serving.config.load import load_directory
from serving.config.schema import Bake, Guardrails, RolloutConfig, Rule, Step
from serving.config.units import Seconds

__all__ = ["ERRORS", "RAMP", "demo", "plan", "usual"]

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


def usual() -> RolloutConfig:
    """A plan as people write it: a tolerance, proofs, four rules that share alpha."""
    rules = [
        Rule(name="errors", metric="error_rate", tolerance=1.5, prove=2.0),
        Rule(name="slow", metric="latency", exceeds=Seconds(0.05), tolerance=1.3),
        Rule(name="scores", metric="prediction_shift", tolerance=1.5, on_breach="pause"),
        Rule(name="quality", metric="label_loss", loss="brier", abs_tolerance=0.01),
    ]
    steps = [
        Step(weight=1, bake=Bake(min=Seconds(900.0), max=Seconds(7200.0))),
        Step(weight=10, bake=Bake(min=Seconds(HOUR), max=Seconds(12 * HOUR))),
        Step(weight=50, bake=Bake(min=Seconds(2 * HOUR), max=Seconds(24 * HOUR))),
        Step(weight=100),
    ]
    return RolloutConfig(canary="v2", steps=steps, guardrails=Guardrails(rules=rules))


def demo() -> RolloutConfig | None:
    """The plan of the demo's model, if it has one."""
    models = load_directory(DEMO).configuration.models
    return next((model.rollout for model in models.values() if model.rollout is not None), None)
