"""The life of a request: admit, route, join, infer, answer, record.

Read `Pipeline.infer` first. Listening and decoding come before it (`http.py`, `grpc.py`),
encoding after it. A table can be replaced at any time without losing a request: the only await
between reading the current table and handing the request to its upstream is the one for
features, and a table that is replaced waits for those (`Loader.retire`).
"""

import random
from collections.abc import Callable

from feature_cache.cache import Reading
from serving.clock import Clock
from serving.config.schema import Limits
from serving.metrics import MetricsFile
from serving.recording.no_log import PredictionSink
from serving.recording.recorder import Recorder
from serving.traffic.table import Decision
from serving.types import Call, InferRequest, InferResponse, Principal
from serving.worker.admission import Admission
from serving.worker.fallback import Fallback, insist_on_shape
from serving.worker.join import Wanted
from serving.worker.lane import Lane
from serving.worker.mirror import Mirror
from serving.worker.outcomes import Outcomes
from serving.worker.table import LiveModel, LiveTable
from serving.worker.tracing import Tracing
from serving.worker.trip import Trip, attributes, spans

__all__ = ["Pipeline"]


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
        self.table = LiveTable.empty()
        self.admission = admission
        self.recorder = recorder
        self.mirror = mirror
        self.tracing = tracing
        self._default_deadline = float(limits.default_deadline)
        self._now: Callable[[], float] = clock.monotonic
        self.fallback = Fallback(metrics, self._now)
        self._outcomes = Outcomes(
            recorder=recorder,
            mirror=mirror,
            fallback=self.fallback,
            limits=limits,
            metrics=metrics,
            clock=clock,
            worker=worker,
            log=log,
        )
        self.publish = self._outcomes.publish

    async def infer(self, request: InferRequest, call: Call) -> InferResponse:
        """Answer one request.

        Raises:
            ServingError: what happened; the caller's transport says it in its own words.
            asyncio.CancelledError: the client left; its place in queue and batch is given up.
        """
        table = self.table
        trip = Trip(table.revision, request, call, self.tracing.begin(call))
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
            response = self._outcomes.answered(trip, lane, decision)
        except BaseException as error:
            self._outcomes.refused(error, self.table.models, trip)
            raise
        finally:
            if entered:
                self.admission.leave()
        if trip.trace is not None:
            trip.trace.finish(spans(trip, self._now()), attributes(lane, decision, call), None)
        if decision.mirrors:
            self._outcomes.copy(model, trip, decision)
        return response

    async def _read(self, lane: Lane, wanted: Wanted, deadline: float) -> Reading:
        lane.joining += 1
        try:
            return await lane.join.read(wanted, deadline - self._now())
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
            self._outcomes.take_down(error, self.table.models, trip)
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
