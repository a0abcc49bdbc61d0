"""What the file means for rollouts: when one begins, when one is over, and who is production.

A rollout that is done outlives its plan: its canary answers as production although the file still
names the old version, until the file says something else.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from serving.config.schema import ModelConfig, RolloutConfig, step_words
from serving.config.snapshot import RolloutTraffic, Snapshot, StagedVersion
from serving.rollout.baking import spans
from serving.rollout.state import Arms, Cause, RolloutState

__all__ = [
    "Beginning",
    "Superseded",
    "alike",
    "beginning",
    "carried",
    "number_of",
    "placed",
    "same_traffic",
    "standing_production",
    "superseded",
]

Staged = Mapping[str, StagedVersion]
_FILE: Final[Cause] = "file"


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that the file asks for; `refused` says why it does not begin (yet)."""

    arms: Arms
    refused: str = ""


class Superseded(msgspec.Struct, frozen=True, kw_only=True):
    """Why a rollout is over although nobody ended it. `file`: what the file says counts again."""

    reason: str
    file: bool


def standing_production(config: ModelConfig, last: RolloutState | None) -> str:
    """Who is production, by the file and by what the model's last rollout has made of it."""
    traffic = config.traffic
    if (
        last is None
        or config.rollout is None
        or last.cause == _FILE
        or last.file_production != traffic.production
    ):
        return traffic.production
    version = last.canary if last.phase == "done" else last.production
    return version if version in config.versions else traffic.production


def beginning(
    config: ModelConfig,
    staged: Staged,
    past: Sequence[RolloutState],
    now: float,
    *,
    number: int,
    retried: bool = False,
) -> Beginning | None:
    """The rollout that should begin, None if there is none.

    Args:
        config: the model as it is published.
        staged: its versions' files.
        past: the model's rollouts, oldest first.
        now: seconds since 1970.
        number: it gets, one that none has had.
        retried: a person wants it in spite of the block and the cooldown.
    """
    plan, last = config.rollout, past[-1] if past else None
    if plan is None or plan.canary not in staged or (last is not None and last.is_live):
        return None
    production = standing_production(config, last)
    if plan.canary == production or production not in staged:
        return None
    arms = Arms(
        canary=plan.canary,
        production=production,
        canary_sha256=staged[plan.canary].sha256,
        production_sha256=staged[production].sha256,
        file_production=config.traffic.production,
        salt=f"{config.model}/r{number}",
        steps=[step_words(step) for step in plan.steps],
    )
    refused = "" if retried else _refused(plan, arms, past, now)
    return Beginning(arms=arms, refused=refused)


def _refused(plan: RolloutConfig, arms: Arms, past: Sequence[RolloutState], now: float) -> str:
    again = "`sluice rollout retry --reason …` begins it all the same"
    same = [one for one in past if one.canary_sha256 == arms.canary_sha256]
    if plan.after_abort.block_same_digest and same and _was_stopped(same[-1]):
        return f"{arms.canary} was stopped in {same[-1].id} ({same[-1].reason}); {again}"
    last = past[-1] if past else None
    if last is not None and _was_stopped(last):
        left = (last.ended_at or 0.0) + plan.after_abort.cooldown - now
        if left > 0:
            return f"{last.id} was stopped; `cooldown` is over in {spans(left)}; {again}"
    return ""


def _was_stopped(state: RolloutState) -> bool:
    return state.phase == "aborted" and not state.superseded


def superseded(
    config: ModelConfig | None, staged: Staged, state: RolloutState
) -> Superseded | None:
    """Why the file has ended this rollout (or what is left of it), None if it has not.

    Args:
        config: the model as it is published; None if it is not any more.
        staged: its versions' files.
        state: a rollout that is live, or done.
    """
    if state.superseded or not (state.is_live or state.phase == "done"):
        return None
    if config is None:
        return Superseded(reason="the model is not configured any more", file=True)
    if taken_over := _taken_over(config, state):
        return Superseded(reason=taken_over, file=True)
    if changed := _changed(staged, state):
        return Superseded(reason=changed, file=state.phase == "done")
    wanted = config.rollout.canary if config.rollout is not None else ""
    if state.is_live and wanted != state.canary:
        return Superseded(reason=f"the file wants {wanted} now", file=False)
    return None


