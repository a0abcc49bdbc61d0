"""What follows next in a rollout: the one place that decides it, from values alone.

In this order, first match wins:

1. Traffic is being taken back or handed over: the end, once every worker has it.
2. A version in quarantine or a hard stop: abort, whatever the statistics say.
3. A proven breach: abort or pause, as its rule says. A paused rollout still aborts.
4. Shares that are not as they were drawn: pause, since nothing can be concluded from them.
5. The store or the workers are silent: hold.
6. An approval: wait for a person, and for so long as the step says.
7. Nothing arrives: hold, or pause. That is neither a pass nor a failure.
8. All is there that the step asks for: the next one.
9. `bake.max` is over: as `on_inconclusive` says.
"""

from typing import Final

from msgspec.structs import replace

from serving.config.schema import Breach
from serving.rollout.baking import (
    Look,
    evidence_of,
    is_compared,
    is_silent,
    lacking,
    samples_of,
    spans,
)
from serving.rollout.standing import RuleStanding
from serving.rollout.state import Cause, Event, Kind

__all__ = ["CONTROLLER", "SPLIT", "decide", "event_of", "forward", "next_step", "to_the_end"]

CONTROLLER: Final = "controller"
"""Who did what nobody asked for."""

SPLIT: Final = "sample_ratio"
"""The name that the check of the shares has among rules."""


def decide(look: Look) -> Event | None:
    """The next event, or None: nothing follows yet."""
    if not look.state.is_live:
        return None
    if look.state.phase == "aborting":
        return _taken_back(look)
    return _stopped(look) or _breached(look) or _onwards(look)


def _onwards(look: Look) -> Event | None:
    """What follows if nothing is wrong with the new version. Whoever hears nothing holds."""
    if not look.facts.store_up or look.facts.workers == 0:
        return None
    match look.state.phase:
        case "pending":
            return _first(look)
        case "progressing":
            return _split(look) or _baked(look)
        case "awaiting_approval":
            return _split(look) or _unanswered(look)
        case "promoting":
            return _handed_over(look)
        case _:
            return None  # a person paused it, or has to look


def event_of(look: Look, kind: Kind, *, who: str, reason: str, cause: Cause = "") -> Event:
    """An event that follows the state, with everything that is known as its evidence."""
    return Event(
        revision=look.state.revision + 1,
        at=look.facts.now,
        kind=kind,
        who=who,
        reason=reason,
        step=look.state.step,
        evidence=evidence_of(look),
        cause=cause,
    )


def forward(look: Look, *, who: str, reason: str) -> Event:
    """The next step, or after the last one everything."""
    coming = next_step(look)
    return (
        to_the_end(look, who=who, reason=reason)
        if coming is None
        else replace(event_of(look, "stepped", who=who, reason=reason), **_placed(look, coming))
    )


def to_the_end(look: Look, *, who: str, reason: str) -> Event:
    """Everything to the new version."""
    return replace(event_of(look, "promoting", who=who, reason=reason), weight=100.0, shadow=0.0)


def next_step(look: Look) -> int | None:
    """Which step comes next, None after the last."""
    coming = 0 if look.state.phase == "pending" else look.state.step + 1
    return coming if coming < len(look.config.steps) else None


def _placed(look: Look, coming: int) -> dict[str, object]:
    """What a step puts in place.

    A shadow step leaves the weight, a weight ends the copies, an approval changes nothing. A plan
    that was edited meanwhile cannot take a key back: the weight never falls.
    """
    step, state, facts = look.config.steps[coming], look.state, look.facts
    weight, shadow = state.weight, state.shadow
    if step.shadow is not None:
        shadow = step.shadow
    elif step.weight is not None:
        weight, shadow = max(weight, step.weight), 0.0
    return {
        "step": coming,
        "asks": step.approve is not None,
        "weight": weight,
        "shadow": shadow,
        "counted": {"samples": facts.samples, "copies": facts.copies},
    }


# --- what is decided ------------------------------------------------------------------------


