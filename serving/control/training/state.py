"""What is remembered of a model's requests for training: one file a model, replaced in one step.

A decision and the event that it sends are written together, before anything is sent. So control
may die at any point: the event is sent again, the same bytes with the same id, until somebody has
answered for it. Every change of the state is a pure function here; the desk does the rest.
"""

import contextlib
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from serving.control.patience import GIVE_UP_SECONDS, next_attempt
from serving.drift.retraining import RetrainState, ended
from serving.files import write_whole

__all__ = [
    "Kept",
    "Request",
    "after_delivery",
    "after_end",
    "after_failure",
    "overdue",
    "read_kept",
    "write_kept",
]

Stage = Literal["undelivered", "delivered", "given_up", "ended"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request for training. Times are seconds since 1970."""

    id: str
    at: float
    asked_by: str
    words: str
    event: str
    """The CloudEvent, as it is sent."""
    stage: Stage = "undelivered"
    noted: bool = False
    """The audit log has it."""
    attempts: int = 0
    next_attempt: float = 0.0
    delivered_at: float | None = None
    said: str = ""
    """What became of the last attempt."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model."""

    state: RetrainState = RetrainState()
    request: Request | None = None
    """The last one."""
    person: str = ""
    """What a person has been told to look at."""


def after_delivery(kept: Kept, identifier: str, said: str, now: float) -> Kept:
    """The event was taken. Nothing changes if it is not the last request's."""
    request = kept.request
    if request is None or request.id != identifier or request.stage == "ended":
        return kept
    attempts = request.attempts + 1
    return replace(
        kept,
        request=replace(request, stage="delivered", attempts=attempts, delivered_at=now, said=said),
    )


def after_failure(kept: Kept, identifier: str, said: str, now: float) -> Kept:
    """The event was not taken: it is tried again, or, after a day, given up."""
    request = kept.request
    if request is None or request.id != identifier or request.stage != "undelivered":
        return kept
    attempts = request.attempts + 1
    request = replace(request, attempts=attempts, said=said)
    if now - request.at < GIVE_UP_SECONDS:
        return replace(kept, request=replace(request, next_attempt=next_attempt(attempts, now)))
    return replace(
        kept,
        # Nobody has trained anything: that is no training in vain, and none is running.
        state=replace(kept.state, in_flight=False, harm_since=None),
        request=replace(request, stage="given_up"),
    )


def after_end(kept: Kept, *, improved: bool) -> Kept:
    """The training is over, or never was heard of again."""
    request = kept.request
    return replace(
        kept,
        state=ended(kept.state, improved=improved),
        request=replace(request, stage="ended") if request is not None else None,
    )


def overdue(kept: Kept, ends_within: float, now: float) -> bool:
    """Whether a training that was asked for should have ended by now."""
    request = kept.request
    return kept.state.in_flight and request is not None and now - request.at > ends_within


def read_kept(path: Path) -> Kept:
    """What is remembered; nothing before the first time.

    Raises:
        OSError: the file cannot be read. msgspec.MsgspecError: it is something else. Beginning
            anew would forget the budget.
    """
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    return Kept()


def write_kept(path: Path, kept: Kept) -> None:
    """Remember it, in one step. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, msgspec.json.encode(kept))