def _taken_over(config: ModelConfig, state: RolloutState) -> str:
    """Why the file's own plan counts again; empty: it does not."""
    production = config.traffic.production
    if config.rollout is None:
        return "the file has no `rollout` any more"
    if production == state.canary:
        return f"the file names {production} as production"
    if production != state.file_production:
        return f"production in the file is {production} now"
    return ""


def _changed(staged: Staged, state: RolloutState) -> str:
    arms = {state.canary: state.canary_sha256}
    if state.is_live:
        arms[state.production] = state.production_sha256
    for version, sha256 in arms.items():
        if version not in staged:
            return f"version {version} is not configured any more"
        if staged[version].sha256 != sha256:
            return f"version {version} is another file now"
    return ""


def placed(state: RolloutState, config: ModelConfig | None, now: float) -> RolloutTraffic | None:
    """What a rollout puts over the plan of the file at this moment; None: nothing.

    Args:
        state: the model's last rollout.
        config: the model as it is published; None if it is not any more.
        now: seconds since 1970; a canary that was stopped is named until `keep_warm` is over.
    """
    plan = config.rollout if config is not None else None
    if config is None or plan is None:
        return None
    put = RolloutTraffic(
        id=state.id,
        revision=state.revision,
        canary=state.canary,
        production=state.production,
        salt=state.salt,
        step=state.step,
        latency_bounds=state.latency_bounds,
        bins=state.bins,
    )
    if state.is_live:
        if state.phase in ("pending", "aborting"):
            return put
        return msgspec.structs.replace(put, weight=state.weight, shadow=state.shadow, counting=True)
    production = standing_production(config, state)
    rest = msgspec.structs.replace(put, canary=production, production=production)
    if state.phase == "done":
        return None if state.superseded else rest
    warm_until = (state.ended_at or 0.0) + plan.after_abort.keep_warm
    if not state.superseded and now < warm_until:
        return put
    # An earlier rollout had gone beyond the file: its version stays production.
    return None if production == config.traffic.production else rest


def carried(
    before: Snapshot | None, models: Mapping[str, ModelConfig], staged: Mapping[str, Staged]
) -> dict[str, RolloutTraffic]:
    """What of the rollouts still holds under a new configuration, until control has looked.

    What the file has ended takes effect with the file: nothing names a version that is gone, and
    no traffic goes on to a canary that is not wanted any more.
    """
    if before is None:
        return {}
    kept = {}
    for name, put in before.rollouts.items():
        config = models.get(name)
        if config is None or config.rollout is None:
            continue
        same = all(
            version in staged.get(name, {})
            and staged[name][version].sha256 == before.staged[name][version].sha256
            for version in {put.canary, put.production}
        )
        if not same or config.traffic.production != before.models[name].traffic.production:
            continue
        is_wanted = put.canary in (config.rollout.canary, put.production)
        kept[name] = (
            put
            if is_wanted
            else msgspec.structs.replace(put, weight=0.0, shadow=0.0, counting=False)
        )
    return kept


def alike(one: RolloutTraffic | None, other: RolloutTraffic | None) -> bool:
    """Whether workers would do the same; an event that moves nothing changes its revision only."""
    if one is None or other is None:
        return one is other
    return msgspec.structs.replace(one, revision=0) == msgspec.structs.replace(other, revision=0)


def same_traffic(one: Mapping[str, RolloutTraffic], other: Mapping[str, RolloutTraffic]) -> bool:
    """Whether workers would do the same for every model."""
    return one.keys() == other.keys() and all(alike(put, other[name]) for name, put in one.items())


def number_of(identifier: str) -> int:
    """The number in `<model>-r<number>`, 0 if there is none."""
    number = identifier.rpartition("-r")[2]
    return int(number) if number.isascii() and number.isdigit() else 0
