"""The steps of a plan, as far as time and traffic decide them."""

import math

import msgspec

from serving.config.schema import RolloutConfig, Step
from serving.rollout.simulate.world import World

__all__ = ["Stage", "length", "stages"]

_UNBOUNDED = 4 * 3600.0
"""A step without `bake.max` is given up this long after `bake.min`."""


class Stage(msgspec.Struct, frozen=True):
    """A step in which the new version answers some requests, or one that only takes time."""

    number: int
    """Of the step, from 0."""

    rho: float
    """Probability of the canary; 0 in a step of copies."""

    at_least: float
    """Seconds."""

    at_most: float
    """Seconds."""

    min_samples: int = 0
    min_keys: int = 0


def stages(rollout: RolloutConfig, world: World) -> list[Stage]:
    """Every step before the last. Approvals come at once, and labels in time."""
    return [
        _stage(number, step, world)
        for number, step in enumerate(rollout.steps)
        if step.approve is None and step.weight != 100
    ]


def length(found: list[Stage]) -> float:
    """Seconds that a rollout can take."""
    return sum(stage.at_most for stage in found)


def _stage(number: int, step: Step, world: World) -> Stage:
    bake = step.bake
    least = float(bake.min)
    if step.shadow is not None:
        copies = world.requests_per_second * float(step.shadow) / 100
        if bake.min_samples:
            least = max(least, bake.min_samples / copies) if copies else math.inf
        most = least if bake.max is None else float(bake.max)
        return Stage(number, 0.0, min(least, most), most)
    assert step.weight is not None
    most = max(least, float(bake.max)) if bake.max is not None else least + _UNBOUNDED
    return Stage(number, float(step.weight) / 100, least, most, bake.min_samples, bake.min_keys)
