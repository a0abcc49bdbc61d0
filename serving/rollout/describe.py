"""A rollout as people see it: its state, what its rules say, and what the step still waits for."""

from serving.rollout.baking import Facts, Look, lacking, step_of
from serving.rollout.standing import RolloutStanding, RuleStanding
from serving.rollout.state import RolloutState

__all__ = ["ended_standing", "standing_of"]

_BAKES = ("progressing", "paused")


def ended_standing(state: RolloutState, *, waiting_for: str = "") -> RolloutStanding:
    """Of a rollout of which nothing is known but its events.

    `waiting_for`: why the one that the file asks for does not begin.
    """
    return RolloutStanding(
        id=state.id,
        model=state.model,
        canary=state.canary,
        production=state.production,
        phase=state.phase,
        step=state.step,
        steps=state.steps,
        revision=state.revision,
        began=state.began,
        step_began=state.step_began,
        weight=state.weight,
        shadow=state.shadow,
        reason=state.reason,
        waiting_for=[waiting_for] if waiting_for else [],
    )


def standing_of(
    look: Look, *, excluded: dict[str, list[int]], lost: dict[str, int]
) -> RolloutStanding:
    """Of a rollout at one look.

    Args:
        look: the plan, the state, the rules and the facts.
        excluded: by reason, requests of canary and production that do not count.
        lost: evidence that was lost, by reason.
    """
    state, facts = look.state, look.facts
    standing = ended_standing(state)
    standing.rules = list(look.standings)
    standing.canary_requests, standing.production_requests = facts.samples, facts.production_samples
    standing.canary_keys, standing.production_keys = facts.keys, facts.production_keys
    standing.copies, standing.labels = facts.copies, facts.labels
    standing.excluded, standing.lost = excluded, lost
    standing.sample_ratio = facts.split
    standing.waiting_for = _waiting_for(look)
    standing.ends_by = _ends_by(look)
    standing.next_step_at = _next_step_at(look, standing.waiting_for)
    return standing


def _waiting_for(look: Look) -> list[str]:
    facts = look.facts
    silence = [] if facts.store_up and facts.workers else [_silence(facts)]
    match look.state.phase:
        case "pending":
            return [*silence, *([facts.not_ready] if facts.not_ready else ())]
        case "progressing" | "awaiting_approval":
            return [*silence, *lacking(look)]
        case "paused":
            return [*silence, "a person"]
        case "aborting" | "promoting":
            return [*silence, "every worker to have the change"]
        case _:
            return []


def _silence(facts: Facts) -> str:
    return "a worker that reports" if facts.store_up else "the store"


def _ends_by(look: Look) -> float | None:
    state, step = look.state, step_of(look.config, look.state)
    if step.approve is not None:
        asked = max(state.step_began, state.resumed_at)
        return asked + step.approve.timeout if state.phase == "awaiting_approval" else None
    if state.phase not in _BAKES or step.bake.max is None:
        return None
    return _when_baked(look, state.extended + step.bake.max)


def _next_step_at(look: Look, missing: list[str]) -> float | None:
    """When time is up and each proof is there at the present rate; None if a count decides."""
    if look.state.phase != "progressing" or look.step.approve is not None:
        return None
    proofs = [_proof_at(look, one) for one in look.standings if _has_to_prove(look, one)]
    if None in proofs:
        return None
    time_left = look.step.bake.min > look.state.baked(look.facts.now)
    unproven = sum(_has_to_prove(look, one) and one.verdict != "ok" for one in look.standings)
    if len(missing) > time_left + unproven:
        return None
    until = _when_baked(look, look.step.bake.min)
    return max([look.facts.now, until, *(at for at in proofs if at is not None)])


def _when_baked(look: Look, seconds: float) -> float:
    state = look.state
    paused = look.facts.now - state.paused_at if state.paused_at is not None else 0.0
    return state.step_began + state.held + paused + seconds


def _has_to_prove(look: Look, standing: RuleStanding) -> bool:
    guardrails = look.config.guardrails
    return standing.name not in guardrails.dry_run and any(
        rule.name == standing.name and rule.prove is not None for rule in guardrails.rules
    )


def _proof_at(look: Look, standing: RuleStanding) -> float | None:
    if standing.verdict == "ok":
        return look.facts.now
    return None if standing.eta is None else look.facts.now + standing.eta
