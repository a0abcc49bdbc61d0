"""The life of a request: admit, route, join, infer, answer, record.

Read `Pipeline.infer` first. Listening and decoding come before it (`http.py`, `grpc.py`),
encoding after it. A table can be replaced at any time without losing a request: the only await
between reading the current table and handing the request to its upstream is the one for
features, and a table that is replaced waits for those (`Loader.retire`).
"""

import random
from collections.abc import Callable
from typing import Final

from feature_cache.cache import Batch, Reading
from serving.clock import Clock
from serving.config.schema import Limits
from serving.errors import (
    ClientDisconnected,
    DeadlineExceeded,
)
from serving.metrics import Counter, MetricsFile
from serving.protocol.status import grpc_code
from serving.recording.no_log import NoLog, PredictionSink
from serving.recording.offer import Offer
from serving.recording.record import PredictionRecord
from serving.recording.recorder import Entry, Recorder
from serving.recording.row_plan import RowPlan
from serving.traffic.table import Decision
from serving.types import Call, InferRequest, InferResponse, ParameterValue, Principal, Tensor
from serving.worker.admission import Admission
from serving.worker.evidence_faults import fault_of
from serving.worker.evidence_watch import Watch
from serving.worker.fallback import Fallback, insist_on_shape
from serving.worker.features import FeatureTally, summary
from serving.worker.join import Wanted
from serving.worker.lane import Lane
from serving.worker.mirror import Mirror
from serving.worker.table import LiveModel, LiveTable
from serving.worker.tracing import Trace, Tracing
from serving.worker.trip import Trip, attributes, reason_of, spans

__all__ = ["Pipeline"]

