"""The life of a request: admit, route, join, infer, answer, record.

Read `Pipeline.infer` first. Listening and decoding come before it (`http.py`, `grpc.py`),
encoding after it. There is no await between reading the current table and handing the
request to its upstream, so a table can be replaced at any time without losing a request.
"""

import random
from collections.abc import Callable
from typing import Final

import msgspec

from serving.clock import Clock
from serving.config.schema import Limits
from serving.errors import (
    ClientDisconnected,
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    PermissionDenied,
    ServingError,
    Unauthenticated,
)
from serving.metrics import Counter, MetricsFile
from serving.protocol.status import grpc_code
from serving.recording.record import PredictionRecord
from serving.recording.recorder import Recorder
from serving.traffic.table import Decision
from serving.types import Call, InferRequest, InferResponse, Principal
from serving.upstream import Inference
from serving.worker.admission import Admission
from serving.worker.answer import answer_tensors
from serving.worker.join import Joined
from serving.worker.lane import Lane
from serving.worker.mirror import Mirror
from serving.worker.table import LiveModel, LiveTable
from serving.worker.tracing import Trace, Tracing

__all__ = ["Pipeline"]

UNKNOWN: Final = "_unknown"
_REASON: Final[dict[type[ServingError], str]] = {
    Unauthenticated: "unauthenticated",
    PermissionDenied: "permission_denied",
    ModelNotFound: "model_not_found",
    ModelNotReady: "model_not_ready",
    InvalidRequest: "invalid_request",
    DeadlineExceeded: "deadline",
}


class _Trip(msgspec.Struct, gc=False):
    """Where a request is; filled in as it goes, read when it ends."""

    lane: Lane | None = None
    decision: Decision | None = None
    joined: Joined | None = None
    inference: Inference | None = None
    admitted: float = 0.0
    joined_at: float = 0.0
    inferred: float = 0.0