def _by_itself(look: Look, kind: Kind, reason: str, cause: Cause = "") -> Event:
    made = event_of(look, kind, who=CONTROLLER, reason=reason, cause=cause)
    return replace(made, weight=0.0, shadow=0.0) if kind == "aborting" else made


def _either(look: Look, breach: Breach, reason: str, cause: Cause) -> Event:
    return _by_itself(look, "aborting" if breach == "abort" else "paused", reason, cause)


def _taken_back(look: Look) -> Event | None:
    if not (look.facts.acknowledged and look.facts.store_up):
        return None
    return _by_itself(look, "aborted", "every worker has taken the traffic back")


def _handed_over(look: Look) -> Event | None:
    if not look.facts.acknowledged:
        return None
    return _by_itself(look, "done", "every worker answers with the new version")


def _stopped(look: Look) -> Event | None:
    facts = look.facts
    if facts.quarantined:
        return _by_itself(look, "aborting", f"quarantine: {facts.quarantined}", "quarantine")
    if facts.tripped:
        return _by_itself(look, "aborting", f"hard stop: {facts.tripped}", "hard_stop")
    return None


def _breached(look: Look) -> Event | None:
    proven = [one for one in look.standings if one.verdict == "regressed" and not one.dry_run]
    aborts = [one for one in proven if _action(look, one) == "abort"]
    pauses = [one for one in proven if one not in aborts and one.name not in look.state.waived]
    if aborts:
        return replace(
            _by_itself(look, "aborting", _words(aborts), "breach"),
            rules=[one.name for one in aborts],
        )
    if pauses and look.state.phase in ("progressing", "awaiting_approval"):
        return replace(
            _by_itself(look, "paused", _words(pauses), "breach"),
            rules=[one.name for one in pauses],
        )
    return None


def _action(look: Look, standing: RuleStanding) -> str:
    return standing.action or look.config.guardrails.on_breach


def _words(standings: list[RuleStanding]) -> str:
    return "; ".join(f"`{one.name}` {one.words or 'is breached'}" for one in standings)


def _first(look: Look) -> Event | None:
    if look.facts.not_ready:
        return None
    return forward(look, who=CONTROLLER, reason="the first step")


def _split(look: Look) -> Event | None:
    if not look.facts.split or SPLIT in look.state.waived:
        return None
    return replace(_by_itself(look, "paused", look.facts.split, "split"), rules=[SPLIT])


def _unanswered(look: Look) -> Event | None:
    state, approval = look.state, look.step.approve
    waited = look.facts.now - max(state.step_began, state.resumed_at)
    if approval is None or waited < approval.timeout:
        return None
    reason = f"nobody has approved it for {spans(waited)}"
    return _either(look, approval.on_timeout, reason, "approval")


def _baked(look: Look) -> Event | None:
    if is_compared(look) and is_silent(look):
        return _no_data(look)
    missing = lacking(look)
    if not missing:
        reason = "approved" if look.step.approve is not None else "the step has what it asks for"
        return forward(look, who=CONTROLLER, reason=reason)
    longest = look.step.bake.max
    over = longest is not None and look.state.baked(look.facts.now) - look.state.extended >= longest
    return _inconclusive(look, missing) if over else None


def _no_data(look: Look) -> Event | None:
    if look.config.guardrails.on_no_data == "hold":
        return None
    return _by_itself(look, "paused", "nothing has arrived for a while", "no_data")


def _inconclusive(look: Look, missing: list[str]) -> Event | None:
    if is_compared(look) and samples_of(look) == 0:
        return None  # nothing is not inconclusive
    reason = f"`bake.max` {look.step.bake.max} is over without {'; '.join(missing)}"
    verdict = look.config.guardrails.on_inconclusive
    if verdict != "promote":
        return _either(look, verdict, reason, "inconclusive")
    if look.facts.not_ready:  # whatever is proven: it could not answer
        return None
    return forward(look, who=CONTROLLER, reason=reason)
