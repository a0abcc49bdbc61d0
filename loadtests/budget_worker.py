"""A worker as `serving.worker.process` wires it, without its processes, sockets and timers.

Everything between the bytes of a request and those of its answer is the product's own. Left out
is what no request passes through: the snapshot feed, the pulse, the private socket.
"""

import socket
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Self

from budget_wire import Answers, GrpcCall, Loop

from serving.clock import Clock
from serving.config.schema import ModelConfig
from serving.config.snapshot import Snapshot, StagedVersion
from serving.metrics import MetricsFile, read
from serving.models import session as session_module
from serving.protocol.tensors import TensorLimits
from serving.quarantine.marks import Marks
from serving.recording.offer import Offer
from serving.recording.packing import Packed, packed
from serving.recording.recorder import Recorder
from serving.upstream import Upstream
from serving.upstream.inline import InlineUpstream
from serving.worker.admission import Admission
from serving.worker.evidence.reporter import Evidence
from serving.worker.evidence.watch import Watch
from serving.worker.features import Features
from serving.worker.gateway import Gateway
from serving.worker.grpc.call import CallReader, Edge, InFlight
from serving.worker.grpc.inference import Inference
from serving.worker.http.listener import HttpListener
from serving.worker.mirror import Mirror
from serving.worker.pipeline import Pipeline
from serving.worker.settings import load_settings
from serving.worker.spread import Alone
from serving.worker.table import LiveTable, Loader
from serving.worker.tally import Ledger
from serving.worker.tracing import Tracing

__all__ = ["BareWorker"]

_STORE: Final = "unix:///stand-in"


class _Door(Alone):
    """Where connections come in: as a sibling would hand them over."""

    adopt: Callable[[socket.socket], None]

    def start(self, adopt: Callable[[socket.socket], None]) -> None:
        """Keep what adopts."""
        self.adopt = adopt


class _Logged:
    """The event loop's end of a prediction log; no thread writes what it is given."""

    on = True

    def __init__(self) -> None:
        self._last: deque[Offer | Packed] = deque(maxlen=1)

    def offer(self, offer: Offer) -> None:
        """Keep it until the next comes."""
        self._last.append(packed(offer))

    def publish(self) -> None:
        """Nothing is counted."""

    def close(self) -> None:
        """Nothing is open."""


class BareWorker:
    """One worker on the running loop, which is a `budget_wire.Loop`; made by `start`."""

    def __init__(
        self, config: Path, folder: Path, clock: Clock, tracing: Tracing, *, logged: bool
    ) -> None:
        settings = load_settings(config, folder)
        limits = settings.gateway.limits
        self._clock = clock
        self._metrics = MetricsFile(folder / "worker.metrics")
        self._marks = Marks(folder / "worker.running")
        self._ledger = Ledger()
        admission = Admission(settings.credentials, limits, self._metrics)
        self._pipeline = Pipeline(
            admission=admission,
            recorder=Recorder(self._metrics),
            mirror=Mirror(admission, self._metrics, clock),
            tracing=tracing,
            limits=limits,
            metrics=self._metrics,
            clock=clock,
            worker="0",
            log=_Logged() if logged else None,
        )
        self._evidence = Evidence(
            store=_STORE,
            data=folder,
            worker="worker-0",
            slots=limits.max_in_flight,
            metrics=self._metrics,
            clock=clock,
            born=1,
        )
        self._watches: list[Watch] = []
        self._features = Features(settings.gateway.features, _STORE, self._metrics, clock)
        self._loader = Loader(self._load, self._metrics, self._ledger, clock, self._features.cache)
        gateway = Gateway(
            self._pipeline,
            ledger=self._ledger,
            server_name="sluice",
            metrics_folder=folder,
            trace_rate=0.0,
        )
        tensor_limits = TensorLimits(
            max_elements=limits.max_elements,
            max_inputs=limits.max_inputs,
            max_json_depth=limits.max_json_depth,
        )
        self._door = _Door()
        self._http = HttpListener(
            gateway,
            limits,
            tensor_limits,
            self._metrics,
            header_names=gateway.header_names,
            clock=clock,
            spread=self._door,
        )
        inference = Inference(
            gateway,
            Edge(),
            CallReader(gateway.header_names, clock),
            tensor_limits,
            metrics=self._metrics,
            in_flight=InFlight(),
        )
        self._grpc: Any = inference.methods()["ModelInfer"].unary_unary

    @classmethod
    async def start(
        cls,
        config: Path,
        folder: Path,
        snapshot: Snapshot,
        clock: Clock,
        tracing: Tracing,
        *,
        logged: bool,
    ) -> Self:
        """Load the models and be ready to answer."""
        # A session times its first runs by the machine's clock, and under valgrind would find
        # them too long for the loop.
        session_module.perf_counter = clock.monotonic  # type: ignore[attr-defined]
        session_module.thread_time = clock.thread_time  # type: ignore[attr-defined]
        worker = cls(config, folder, clock, tracing, logged=logged)
        table = await worker._loader.build(snapshot, LiveTable.empty())
        worker._evidence.follow(table)
        worker._watches = [one.watch for one in table.models.values() if one.watch is not None]
        worker._pipeline.table = table
        await worker._http.start([], None)
        return worker

    async def _load(self, config: ModelConfig, version: str, staged: StagedVersion) -> Upstream:
        upstream = InlineUpstream(
            config.model,
            version,
            staged,
            config.serve,
            self._metrics,
            self._clock,
            marks=self._marks,
        )
        await upstream.load()
        return upstream

    async def connect(self, loop: Loop, answers: Answers, number: int) -> Callable[[bytes], None]:
        """Open an HTTP connection; what is given to it is received, whole requests at a time."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._door.adopt(theirs)
            wire = await loop.accepted.get()
        wire.written = lambda data: answers.take(number, data)
        received: Callable[[bytes], None] = wire.protocol.data_received
        return received

    def call(self, loop: Loop, answers: Answers, number: int) -> Callable[[bytes], None]:
        """Calls ModelInfer with the message given, each as a task, as both gRPC fronts do."""

        async def one(message: bytes) -> None:
            answers.take(number, await self._grpc(message, GrpcCall()))

        def begin(message: bytes) -> None:
            work: Coroutine[Any, Any, None] = one(message)
            self._task = loop.create_task(work)

        return begin

    def settle(self) -> None:
        """Do what timers do: bring the counters up to date."""
        self._ledger.settle()
        self._pipeline.publish()
        for watch in self._watches:
            watch.settle()

    def station_seconds(self) -> dict[str, float]:
        """Sums of `sluice_station_duration_seconds` by station, and of requests as `whole`."""
        self.settle()
        sums: dict[str, float] = {}
        for (name, labels), values in read(self._metrics.path).items():
            if name == "sluice_station_duration_seconds":
                sums[labels[-1]] = sums.get(labels[-1], 0.0) + values[-1]
            elif name == "sluice_request_duration_seconds":
                sums["whole"] = sums.get("whole", 0.0) + values[-1]
        return sums
