"""The life of a request: admit, route, join, infer, answer, record.

Read `Pipeline.infer` first. Listening and decoding come before it (`http.py`, `grpc.py`),
encoding after it. A table can be replaced at any time without losing a request: the only await
between reading the current table and handing the request to its upstream is the one for
features, and a table that is replaced waits for those (`Loader.retire`).
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from feature_cache.cache import Reading
from serving.clock import Clock
from serving.config.schema import Limits
from serving.errors import ServingError
from serving.metrics import MetricsFile
from serving.recording.no_log import PredictionSink
from serving.recording.recorder import Recorder
from serving.traffic.table import Decision
from serving.types import Call, InferRequest, InferResponse, Principal
from serving.upstream import Inference
from serving.worker.admission import Admission
from serving.worker.fallback import Fallback, insist_on_shape
from serving.worker.join import Wanted
from serving.worker.lane import Lane
from serving.worker.mirror import Mirror
from serving.worker.outcomes import Outcomes
from serving.worker.reply import InTask, Pending, Reply
from serving.worker.table import LiveModel, LiveTable
from serving.worker.tracing import Tracing
from serving.worker.trip import Trip, attributes, spans

__all__ = ["Pipeline"]

_LOG: Final = logging.getLogger("pipeline")


class _Waiter(msgspec.Struct, gc=False):
    """Stands in a batch for one request, and has the pipeline go on when it has been answered."""

    pipeline: "Pipeline"
    trip: Trip
    model: LiveModel
    reply: Reply | None
    """Who is told; None once it has been, or has given up."""

    told: bool = False

    def done(self) -> bool:
        """Whether its batch need not bother."""
        return self.told

    def set_result(self, inference: Inference) -> None:
        """Answer, in the middle of the batch: whatever goes wrong must not reach the others."""
        self.told = True
        reply, self.reply = self.reply, None
        assert reply is not None
        try:
            self.pipeline.inferred(self.trip, self.model, inference, reply)
        except Exception:  # noqa: BLE001 - the contract of `Reply` says that this cannot be
            _LOG.exception("an answer could not be handed over")

    def set_exception(self, error: ServingError) -> None:
        """Fail, but not now: a queue is being gone through, and who is told may ask again."""
        self.told = True
        asyncio.get_running_loop().call_soon(self._fail, error)

    def _fail(self, error: ServingError) -> None:
        reply, self.reply = self.reply, None
        if reply is not None:
            self.pipeline.refuse(self.trip, error)
            reply.failed(error)

    def cancel(self) -> None:
        """The client has left; its place in the batch stays empty."""
        self.told = True
        if self.reply is not None:
            self.reply = None
            self.pipeline.refuse(self.trip, asyncio.CancelledError())


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
        try:
            model = table.model(request.model)
            decision = self._admit(trip, model)
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
            response = self._answer(trip, lane, decision)
        except BaseException as error:
            self.refuse(trip, error)
            raise
        self._after(trip, model, lane, decision)
        return response

    def begin(self, request: InferRequest, call: Call, reply: Reply) -> Pending:
        """`infer` without a task: the inference comes back as a call (`_Waiter`).

        Where a request may have to wait for anything else it gets a task all the same.

        Raises:
            ServingError: it is refused at once; `reply` is not told.
        """
        table = self.table
        model = table.models.get(request.model)
        if model is None or model.waits:
            return InTask(self, request, call, reply)
        trip = Trip(table.revision, request, call, self.tracing.begin(call))
        waiter = _Waiter(self, trip, model, reply)
        try:
            trip.lane = lane = model.answering(self._admit(trip, model))
            trip.admitted = self._now()
            trip.joined = joined = lane.join.join(request)
            trip.joined_at = self._now()
            assert lane.direct is not None
            lane.direct.answer(
                waiter,
                joined.feed,
                rows=joined.rows,
                outputs=joined.outputs,
                deadline=call.deadline,
            )
        except BaseException as error:
            self.refuse(trip, error)
            raise
        return waiter

    def inferred(self, trip: Trip, model: LiveModel, inference: Inference, reply: Reply) -> None:
        """Go on with a request that was begun, and tell `reply`."""
        lane, decision = trip.lane, trip.decision
        assert lane is not None
        assert decision is not None
        trip.inference = inference
        try:
            response = self._answer(trip, lane, decision)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            self.refuse(trip, error)
            reply.failed(error)
            return
        if trip.trace is not None or decision.mirrors:
            try:
                self._after(trip, model, lane, decision)
            except Exception as error:  # noqa: BLE001
                reply.failed(error)
                return
        reply.answered(trip.request, trip.call, response)

    def _admit(self, trip: Trip, model: LiveModel) -> Decision:
        """Let a request in and pick its version; a rollout that counts hears of it."""
        request, call = trip.request, trip.call
        principal = self.admission.enter(
            request, call, model.deadline or self._default_deadline, self._now()
        )
        trip.entered = True
        decision = model.foregone
        if decision is None or request.version:
            decision = self._route(model, request, call, principal, trip)
        watch = trip.watch = model.watch
        if watch is not None:
            if watch.stopped:
                decision = watch.around(decision)
            trip.ticket = watch.enter(decision, trip.place)
        trip.decision = decision
        return decision

    def _answer(self, trip: Trip, lane: Lane, decision: Decision) -> InferResponse:
        """Put the answer together, take it down, and give the request's place back."""
        trip.inferred = self._now()
        response = self._outcomes.answered(trip, lane, decision)
        trip.entered = False
        self.admission.leave()
        return response

    def _after(self, trip: Trip, model: LiveModel, lane: Lane, decision: Decision) -> None:
        """What is done for others once there is an answer: spans and copies."""
        if trip.trace is not None:
            trip.trace.finish(spans(trip, self._now()), attributes(lane, decision, trip.call), None)
        if decision.mirrors:
            self._outcomes.copy(model, trip, decision)

    def refuse(self, trip: Trip, error: BaseException) -> None:
        """Take down what went wrong, and give the request's place back."""
        try:
            self._outcomes.refused(error, self.table.models, trip)
        finally:
            if trip.entered:
                trip.entered = False
                self.admission.leave()

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
