"""What a notice of a rollout says: a CloudEvent 1.0 in structured JSON. Pure."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from serving.config.schema import RolloutConfig
from serving.control.cloud_event import CloudEvent, moment
from serving.rollout.standing import RolloutStanding, RuleStanding
from serving.rollout.state import Event

__all__ = ["TYPE", "NoticeName", "RolloutNotice", "event_of", "identifier_of", "names_of"]

TYPE: Final = "dev.sluice.rollout"
"""Followed by a point and the name of what happened."""

NoticeName = Literal[
    "started", "advanced", "paused", "resumed", "approval_needed",
    "aborted", "completed", "inconclusive",
]  # fmt: skip

_NAMES: Final[dict[str, tuple[NoticeName, ...]]] = {
    "started": ("started",),
    "stepped": ("advanced",),
    "paused": ("paused",),
    "resumed": ("resumed",),
    "approved": ("resumed",),
    "promoting": ("advanced",),
    # Already when it is decided: with the store away it may take a while until every worker has
    # heard of it, and that is just when a person is needed.
    "aborting": ("aborted",),
    "superseded": ("aborted",),
    "done": ("completed",),
}


class RolloutNotice(msgspec.Struct, frozen=True, kw_only=True):
    """`data` of the event. Moments are RFC 3339 in UTC, percents from 0 to 100."""

    model: str
    rollout: str
    revision: int
    """Of the rollout's events; who gets two out of order knows by it."""

    event: str
    """What happened, as the history has it: `aborting`, `stepped` and so on."""

    names: list[str]
    """All that it is called in `notify.events`; the first is part of the type."""

    who: str
    reason: str
    evidence: dict[str, str]
    """What it rests on: by rule, in words and numbers."""

    canary: str
    production: str
    phase: str
    step: int
    """From 1."""

    steps: list[str]
    weight: float
    shadow: float
    rules: list[RuleStanding]
    waiting_for: list[str]
    group: str
    """Who is asked, of an approval."""

    answer_by: str
    """Until when, of an approval; empty otherwise."""

    command: str
    """What a person may do now; empty if nothing is needed."""


def names_of(event: Event, standing: RolloutStanding) -> tuple[NoticeName, ...]:
    """What an event is called in `notify.events`, the most telling first; empty: it is not told.

    Args:
        event: what happened.
        standing: the rollout right after it.
    """
    if event.kind == "superseded" and standing.phase == "done":
        return ()  # production is what it wanted: nothing has changed
    names = _NAMES.get(event.kind, ())
    if event.kind == "stepped" and standing.phase == "awaiting_approval":
        return ("approval_needed", *names)
    return (*names, "inconclusive") if event.cause == "inconclusive" else names


def identifier_of(event: Event, standing: RolloutStanding) -> str:
    """The event's id: the same however often it is told."""
    return f"{standing.id}.{event.revision}"


def event_of(
    event: Event,
    standing: RolloutStanding,
    config: RolloutConfig,
    *,
    names: Sequence[NoticeName],
    source: str,
) -> bytes:
    """Write the CloudEvent; the same bytes are sent every time, however often that is.

    Args:
        event: what happened.
        standing: the rollout right after it.
        config: its plan.
        names: what it is called; see `names_of`.
        source: URI of the gateway's admin port.
    """
    steps = config.steps
    approval = steps[standing.step].approve if standing.step < len(steps) else None
    asks = approval if "approval_needed" in names else None
    data = RolloutNotice(
        model=standing.model,
        rollout=standing.id,
        revision=event.revision,
        event=event.kind,
        names=list(names),
        who=event.who,
        reason=event.reason,
        evidence=event.evidence,
        canary=standing.canary,
        production=standing.production,
        phase=standing.phase,
        step=standing.step + 1,
        steps=standing.steps,
        weight=standing.weight,
        shadow=standing.shadow,
        rules=standing.rules,
        waiting_for=standing.waiting_for,
        group=asks.group if asks is not None else "",
        answer_by=moment(event.at + float(asks.timeout)) if asks is not None else "",
        command=_command(event, standing),
    )
    return msgspec.json.encode(
        CloudEvent(
            id=identifier_of(event, standing),
            source=source,
            type=f"{TYPE}.{names[0]}",
            subject=standing.model,
            time=moment(event.at),
            data=data,
        )
    )


def _command(event: Event, standing: RolloutStanding) -> str:
    verb = {
        "awaiting_approval": "approve",
        "paused": "resume",
        "aborting": "history",
        "aborted": "history",
    }.get(standing.phase, "")
    return f"sluice rollout {verb} {standing.model}" if verb and event.kind != "resumed" else ""
