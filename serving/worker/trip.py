"""Where a request is on its way through the pipeline, and how that reads in metrics and traces."""

from typing import Final

import msgspec

from feature_cache.cache import Reading
from serving.errors import (
    DeadlineExceeded,
    FeaturesUnavailable,
    InferenceFailed,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    PermissionDenied,
    ServingError,
    Unauthenticated,
)
from serving.recording.recorder import Entry
from serving.traffic.table import Decision
from serving.types import Call, InferRequest
from serving.upstream import Inference
from serving.worker.evidence.watch import Ticket, Watch
from serving.worker.join import Joined
from serving.worker.lane import Lane
from serving.worker.tracing import Trace

__all__ = ["Trip", "attributes", "reason_of", "spans"]

_REASON: Final[dict[type[ServingError], str]] = {
    Unauthenticated: "unauthenticated",
    PermissionDenied: "permission_denied",
    ModelNotFound: "model_not_found",
    ModelNotReady: "model_not_ready",
    InvalidRequest: "invalid_request",
    DeadlineExceeded: "deadline",
    FeaturesUnavailable: "features_unavailable",
}


class Trip(msgspec.Struct, gc=False):
    """Where a request is; filled in as it goes, read when it ends.

    `revision` is that of the table it began under: by its end another may be served.
    """

    revision: int
    request: InferRequest
    call: Call
    trace: Trace | None
    entered: bool = False
    """Whether it has a place among those in flight, to be given back."""

    lane: Lane | None = None
    decision: Decision | None = None
    place: int | None = None
    """Where the assignment key falls on the line, if there is one and somebody wants to know."""

    joined: Joined | None = None
    reading: Reading | None = None
    inference: Inference | None = None
    entry: Entry | None = None
    canary_failed: Exception | None = None
    """How the canary, which `decision` names, failed what was then asked of production."""

    answering: Decision | None = None
    """Who was asked then."""

    admitted: float = 0.0
    joined_at: float = 0.0
    gave_up: float = 0.0
    inferred: float = 0.0
    watch: Watch | None = None
    ticket: Ticket | None = None
    """What `watch` wants back when it is known what has become of the request."""


def reason_of(error: BaseException) -> str | None:
    """The metric label of a refusal; None for a failure that did reach the model."""
    if isinstance(error, Overloaded):
        return error.reason
    if isinstance(error, InferenceFailed):
        return None
    return next((_REASON[kind] for kind in type(error).__mro__ if kind in _REASON), None)


def spans(trip: Trip, answered: float) -> list[tuple[str, float, float]]:
    """The stations of an answered request: name, begin and end in monotonic seconds."""
    assert trip.inference is not None
    call = trip.call
    decoded = call.decoded or call.arrived
    asked = trip.gave_up or trip.joined_at
    started = max(asked, trip.inferred - trip.inference.compute_seconds)
    return [
        ("decode", call.arrived, decoded),
        ("admit", decoded, trip.admitted),
        ("join", trip.admitted, trip.joined_at),
        *([("canary", trip.joined_at, asked)] if trip.gave_up else ()),
        ("queue", asked, started),
        ("infer", started, trip.inferred),
        ("answer", trip.inferred, answered),
    ]


def attributes(lane: Lane, decision: Decision, call: Call) -> dict[str, str | int | float | bool]:
    """What a trace says of a request beside its times."""
    return {
        "sluice.model": lane.model,
        "sluice.version": lane.version,
        "sluice.role": decision.role,
        "sluice.reason": decision.reason,
        "network.protocol.name": call.protocol,
        "sluice.request_id": call.request_id,
    }
