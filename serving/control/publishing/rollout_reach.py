"""What a new rollout asks for and the traffic cannot bring in time. Pure.

Only a gateway that runs has seen traffic; `sluice check` cannot say this.
"""

from collections.abc import Callable

from serving.config.problems import Problem
from serving.config.schema import ModelConfig
from serving.config.snapshot import Snapshot
from serving.control.publishing.compile import Compiled
from serving.rollout.forecast import Traffic, forecast

__all__ = ["out_of_reach"]


def out_of_reach(
    compiled: Compiled, current: Snapshot | None, busiest: Callable[[ModelConfig], Traffic | None]
) -> list[Problem]:
    """Samples, keys and labels that would not come by `bake.max`, of rollouts that would begin.

    Args:
        compiled: what would be applied.
        current: what is served now; a rollout that stands there begins no more.
        busiest: the most traffic that a model has had lately; None: it has had none, and then
            nobody can tell.
    """
    before = current.models if current is not None else {}
    problems = []
    for name, model in compiled.configuration.models.items():
        plan = model.rollout
        if plan is None or (name in before and before[name].rollout == plan):
            continue
        traffic = busiest(model)
        if traffic is None:
            continue
        problems += [
            _problem(compiled, name, step.step - 1, words, traffic.rate)
            for step in forecast(plan, traffic).steps
            for words in step.unreachable
        ]
    return problems


def _problem(compiled: Compiled, model: str, step: int, words: str, rate: float) -> Problem:
    message = f"{words}, at the {rate:.3g} requests/s of the busiest time seen"
    hint = "a longer `max`, a smaller number, or more weight"
    loaded = compiled.loaded
    if loaded is None:
        return Problem(file=f"models/{model}.yaml", message=message, suggestion=hint)
    path = ("rollout", "steps", step, "bake")
    return loaded.sources.problem(loaded.model_files[model], path, message, hint)