UNKNOWN: Final = "_unknown"


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
        log: PredictionSink | None = None,
    ) -> None:
        self._log: PredictionSink = log or NoLog()
        self._unrouted: dict[str, RowPlan] = {}
        self._feature_tally = FeatureTally(metrics)
        self.table = LiveTable.empty()
        self.admission = admission
        self.recorder = recorder
        self.mirror = mirror
        self.tracing = tracing
        self._default_deadline = float(limits.default_deadline)
        self._longest_deadline = float(limits.max_deadline)
        self._metrics = metrics
        self._now: Callable[[], float] = clock.monotonic
        self._wall: Callable[[], float] = clock.wall
        self.fallback = Fallback(metrics, self._now)
        self._rejected: dict[tuple[str, str], Counter] = {}
        self._tag = f"{worker}.{random.getrandbits(32):08x}."
        self._sequence = 0

    async def infer(self, request: InferRequest, call: Call) -> InferResponse:
        """Answer one request.

        Raises:
            ServingError: what happened; the caller's transport says it in its own words.
            asyncio.CancelledError: the client left; its place in queue and batch is given up.
        """
        trace = self.tracing.begin(call)
        table = self.table
        trip = Trip(table.revision)
        entered = False
        try:
            model = table.model(request.model)
            principal = self.admission.enter(
                request, call, model.deadline or self._default_deadline, self._now()
            )
            entered = True
            decision = self._route(model, request, call, principal, trip)
            watch = trip.watch = model.watch
            if watch is not None:
                if watch.stopped:
                    decision = watch.around(decision)
                trip.ticket = watch.enter(decision, trip.place)
            trip.decision = decision
            if decision.fallback is not None:
                lane, decision = await self._ask_canary(model, request, call, trip, decision)
            else:
                trip.lane = lane = model.answering(decision)
                trip.admitted = self._now()
                wanted = lane.join.wanted(request)
                if wanted is None:
                    trip.joined = joined = lane.join.join(request)
                else:
                    trip.reading = await self._read(lane, wanted, call.deadline)
                    trip.joined = joined = lane.join.join_read(request, wanted, trip.reading)
                trip.joined_at = self._now()
                trip.inference = await lane.upstream.infer(
                    joined.feed, rows=joined.rows, outputs=joined.outputs, deadline=call.deadline
                )
            trip.inferred = self._now()
            response = self._answer(request, call, trip, lane, decision)
        except BaseException as error:
            self._refused(error, request, call, trip, trace)
            raise
        finally:
            if entered:
                self.admission.leave()
        if trace is not None:
            trace.finish(spans(call, trip, self._now()), attributes(lane, decision, call), None)
        if decision.mirrors:
            self._mirror(model, request, trip, decision)
        return response

    def _mirror(
        self, model: LiveModel, request: InferRequest, trip: Trip, decision: Decision
    ) -> None:
        """Offer copies of an answered request."""
        joined, inference = trip.joined, trip.inference
        assert joined is not None
        assert inference is not None
        answers = dict(zip(joined.outputs, inference.outputs, strict=True))
        for version in decision.mirrors:
            shadow = model.lanes.get(version)
            if shadow is not None:
                watch = trip.watch
                told = watch if watch is not None and watch.copies_to(version) else None
                self.mirror.offer(
                    shadow,
                    request,
                    answers,
                    trip.reading,
                    trip.entry,
                    watch=told,
                    place=trip.place,
                )

    async def _read(self, lane: Lane, wanted: Wanted, deadline: float) -> Reading:
        asked = lane.join.ask(wanted, deadline - self._now())
        if isinstance(asked, Reading):
            return asked
        lane.joining += 1
        try:
            return await asked
        finally:
            lane.joining -= 1

    async def _ask_canary(
        self, model: LiveModel, request: InferRequest, call: Call, trip: Trip, drawn: Decision
    ) -> tuple[Lane, Decision]:
        """Ask the canary, and production if it fails in time; say who has answered.

        That the canary failed is taken down as for any request, and kept in `trip`.
        """
        self.fallback.earn(model, drawn)
        try:
            return await self._ask(model, request, call, trip, drawn), drawn
        except Exception as error:
            again = drawn.fallback
            if again is None or not self.fallback.takes(model, call, error):
                raise
            self._take_down(error, request, call, trip)
            # Without its frames, which hold the trip: nobody would ever collect the two.
            trip.canary_failed = error.with_traceback(None)
            trip.answering, trip.gave_up = again, self._now()
        with self.fallback.counted(model.name):
            return await self._ask(model, request, call, trip, again), again

    async def _ask(
        self, model: LiveModel, request: InferRequest, call: Call, trip: Trip, decision: Decision
    ) -> Lane:
        """Join and infer where there may be a second try; what was read is read once for both."""
        trip.lane = lane = model.answering(decision)
        trip.admitted = trip.admitted or self._now()
        wanted = lane.join.wanted(request)
        if wanted is None:
            trip.joined = joined = lane.join.join(request)
        else:
            if trip.reading is None:
                trip.reading = await self._read(lane, wanted, call.deadline)
            trip.joined = joined = lane.join.join_read(request, wanted, trip.reading)
        trip.joined_at = trip.joined_at or self._now()
        upstream, deadline = lane.upstream, call.deadline
        if decision.fallback is not None:
            deadline = self.fallback.due(model, call)
        elif not upstream.ready():  # it was found long ago: the table may be another now
            upstream = self.table.upstream_of(lane) or upstream
        trip.inference = inference = await upstream.infer(
            joined.feed, rows=joined.rows, outputs=joined.outputs, deadline=deadline
        )
        if decision.fallback is not None:
            insist_on_shape(joined, inference, batchable=lane.join.batchable)
        return lane

    def _route(
        self,
        model: LiveModel,
        request: InferRequest,
        call: Call,
        principal: Principal,
        trip: Trip,
    ) -> Decision:
        """Pick the version: asked for by name, overridden, or assigned."""
        route = model.route
        if request.version:
            return route.pin(request.version, "version")
        key = model.key_of(request, call.headers)
        if key is not None and model.places:
            trip.place = route.place_of(key)
        overrides = route.overrides
        if overrides.beyond_headers or (call.headers and overrides.headers):
            overridden = route.override(call.headers, principal, key)
            if overridden is not None:
                return overridden
        if key is None:
            return route.only or route.pick(None, random.getrandbits(64))
        # Without a canary's weight every place is production's.
        return route.pick(trip.place or 0, route.copy_place_of(key) if route.copies else 0)

    def _answer(
        self, request: InferRequest, call: Call, trip: Trip, lane: Lane, decision: Decision
    ) -> InferResponse:
        """Put the answer together, take it down, and let the sockets have it."""
        joined, inference = trip.joined, trip.inference
        assert joined is not None
        assert inference is not None
        tally = lane.tally(decision.role, call.protocol)
        wall = self._wall()
        self._sequence += 1
        # Time, model, version and role in one word: a late label finds its partition.
        prediction_id = f"{int(wall * 1e3):x}~{self._tag}{self._sequence:x}{tally.suffix}"
        datatypes = lane.datatypes
        parameters: dict[str, ParameterValue] = {
            "model_role": decision.role,
            "prediction_id": prediction_id,
        }
        if trip.canary_failed is not None and trip.decision is not None:
            parameters["fallback"] = trip.decision.version
        if joined.batch is not None:
            parameters |= self._features(joined.batch)
        response = InferResponse(
            lane.model,
            lane.version,
            [
                Tensor(name, datatypes[name], array)
                for name, array in zip(joined.outputs, inference.outputs, strict=True)
            ],
            request.id,
            parameters,
            lane.labels,
        )
        answered = self._now()
        arrived, rows = call.arrived, joined.rows
        decoded = call.decoded or arrived
        queue, compute = inference.queue_seconds, inference.compute_seconds
        seconds = (
            decoded - arrived,
            trip.admitted - decoded,
            trip.joined_at - trip.admitted,
            queue,
            compute,
            answered - trip.inferred,
            answered - arrived,
        )
        tally.answered(seconds, rows)
        ticket, trip.ticket = trip.ticket, None
        if ticket is not None:
            assert trip.watch is not None
            if self.fallback.too_late(lane, call, trip.joined_at, trip.inferred):
                # The canary would have been given up by then, and blamed: both by one measure.
                late = DeadlineExceeded("later than a canary may be")
                fault = fault_of(late, hurried=self._hurried(lane, call))
                trip.watch.failed(ticket, fault, answered - arrived, answered)
            else:
                trip.watch.answered(ticket, answered - arrived, answered, joined, inference)
        trip.entry = entry = (
            wall,
            prediction_id,
            call.request_id or request.id,
            lane.model,
            lane.version,
            decision.role,
            decision.reason,
            decision.probability,
            trip.revision,
            "OK",
            rows,
            inference.batch_rows,
            answered - arrived,
            queue,
            compute,
        )
        self.recorder.offer(entry)
        if self._log.on:
            self._log.offer(
                Offer(
                    lane.rows,
                    entry,
                    seconds,
                    call.traceparent,
                    request.inputs,
                    joined.feed,
                    joined.batch,
                    joined.outputs,
                    inference.outputs,
                    lane.rows.size_of(rows, joined.feed, inference.outputs),
                )
            )
        return response

    def publish(self) -> None:
        """Bring counters up to date that are kept back; called from time to time."""
        self._feature_tally.publish()

    def _features(self, batch: Batch) -> dict[str, str | int]:
        self._feature_tally.count(batch)
        return summary(batch)

    def _refused(
        self,
        error: BaseException,
        request: InferRequest,
        call: Call,
        trip: Trip,
        trace: Trace | None,
    ) -> None:
        """Count and keep what went wrong, whoever's fault it is."""
        if not isinstance(error, Exception):
            error = ClientDisconnected("the client left before the answer")
        model, code = self._take_down(error, request, call, trip)
        reason = reason_of(error)
        if reason is not None:
            counter = self._rejected.get((model, reason))
            if counter is None:
                counter = self._rejected[model, reason] = self._metrics.counter(
                    "sluice_rejected_total", model=model, reason=reason
                )
            counter.inc()
        if trace is not None:
            trace.finish((), {"sluice.model": model, "rpc.grpc.status": code}, code)

    def _take_down(
        self, error: Exception, request: InferRequest, call: Call, trip: Trip
    ) -> tuple[str, str]:
        """Keep that a version was asked and did not answer; give the model's label and the code."""
        code = grpc_code(error)
        now = self._now()
        lane, decision = trip.lane, trip.answering or trip.decision
        if trip.watch is not None and decision is not None:
            self._blame(error, request, call, trip, trip.watch)
        role = decision.role if decision is not None else ""
        if lane is not None:
            lane.failed(role, call.protocol, code, now - call.arrived)
        model = request.model if request.model in self.table.models else UNKNOWN
        entry = (
            self._wall(),
            "",
            call.request_id or request.id,
            model,
            lane.version if lane is not None else "",
            role,
            decision.reason if decision is not None else "",
            decision.probability if decision is not None else 0.0,
            trip.revision,
            code,
            trip.joined.rows if trip.joined is not None else 0,
            0,
            now - call.arrived,
            0.0,
            0.0,
        )
        self.recorder.offer(entry)
        if self._log.on:
            self._log_refused(entry, request, call, trip)
        return model, code

    def _hurried(self, lane: Lane | None, call: Call) -> bool:
        """Whether the caller gave less time than the model allows."""
        own = lane.config.serve.deadline if lane is not None else None
        allowed = min(own or self._default_deadline, self._longest_deadline)
        return call.deadline < call.arrived + allowed

    def _blame(
        self, error: BaseException, request: InferRequest, call: Call, trip: Trip, watch: Watch
    ) -> None:
        """Tell a rollout of a request that the version it was given to did not answer."""
        lane, decision = trip.lane, trip.decision
        fault = fault_of(error, hurried=self._hurried(lane, call))
        ticket, trip.ticket = trip.ticket, None
        if ticket is not None:
            now = self._now()
            watch.failed(ticket, fault, now - call.arrived, now)
        # The copy that it would have been given tells whether the new version does better.
        if fault.counts and trip.joined is not None and decision is not None:
            model = self.table.models.get(request.model)
            for version in decision.mirrors:
                shadow = model.lanes.get(version) if model is not None else None
                if shadow is not None and watch.copies_to(version):
                    self.mirror.offer(
                        shadow, request, None, trip.reading, watch=watch, place=trip.place
                    )

    def _log_refused(self, entry: Entry, request: InferRequest, call: Call, trip: Trip) -> None:
        """Keep a refused request with what was known of it by then."""
        known = PredictionRecord(*entry)
        model, whole = known.model, known.seconds
        plan = trip.lane.rows if trip.lane is not None else self._unrouted.get(model)
        if plan is None:
            plan = self._unrouted[model] = RowPlan.unrouted(model)
        joined = trip.joined
        feed = joined.feed if joined is not None else None
        self._log.offer(
            Offer(
                plan,
                entry,
                (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, whole),
                call.traceparent,
                request.inputs,
                feed,
                joined.batch if joined is not None else None,
                (),
                None,
                plan.size_of(joined.rows if joined is not None else 1, feed or {}, ()),
            )
        )
