"""What is kept of a request that has ended: the answer put together, or why there is none.

Counters, evidence, record, log and copies; nothing here waits. Errors are taken down here and
said by whoever listens.
"""

import random
from collections.abc import Callable, Mapping
from typing import Final

from feature_cache.cache import Batch
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
from serving.types import Call, InferResponse, ParameterValue, Tensor
from serving.worker.evidence.faults import fault_of
from serving.worker.evidence.watch import Watch
from serving.worker.fallback import Fallback
from serving.worker.features import FeatureTally, summary
from serving.worker.lane import Lane
from serving.worker.mirror import Mirror
from serving.worker.table import LiveModel
from serving.worker.trip import Trip, reason_of

__all__ = ["Outcomes"]

UNKNOWN: Final = "_unknown"
Models = Mapping[str, LiveModel]
"""Models that are served now: others have no label of their own in metrics."""


class Outcomes:
    """The last stations of the pipeline: answer and record."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        mirror: Mirror,
        fallback: Fallback,
        limits: Limits,
        metrics: MetricsFile,
        clock: Clock,
        worker: str,
        log: PredictionSink | None = None,
    ) -> None:
        self._log: PredictionSink = log or NoLog()
        self._unrouted: dict[str, RowPlan] = {}
        self._feature_tally = FeatureTally(metrics)
        self._recorder = recorder
        self._mirror = mirror
        self._fallback = fallback
        self._default_deadline = float(limits.default_deadline)
        self._longest_deadline = float(limits.max_deadline)
        self._metrics = metrics
        self._now: Callable[[], float] = clock.monotonic
        self._wall: Callable[[], float] = clock.wall
        self._rejected: dict[tuple[str, str], Counter] = {}
        self._tag = f"{worker}.{random.getrandbits(32):08x}."
        self._sequence = 0

    def answered(self, trip: Trip, lane: Lane, decision: Decision) -> InferResponse:
        """Put the answer together, take it down, and let the sockets have it."""
        request, call = trip.request, trip.call
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
        names, arrays = joined.outputs, inference.outputs
        if len(names) == len(arrays) == 1:  # mostly; a comprehension costs a frame
            tensors = [Tensor(names[0], datatypes[names[0]], arrays[0])]
        else:
            tensors = [
                Tensor(name, datatypes[name], array)
                for name, array in zip(names, arrays, strict=True)
            ]
        response = InferResponse(
            lane.model,
            lane.version,
            tensors,
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
            if self._fallback.too_late(lane, call, trip.joined_at, trip.inferred):
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
        self._recorder.offer(entry)
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
                )
            )
        return response

    def copy(self, model: LiveModel, trip: Trip, decision: Decision) -> None:
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
                self._mirror.offer(
                    shadow,
                    trip.request,
                    answers,
                    trip.reading,
                    trip.entry,
                    watch=told,
                    place=trip.place,
                )

    def publish(self) -> None:
        """Bring counters up to date that are kept back; called from time to time."""
        self._feature_tally.publish()

    def _features(self, batch: Batch) -> dict[str, str | int]:
        self._feature_tally.count(batch)
        return summary(batch)

    def refused(self, error: BaseException, models: Models, trip: Trip) -> None:
        """Count and keep what went wrong, whoever's fault it is."""
        if not isinstance(error, Exception):
            error = ClientDisconnected("the client left before the answer")
        model, code = self.take_down(error, models, trip)
        reason = reason_of(error)
        if reason is not None:
            counter = self._rejected.get((model, reason))
            if counter is None:
                counter = self._rejected[model, reason] = self._metrics.counter(
                    "sluice_rejected_total", model=model, reason=reason
                )
            counter.inc()
        if trip.trace is not None:
            trip.trace.finish((), {"sluice.model": model, "rpc.grpc.status": code}, code)

    def take_down(self, error: Exception, models: Models, trip: Trip) -> tuple[str, str]:
        """Keep that a version was asked and did not answer; give the model's label and the code."""
        request, call = trip.request, trip.call
        code = grpc_code(error)
        now = self._now()
        lane, decision = trip.lane, trip.answering or trip.decision
        if trip.watch is not None and decision is not None:
            self._blame(error, models, trip, trip.watch)
        role = decision.role if decision is not None else ""
        if lane is not None:
            lane.failed(role, call.protocol, code, now - call.arrived)
        model = request.model if request.model in models else UNKNOWN
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
        self._recorder.offer(entry)
        if self._log.on:
            self._log_refused(entry, trip)
        return model, code

    def _hurried(self, lane: Lane | None, call: Call) -> bool:
        """Whether the caller gave less time than the model allows."""
        own = lane.config.serve.deadline if lane is not None else None
        allowed = min(own or self._default_deadline, self._longest_deadline)
        return call.deadline < call.arrived + allowed

    def _blame(self, error: BaseException, models: Models, trip: Trip, watch: Watch) -> None:
        """Tell a rollout of a request that the version it was given to did not answer."""
        request, call = trip.request, trip.call
        lane, decision = trip.lane, trip.decision
        fault = fault_of(error, hurried=self._hurried(lane, call))
        ticket, trip.ticket = trip.ticket, None
        if ticket is not None:
            now = self._now()
            watch.failed(ticket, fault, now - call.arrived, now)
        # The copy that it would have been given tells whether the new version does better.
        if fault.counts and trip.joined is not None and decision is not None:
            model = models.get(request.model)
            for version in decision.mirrors:
                shadow = model.lanes.get(version) if model is not None else None
                if shadow is not None and watch.copies_to(version):
                    self._mirror.offer(
                        shadow, request, None, trip.reading, watch=watch, place=trip.place
                    )

    def _log_refused(self, entry: Entry, trip: Trip) -> None:
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
                trip.call.traceparent,
                trip.request.inputs,
                feed,
                joined.batch if joined is not None else None,
                (),
                None,
            )
        )
