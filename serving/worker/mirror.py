"""Shadow copies: after the answer, on idle capacity, first to be dropped.

One task takes copies from a bounded queue while no request is in flight in this worker, and
hands them to the shadow version in the upstream's lowest class. Production never waits.
"""

import asyncio
import logging
from collections import deque
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.cache import Reading
from serving.clock import Clock
from serving.errors import Overloaded, SluiceError
from serving.metrics import Counter, MetricsFile
from serving.recording.no_log import NoLog, PredictionSink
from serving.recording.offer import Offer
from serving.recording.record import PredictionRecord
from serving.recording.recorder import Entry
from serving.tasks import end
from serving.types import InferRequest
from serving.upstream import Inference
from serving.worker.admission import Admission
from serving.worker.evidence.watch import Watch
from serving.worker.first_tries import FirstTries, Freely
from serving.worker.join import Joined
from serving.worker.lane import Lane

__all__ = ["Mirror", "agree"]

CAPACITY: Final = 256
CAPACITY_BYTES: Final = 64 << 20
STALE_SECONDS: Final = 5.0
_IDLE_POLL_SECONDS: Final = 0.001

_LOG = logging.getLogger("mirror")


class _Copy(msgspec.Struct, gc=False):
    lane: Lane
    request: InferRequest
    reading: Reading | None
    answers: dict[str, NDArray[Any]] | None
    offered: float
    size: int
    entry: Entry | None
    watch: Watch | None
    place: int | None

    def tell(self, outcome: str) -> None:
        """Have a rollout count what came of it."""
        if self.watch is not None:
            self.watch.copied(self.place, outcome)


def agree(ours: NDArray[Any], theirs: NDArray[Any], within: float = 1e-5) -> bool:
    """Whether two outputs say the same: equal, or numbers that differ by no more than `within`.

    A hundred-thousandth of the number itself is no difference either; NaN equals NaN.
    """
    if ours.shape != theirs.shape:
        return False
    if ours.dtype.kind == "f" and theirs.dtype.kind == "f":
        return bool(np.allclose(ours, theirs, rtol=1e-5, atol=within, equal_nan=True))
    return bool(np.array_equal(ours, theirs))


