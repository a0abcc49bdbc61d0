"""What has happened in a rollout: events, and the state that they add up to.

    pending ─▶ progressing ⇄ paused
                   │  ▲  └──▶ awaiting_approval ─▶ progressing | paused | aborting
                   │  └ the next step
                   ├─▶ aborting ─▶ aborted ─▶ (retry) a new rollout
                   └─▶ promoting ─▶ done

`TRANSITIONS` is the whole table; an event that is not in it is refused.
"""

from typing import Final, Literal

import msgspec

__all__ = ["TRANSITIONS", "Event", "IllegalEvent", "Phase", "RolloutState", "after"]

Phase = Literal[
    "pending", "progressing", "paused", "awaiting_approval",
    "aborting", "aborted", "promoting", "done",
]  # fmt: skip
Kind = Literal[
    "started",  # the plan was applied: pending
    "stepped",  # a step begins: progressing, or awaiting_approval
    "paused",
    "resumed",
    "approved",
    "promoted",  # a person, or the last proof: everything goes to the canary
    "aborting",  # decided; traffic is being taken back
    "aborted",  # every worker has it
    "promoting",
    "done",
    "superseded",  # the file names another rollout, or production has become what it wanted
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened, as it stands in the log."""

    revision: int
    """From 1, without gaps, per rollout."""

    at: float
    """Seconds since 1970."""

    kind: Kind
    who: str
    """A person's token, or `controller`."""

    reason: str = ""
    step: int = 0
    """The step that the rollout is at after it."""

    evidence: dict[str, str] = {}
    """What it rests on: by rule, in words and numbers."""


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rollout is."""

    id: str
    model: str
    phase: Phase = "pending"
    step: int = 0
    revision: int = 0
    began: float = 0.0
    """When it was applied, seconds since 1970."""

    step_began: float = 0.0
    """When the step began."""

    held: float = 0.0
    """Seconds of this step that do not count as baking, because it was paused."""

    paused_at: float | None = None
    reason: str = ""
    """Of the last event."""


class IllegalEvent(Exception):
    """An event that cannot follow; the message says what can."""


TRANSITIONS: Final[dict[Phase, dict[Kind, tuple[Phase, ...]]]] = {
    "pending": {
        "started": ("pending",),
        "stepped": ("progressing", "awaiting_approval"),
        "aborting": ("aborting",),
        "superseded": ("aborted",),
    },
    "progressing": {
        "stepped": ("progressing", "awaiting_approval"),
        "paused": ("paused",),
        "promoting": ("promoting",),
        "aborting": ("aborting",),
        "superseded": ("aborted",),
    },
    "paused": {
        "resumed": ("progressing",),
        "stepped": ("progressing", "awaiting_approval"),
        "promoting": ("promoting",),
        "aborting": ("aborting",),
        "superseded": ("aborted",),
    },
    "awaiting_approval": {
        "approved": ("progressing",),
        "stepped": ("progressing", "awaiting_approval"),
        "paused": ("paused",),
        "promoting": ("promoting",),
        "aborting": ("aborting",),
        "superseded": ("aborted",),
    },
    "aborting": {"aborted": ("aborted",)},
    "aborted": {},
    "promoting": {"done": ("done",), "aborting": ("aborting",)},
    "done": {"superseded": ("done",)},
}


def after(state: RolloutState, event: Event, *, asks: bool = False) -> RolloutState:
    """The state that follows an event.

    Args:
        state: before it.
        event: the next one.
        asks: whether the step of a `stepped` asks for approval.

    Raises:
        IllegalEvent: it cannot follow, or its revision is not the next one.
    """
    found = TRANSITIONS[state.phase].get(event.kind)
    if found is None:
        can = ", ".join(TRANSITIONS[state.phase]) or "nothing"
        raise IllegalEvent(f"a rollout that is {state.phase} can be {can}; not {event.kind}")
    if event.revision != state.revision + 1:
        raise IllegalEvent(f"after revision {state.revision} comes no revision {event.revision}")
    phase = found[asks] if event.kind == "stepped" else found[0]
    held, paused_at = state.held, state.paused_at
    if event.kind == "paused":
        paused_at = event.at
    elif state.phase == "paused":
        held += event.at - (state.paused_at if state.paused_at is not None else event.at)
        paused_at = None
    stepped = event.kind == "stepped"
    return msgspec.structs.replace(
        state,
        phase=phase,
        step=event.step if stepped else state.step,
        revision=event.revision,
        began=event.at if event.kind == "started" else state.began,
        step_began=event.at if stepped else state.step_began,
        held=0.0 if stepped else held,
        paused_at=paused_at,
        reason=event.reason,
    )
