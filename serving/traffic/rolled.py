"""A traffic plan as a rollout makes it: who gets the new version is the rollout's business."""

from collections.abc import Mapping

import msgspec

from serving.config.schema import Assignment, Canary, ModelConfig, Shadow, TrafficConfig
from serving.config.snapshot import RolloutTraffic, Snapshot

__all__ = ["effective", "rolled"]


def rolled(config: ModelConfig, rollout: RolloutTraffic | None) -> ModelConfig:
    """Put a rollout over the plan of the file.

    The rollout says who is production, whether there is a canary, and whether the new version
    gets copies; what the file says of those two versions counts no more. Other versions' copies,
    the key, overrides and the fallback stay the file's. Keys are placed with the file's
    `assignment.salt` if it has one, so that its cohorts stay, and else with the rollout's.

    A key never goes back while the weight rises: its place does not move, and the last step, when
    the new version becomes production, takes those that were left.

    Args:
        config: the model as its file has it.
        rollout: None: the file's own plan.
    """
    if rollout is None:
        return config
    traffic = config.traffic
    # A version that the file has no longer gets nothing: its plan would not even compile.
    known = config.versions.keys()
    production = rollout.production if rollout.production in known else traffic.production
    takes_part = rollout.canary in known and rollout.canary != production
    shadow = [one for one in traffic.shadow if one.version not in (rollout.canary, production)]
    if takes_part and rollout.shadow > 0:
        shadow.append(Shadow(version=rollout.canary, percent=rollout.shadow))
    canary = (
        Canary(version=rollout.canary, weight=rollout.weight)
        if takes_part and rollout.weight > 0
        else None
    )
    return msgspec.structs.replace(
        config,
        traffic=msgspec.structs.replace(
            traffic,
            production=production,
            canary=canary,
            shadow=shadow,
            assignment=_salted(traffic, rollout.salt),
        ),
    )


def effective(snapshot: Snapshot) -> Mapping[str, ModelConfig]:
    """Every model of a snapshot with the plan that is really served."""
    if not snapshot.rollouts:
        return snapshot.models
    return {
        name: rolled(config, snapshot.rollouts.get(name))
        for name, config in snapshot.models.items()
    }


def _salted(traffic: TrafficConfig, salt: str) -> Assignment:
    if traffic.assignment.salt or not salt:
        return traffic.assignment
    return msgspec.structs.replace(traffic.assignment, salt=salt)
