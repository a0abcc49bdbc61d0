"""What has happened in a rollout: events, and the state that they add up to.

    pending ─▶ progressing ⇄ paused
                   │  ▲  └──▶ awaiting_approval ─▶ progressing | paused | aborting
                   │  └ the next step
                   ├─▶ aborting ─▶ aborted ─▶ (retry) a new rollout
                   └─▶ promoting ─▶ done

`TRANSITIONS` is the whole table; an event that is not in it is refused. A state is nothing but its
events in order (`replayed`): what a step put in place and what was frozen before it stand in them,
so that a control process which starts again does not ask the file what it once did.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

__all__ = [
    "LIVE",
    "TRANSITIONS",
    "Arms",
    "Cause",
    "Event",
    "IllegalEvent",
    "Phase",
    "RolloutState",
    "after",
    "replayed",
]

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
    "frozen",  # bounds or bins were taken from production; nothing moves
]
Cause = Literal[
    "", "breach", "hard_stop", "quarantine", "split",
    "inconclusive", "no_data", "approval", "person", "file",
]  # fmt: skip
"""What kind of reason it was: `split` are shares that are not as they were drawn, `file` is a plan
that counts again instead of the rollout."""


class Arms(msgspec.Struct, frozen=True, kw_only=True):
    """Who takes part: `started` says it once."""

    canary: str
    production: str
    canary_sha256: str = ""
    production_sha256: str = ""
    file_production: str = ""
    """What `traffic.production` said, which an earlier rollout may have gone beyond."""

    salt: str = ""
    steps: list[str] = []
    """The plan's, in words."""


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

    cause: Cause = ""

    rules: list[str] = []
    """Rules that caused it. Going on in spite of them waives them for this rollout."""

    asks: bool = False
    """Of `stepped` and `resumed`: whether the step is an approval."""

    weight: float | None = None
    """Percent of keys from now on; None: as before."""

    shadow: float | None = None
    """Percent of requests copied from now on; None: as before."""

    counted: dict[str, int] = {}
    """Of `stepped`: `samples` and `copies` of the rollout so far, so that the step's own can be
    told."""

    arms: Arms | None = None
    """Of `started`."""

    latency_bounds: dict[str, list[float]] = {}
    """Of `started` and `frozen`: seconds, by rule."""

    bins: dict[str, list[float]] = {}
    """Of `started` and `frozen`: inner edges, by rule."""


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
    """Of the last event that moved something."""

    canary: str = ""
    production: str = ""
    canary_sha256: str = ""
    production_sha256: str = ""
    file_production: str = ""
    salt: str = ""
    steps: list[str] = []
    """The plan's when it began, in words."""

    weight: float = 0.0
    """Percent of keys that the canary answers."""

    shadow: float = 0.0
    """Percent of requests copied to it."""

    counted: dict[str, int] = {}
    """`samples` and `copies` when the step began."""

    latency_bounds: dict[str, list[float]] = {}
    bins: dict[str, list[float]] = {}
    cause: Cause = ""
    """Why it is paused, or was ended."""

    rules: list[str] = []
    """Rules that it is paused for, or was ended by."""

    waived: list[str] = []
    """Rules whose pause a person has ended; they pause this rollout no more."""

    resumed_at: float = 0.0
    """When it went on last."""

    extended: float = 0.0
    """Seconds of this step that had baked when a person gave it another `bake.max`."""

    ended_at: float | None = None
    """When it was aborted, done or superseded."""

    superseded: bool = False

    @property
    def is_live(self) -> bool:
        """Whether anything can still come of it by itself."""
        return self.phase in LIVE

    def baked(self, now: float) -> float:
        """Seconds of this step so far without those in which it was paused; never below 0."""
        until = now if self.paused_at is None else self.paused_at
        return max(0.0, until - self.step_began - self.held)


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
        "frozen": ("progressing",),
    },
    "paused": {
        "resumed": ("progressing", "awaiting_approval"),
        "stepped": ("progressing", "awaiting_approval"),
        "promoting": ("promoting",),
        "aborting": ("aborting",),
        "superseded": ("aborted",),
        "frozen": ("paused",),
    },
    "awaiting_approval": {
        "approved": ("progressing",),
        "stepped": ("progressing", "awaiting_approval"),
        "paused": ("paused",),
        "promoting": ("promoting",),
        "aborting": ("aborting",),
        "superseded": ("aborted",),
        "frozen": ("awaiting_approval",),
    },
    "aborting": {"aborted": ("aborted",), "superseded": ("aborted",)},
    "aborted": {},
    "promoting": {"done": ("done",), "aborting": ("aborting",), "superseded": ("aborted",)},
    "done": {"superseded": ("done",)},
}
"""By phase: what can happen, and what comes of it. Of two phases the second is for a step that
asks for approval."""