class Mirror:
    """Hold at most `CAPACITY` copies and `CAPACITY_BYTES`; past that the oldest is dropped.

    Drops are counted. A copy older than `STALE_SECONDS` is dropped too: a worker that is never
    idle mirrors nothing rather than ever slower. So are copies for a version whose first ones
    another worker is trying (`FirstTries`).
    """

    def __init__(
        self,
        admission: Admission,
        metrics: MetricsFile,
        clock: Clock,
        first_tries: FirstTries | Freely | None = None,
        log: PredictionSink | None = None,
    ) -> None:
        self._log: PredictionSink = log or NoLog()
        self._first_tries = first_tries or Freely()
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._copies: deque[_Copy] = deque()
        self._bytes = 0
        self._arrival = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._counters: dict[tuple[str, str, str, str], Counter] = {}

    def start(self) -> None:
        """Begin taking copies; needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Drop what waits and end."""
        if self._task is not None:
            await end(self._task)
        while self._copies:
            self._drop(self._take())

    def offer(
        self,
        lane: Lane,
        request: InferRequest,
        answers: dict[str, NDArray[Any]] | None,
        reading: Reading | None = None,
        entry: Entry | None = None,
        *,
        watch: Watch | None = None,
        place: int | None = None,
    ) -> None:
        """Take a copy of an answered request for the version behind `lane`.

        `answers` is None if production failed on it; only `watch`, which is told what comes of
        the copy of the key at `place`, wants such copies.

        `reading` is what the store said for the answer: the copy is joined with the same.
        `entry` is the record of the answer; the copy's row in the log bears its prediction id.
        """
        size = sum([tensor.data.nbytes for tensor in request.inputs])
        size += sum([answer.nbytes for answer in (answers or {}).values()])
        now = self._clock.monotonic()
        self._copies.append(_Copy(lane, request, reading, answers, now, size, entry, watch, place))
        self._bytes += size
        while len(self._copies) > CAPACITY or self._bytes > CAPACITY_BYTES:
            self._drop(self._take())
        self._arrival.set()

    def _take(self) -> _Copy:
        copy = self._copies.popleft()
        self._bytes -= copy.size
        return copy

    def _count(self, lane: Lane, family: str, outcome: str) -> None:
        key = (lane.model, lane.version, family, outcome)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._metrics.counter(
                family, model=lane.model, version=lane.version, outcome=outcome
            )
        counter.inc()

    def _drop(self, copy: _Copy) -> None:
        self._count(copy.lane, "sluice_mirrored_total", "dropped")

    async def _run(self) -> None:
        while True:
            await self._arrival.wait()
            if not self._copies:
                self._arrival.clear()
                continue
            if self._admission.in_flight:
                await asyncio.sleep(_IDLE_POLL_SECONDS)
                continue
            copy = self._take()
            late = self._clock.monotonic() - copy.offered > STALE_SECONDS
            if late or not self._first_tries.may_copy(copy.lane.staged.sha256):
                self._drop(copy)
                continue
            await self._try(copy)

    async def _try(self, copy: _Copy) -> None:
        """Answer a copy; nothing that happens to it ends the mirroring."""
        try:
            await self._answer(copy)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            _LOG.error("a shadow copy failed unexpectedly", exc_info=error)
            self._failed(copy)

    def _failed(self, copy: _Copy) -> None:
        self._count(copy.lane, "sluice_mirrored_total", "failed")
        if copy.answers is not None:  # else production failed on it too
            copy.tell("failed")

    async def _answer(self, copy: _Copy) -> None:
        lane = copy.lane
        try:
            wanted = lane.join.wanted(copy.request) if copy.reading is not None else None
            if wanted is not None and copy.reading is not None:
                joined = lane.join.join_read(copy.request, wanted, copy.reading)
            else:
                joined = lane.join.join(copy.request)
            inference = await lane.upstream.infer(
                joined.feed,
                rows=joined.rows,
                outputs=joined.outputs,
                deadline=self._clock.monotonic() + STALE_SECONDS,
                shadow=True,
            )
        except Overloaded:
            self._drop(copy)
        except SluiceError:
            self._failed(copy)
        else:
            self._count(lane, "sluice_mirrored_total", "answered")
            if self._log.on and copy.entry is not None:
                self._keep(copy, copy.entry, joined, inference)
            self._compare(copy, dict(zip(joined.outputs, inference.outputs, strict=True)))

    def _compare(self, copy: _Copy, outputs: dict[str, NDArray[Any]]) -> None:
        answers = copy.answers
        if answers is None:
            copy.tell("production_failed")
            return
        pairs = [(output, answers[name]) for name, output in outputs.items() if name in answers]
        same = all(agree(ours, theirs) for ours, theirs in pairs)
        self._count(copy.lane, "sluice_shadow_agreement_total", "equal" if same else "different")
        if copy.watch is not None:
            within = copy.watch.within
            copy.tell("agree" if all(agree(*pair, within) for pair in pairs) else "differ")

    def _keep(self, copy: _Copy, origin: Entry, joined: Joined, inference: Inference) -> None:
        """Leave the copy to the prediction log, under the prediction id of what it copies."""
        rows = copy.lane.rows
        queue, compute = inference.queue_seconds, inference.compute_seconds
        copied = PredictionRecord(*origin)
        share = next(
            (
                one.percent / 100
                for one in copy.lane.config.traffic.shadow
                if one.version == copy.lane.version
            ),
            0.0,
        )
        self._log.offer(
            Offer(
                rows,
                (
                    copied.time,
                    copied.prediction_id,
                    copied.request_id,
                    copy.lane.model,
                    copy.lane.version,
                    "shadow",
                    "mirror",
                    share,
                    copied.revision,
                    "OK",
                    joined.rows,
                    inference.batch_rows,
                    queue + compute,
                    queue,
                    compute,
                ),
                (0.0, 0.0, 0.0, queue, compute, 0.0, queue + compute),
                None,
                copy.request.inputs,
                joined.feed,
                joined.batch,
                joined.outputs,
                inference.outputs,
            )
        )