class Pipeline:
    """The seven stations between two listeners and the sessions."""

    def __init__(
        self,
        *,
        admission: Admission,
        recorder: Recorder,
        mirror: Mirror,
        tracing: Tracing,
        limits: Limits,
        metrics: MetricsFile,
        clock: Clock,
        worker: str,
    ) -> None:
        self.table = LiveTable.empty()
        self.admission = admission
        self.recorder = recorder
        self.mirror = mirror
        self.tracing = tracing
        self._default_deadline = float(limits.default_deadline)
        self._metrics = metrics
        self._now: Callable[[], float] = clock.monotonic
        self._wall: Callable[[], float] = clock.wall
        self._rejected: dict[tuple[str, str], Counter] = {}
        self._tag = f"{worker}.{random.getrandbits(32):08x}"
        self._sequence = 0

    async def infer(self, request: InferRequest, call: Call) -> InferResponse:
        """Answer one request.

        Raises:
            ServingError: what happened; the caller's transport says it in its own words.
            asyncio.CancelledError: the client left; its place in queue and batch is given up.
        """
        trace = self.tracing.begin(call)
        trip = _Trip()
        entered = False
        try:
            model = self.table.model(request.model)
            principal = self.admission.enter(
                request, call, model.deadline or self._default_deadline, self._now()
            )
            entered = True
            trip.decision = decision = self._route(model, request, call, principal)
            trip.lane = lane = model.answering(decision)
            trip.admitted = self._now()
            trip.joined = joined = lane.join.join(request)
            trip.joined_at = self._now()
            trip.inference = inference = await lane.upstream.infer(
                joined.feed, rows=joined.rows, outputs=joined.outputs, deadline=call.deadline
            )
            trip.inferred = self._now()
            response = self._answer(request, trip, lane, decision)
        except BaseException as error:
            self._refused(error, request, call, trip, trace)
            raise
        finally:
            if entered:
                self.admission.leave()
        self._answered(request, call, trip, response, trace)
        if decision.mirrors:
            answers = dict(zip(joined.outputs, inference.outputs, strict=True))
            for version in decision.mirrors:
                shadow = model.lanes.get(version)
                if shadow is not None:
                    self.mirror.offer(shadow, request, answers)
        return response

    def _route(
        self, model: LiveModel, request: InferRequest, call: Call, principal: Principal
    ) -> Decision:
        """Pick the version: asked for by name, overridden by an allowed header, or assigned."""
        route = model.route
        if request.version:
            return route.pin(request.version, "version")
        if call.headers:
            for override in route.overrides:
                wanted = call.headers.get(override.header)
                if wanted:
                    if principal.roles.isdisjoint(override.roles):
                        raise PermissionDenied(
                            f"header '{override.header}' needs one of the roles "
                            f"{', '.join(override.roles)}"
                        )
                    return route.pin(wanted, "override")
        key = model.key_of(request, call.headers)
        return route.pick(key, random.getrandbits(64) if key is None else 0)

    def _answer(
        self, request: InferRequest, trip: _Trip, lane: Lane, decision: Decision
    ) -> InferResponse:
        assert trip.joined is not None
        assert trip.inference is not None
        self._sequence += 1
        return InferResponse(
            model=lane.model,
            version=lane.version,
            id=request.id,
            outputs=answer_tensors(
                trip.joined.outputs,
                trip.inference.outputs,
                lane.datatypes,
                request.outputs,
                lane.labels,
            ),
            parameters={
                "model_role": decision.role,
                # Time, model, version and role in one word: a late label finds its partition.
                "prediction_id": f"{int(self._wall() * 1e3):x}~{self._tag}.{self._sequence:x}"
                f"~{lane.model}~{lane.version}~{decision.role}",
            },
        )

    def _answered(
        self,
        request: InferRequest,
        call: Call,
        trip: _Trip,
        response: InferResponse,
        trace: Trace | None,
    ) -> None:
        lane, decision, joined, inference = trip.lane, trip.decision, trip.joined, trip.inference
        assert lane is not None
        assert decision is not None
        assert joined is not None
        assert inference is not None
        answered = self._now()
        decoded = call.decoded or call.arrived
        marks = (call.arrived, decoded, trip.admitted, trip.joined_at, trip.inferred, answered)
        lane.phases.succeeded(marks, inference, joined.rows)
        requests, durations = lane.outcome(decision.role, call.protocol, "OK")
        requests.inc()
        durations.observe(answered - call.arrived)
        self.recorder.offer(
            PredictionRecord(
                self._wall(),
                str(response.parameters["prediction_id"]),
                call.request_id or request.id,
                lane.model,
                lane.version,
                decision.role,
                decision.reason,
                decision.probability,
                self.table.revision,
                "OK",
                joined.rows,
                inference.batch_rows,
                answered - call.arrived,
                inference.queue_seconds,
                inference.compute_seconds,
            )
        )
        if trace is not None:
            trace.finish(_spans(marks, inference), _attributes(lane, decision, call), None)

    def _refused(
        self,
        error: BaseException,
        request: InferRequest,
        call: Call,
        trip: _Trip,
        trace: Trace | None,
    ) -> None:
        """Count and keep what went wrong, whoever's fault it is."""
        if not isinstance(error, Exception):
            error = ClientDisconnected("the client left before the answer")
        code = grpc_code(error)
        now = self._now()
        lane, decision = trip.lane, trip.decision
        role = decision.role if decision is not None else ""
        if lane is not None:
            requests, durations = lane.outcome(role, call.protocol, code)
            requests.inc()
            durations.observe(now - call.arrived)
            lane.phases.failed(now - call.arrived)
        model = request.model if request.model in self.table.models else UNKNOWN
        reason = _reason(error)
        if reason is not None:
            counter = self._rejected.get((model, reason))
            if counter is None:
                counter = self._rejected[model, reason] = self._metrics.counter(
                    "sluice_rejected_total", model=model, reason=reason
                )
            counter.inc()
        self.recorder.offer(
            PredictionRecord(
                self._wall(),
                "",
                call.request_id or request.id,
                model,
                lane.version if lane is not None else "",
                role,
                decision.reason if decision is not None else "",
                decision.probability if decision is not None else 0.0,
                self.table.revision,
                code,
                trip.joined.rows if trip.joined is not None else 0,
                0,
                now - call.arrived,
                0.0,
                0.0,
            )
        )
        if trace is not None:
            trace.finish((), {"sluice.model": model, "rpc.grpc.status": code}, code)


def _reason(error: BaseException) -> str | None:
    """The metric label of a refusal; None for a failure that did reach the model."""
    if isinstance(error, Overloaded):
        return error.reason
    if isinstance(error, InferenceFailed):
        return None
    return next((_REASON[kind] for kind in type(error).__mro__ if kind in _REASON), None)


def _spans(
    marks: tuple[float, float, float, float, float, float], inference: Inference
) -> list[tuple[str, float, float]]:
    arrived, decoded, admitted, joined, inferred, answered = marks
    started = max(joined, inferred - inference.compute_seconds)
    return [
        ("decode", arrived, decoded),
        ("admit", decoded, admitted),
        ("join", admitted, joined),
        ("queue", joined, started),
        ("infer", started, inferred),
        ("answer", inferred, answered),
    ]


def _attributes(lane: Lane, decision: Decision, call: Call) -> dict[str, str | int | float | bool]:
    return {
        "sluice.model": lane.model,
        "sluice.version": lane.version,
        "sluice.role": decision.role,
        "sluice.reason": decision.reason,
        "network.protocol.name": call.protocol,
        "sluice.request_id": call.request_id,
    }