LIVE: Final[frozenset[Phase]] = frozenset(TRANSITIONS) - {"aborted", "done"}


def after(state: RolloutState, event: Event, *, asks: bool = False) -> RolloutState:
    """The state that follows an event.

    Args:
        state: before it.
        event: the next one.
        asks: whether the step of a `stepped` or `resumed` asks for approval; `event.asks` says the
            same.

    Raises:
        IllegalEvent: it cannot follow, or its revision is not the next one.
    """
    found = TRANSITIONS[state.phase].get(event.kind)
    if found is None or (event.kind == "started") != (state.revision == 0):
        raise IllegalEvent(
            f"a rollout that is {state.phase} can be {_possible(state)}; not {event.kind}"
        )
    if event.revision != state.revision + 1:
        raise IllegalEvent(f"after revision {state.revision} comes no revision {event.revision}")
    if event.kind == "frozen":
        return msgspec.structs.replace(
            state,
            revision=event.revision,
            latency_bounds=state.latency_bounds | event.latency_bounds,
            bins=state.bins | event.bins,
        )
    moved = msgspec.structs.replace(
        state,
        phase=found[(asks or event.asks) and len(found) > 1],
        revision=event.revision,
        reason=event.reason,
        cause=event.cause,
        rules=event.rules,
        weight=state.weight if event.weight is None else event.weight,
        shadow=state.shadow if event.shadow is None else event.shadow,
    )
    if event.kind == "started":
        return _begun(moved, event)
    if event.kind == "paused":
        return msgspec.structs.replace(moved, paused_at=event.at)
    if event.kind in ("aborted", "done", "superseded"):
        return _over(moved, state, event)
    gone_on = _gone_on(moved, state, event)
    if event.kind == "stepped":
        return msgspec.structs.replace(
            gone_on,
            step=event.step,
            step_began=event.at,
            held=0.0,
            extended=0.0,
            counted=event.counted,
        )
    return gone_on


def _begun(state: RolloutState, event: Event) -> RolloutState:
    arms = event.arms or Arms(canary="", production="")
    return msgspec.structs.replace(
        state,
        began=event.at,
        step_began=event.at,
        canary=arms.canary,
        production=arms.production,
        canary_sha256=arms.canary_sha256,
        production_sha256=arms.production_sha256,
        file_production=arms.file_production,
        salt=arms.salt,
        steps=arms.steps,
        latency_bounds=event.latency_bounds,
        bins=event.bins,
    )


def _over(moved: RolloutState, before: RolloutState, event: Event) -> RolloutState:
    if event.kind == "superseded":
        return msgspec.structs.replace(
            moved, paused_at=None, ended_at=event.at, weight=0.0, shadow=0.0, superseded=True
        )
    # Why it ended was said when that was decided.
    return msgspec.structs.replace(
        moved, ended_at=event.at, reason=before.reason, cause=before.cause, rules=before.rules
    )


def _gone_on(moved: RolloutState, before: RolloutState, event: Event) -> RolloutState:
    """What a pause leaves behind when it ends, whichever way."""
    if before.paused_at is None:
        return moved
    goes_on = event.kind != "aborting"
    return msgspec.structs.replace(
        moved,
        held=before.held + max(0.0, event.at - before.paused_at),
        paused_at=None,
        resumed_at=event.at,
        waived=sorted({*before.waived, *before.rules}) if goes_on else before.waived,
        extended=before.baked(event.at) if before.cause == "inconclusive" else before.extended,
    )


def _possible(state: RolloutState) -> str:
    kinds = ["started"] if state.revision == 0 else list(TRANSITIONS[state.phase])
    return ", ".join(kind for kind in kinds if kind != "started" or not state.revision) or "nothing"


def replayed(identifier: str, model: str, events: Iterable[Event]) -> RolloutState:
    """The state that events in order add up to. Raises IllegalEvent where they do not follow."""
    state = RolloutState(id=identifier, model=model)
    for event in events:
        state = after(state, event)
    return state
