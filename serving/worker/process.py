"""One data-plane process: `python -m serving.worker.process`; started by an engine.

It opens its listeners once it has something to serve, and on SIGTERM stops accepting,
finishes what is in flight, and exits 0.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from serving.clock import SystemClock
from serving.config.addresses import parse_address
from serving.config.keys import WorkerReport, WorkerState, node_name
from serving.config.schema import ModelConfig
from serving.config.snapshot import Snapshot, StagedVersion
from serving.metrics import MetricsFile
from serving.protocol.tensors import TensorLimits
from serving.quarantine import last_words
from serving.quarantine.marks import Marks
from serving.recording.recorder import Recorder
from serving.tasks import end
from serving.upstream import Upstream
from serving.upstream.inline import InlineUpstream
from serving.worker.admission import Admission
from serving.worker.command_line import parse_arguments, shared_socket
from serving.worker.departure import RELEASE, Departure
from serving.worker.evidence.reporter import Evidence
from serving.worker.features import Features
from serving.worker.first_tries import FirstTries
from serving.worker.gateway import Gateway
from serving.worker.grpc.listener import GrpcListener
from serving.worker.http.listener import HttpListener
from serving.worker.life import Pulse, exit_now, live, resident_bytes, settle_memory
from serving.worker.mirror import Mirror
from serving.worker.model_files import at_hand
from serving.worker.node_metrics import NodeMetrics
from serving.worker.pipeline import Pipeline
from serving.worker.predictions import Housekeeping, prediction_log
from serving.worker.private import PrivateSocket
from serving.worker.quarantine import Quarantine
from serving.worker.settings import Settings
from serving.worker.snapshots import SnapshotFeed
from serving.worker.spread import Spreading
from serving.worker.table import Loader
from serving.worker.tally import Ledger
from serving.worker.tracing import NoTracing, OtlpTracing
from serving.worker.upstreams import Upstreams

__all__ = ["Worker", "main"]

_CLOSE_SECONDS: Final = 1.0
_UNACCEPTED_SECONDS: Final = 0.5
"""Until a drain has closed the listening sockets, and some to spare."""


class Worker:
    """Wires the stations together and owns their lives."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings) -> None:
        self._arguments = arguments
        self._settings = settings
        self._data = Path(arguments.data)
        self._name = f"worker-{arguments.worker}"
        self._log = logging.getLogger(self._name)
        self._state: WorkerState = "starting"
        self._patience = 0.0
        self._stop = asyncio.Event()
        self._serving = asyncio.Event()
        clock = SystemClock()
        limits = settings.gateway.limits
        folder = self._data / "metrics"
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = MetricsFile(
            folder / f"{self._name}-{arguments.pid}-{time.time_ns()}.metrics"
        )
        self._tracing = (
            OtlpTracing(settings.gateway.tracing, settings.gateway.server_name, self._metrics)
            if settings.gateway.tracing is not None
            else NoTracing()
        )
        self._pulse = Pulse(self._metrics, self._publish)
        self._admission = Admission(settings.credentials, limits, self._metrics)
        self._recorder = Recorder(self._metrics)
        self._first_tries = FirstTries(self._data / "run", self._name, self._serving.is_set)
        self._predictions = prediction_log(
            settings.gateway.log, self._data, self._name, arguments.pid, self._metrics
        )
        self._mirror = Mirror(
            self._admission, self._metrics, clock, self._first_tries, self._predictions
        )
        self._pipeline = Pipeline(
            admission=self._admission,
            recorder=self._recorder,
            mirror=self._mirror,
            tracing=self._tracing,
            limits=limits,
            metrics=self._metrics,
            clock=clock,
            worker=str(arguments.worker),
            log=self._predictions,
        )
        self._evidence = Evidence(
            store=arguments.store,
            data=self._data,
            worker=f"{self._name}-{arguments.pid}",
            slots=limits.max_in_flight,
            metrics=self._metrics,
            clock=clock,
            born=time.time_ns(),
        )
        tracing = settings.gateway.tracing
        self._ledger = Ledger()
        self._gateway = Gateway(
            self._pipeline,
            ledger=self._ledger,
            server_name=settings.gateway.server_name,
            metrics_folder=folder,
            trace_rate=tracing.sample if tracing is not None else 0.0,
        )
        self._features = Features(settings.gateway.features, arguments.store, self._metrics, clock)
        self._marks = Marks(self._data / "run" / f"{self._name}.running")
        self._quarantine = Quarantine(self._data, self._log)
        self._upstreams = Upstreams(self._data / "run", self._load, self._metrics, clock)
        self._loader = Loader(
            self._upstreams.load,
            self._metrics,
            self._ledger,
            clock,
            self._features.cache,
            shut=self._quarantine.shut,
        )
        self._one_table_at_a_time = asyncio.Lock()
        self._feed = SnapshotFeed(
            url=arguments.store,
            data=self._data,
            worker=self._name,
            apply=self._apply,
            report=self._report,
            log=self._log,
        )
        tensor_limits = TensorLimits(
            max_elements=limits.max_elements,
            max_inputs=limits.max_inputs,
            max_json_depth=limits.max_json_depth,
        )
        wiring: tuple[Any, ...] = (self._gateway, limits, tensor_limits, self._metrics)
        self._spread = Spreading(self._data / "run", arguments.worker, self._metrics, clock)
        self._http = HttpListener(
            *wiring, header_names=self._gateway.header_names, clock=clock, spread=self._spread
        )
        self._grpc = GrpcListener(*wiring, header_names=self._gateway.header_names, clock=clock)
        ports = {parse_address(one).port for one in (arguments.http, arguments.grpc)}
        self._departure = Departure(self._data / "run", self._name, ports)
        self._private = PrivateSocket(
            self._data / "run" / f"{self._name}.sock",
            {
                "GET /healthz": lambda _: (200, {"healthy": True}),
                "GET /readyz": self._readyz,
                "GET /load": lambda _: (200, self._load_report()),
                "GET /demand": lambda _: (200, self._upstreams.demand()),
                "GET /recent": self._recent,
                "POST /drain": self._drain_asked,
                f"POST {RELEASE}": self._release_asked,
            },
        )

    async def run(self) -> None:
        """Serve until SIGTERM or a drain is asked for."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain_now)
        # Ctrl-C reaches the whole terminal group; the engine decides what it means for us.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        await self._private.start()
        feed = loop.create_task(self._feed.run())
        pulse = loop.create_task(self._pulse.run())
        quarantine = loop.create_task(self._quarantine.follow(self._rebuild))
        node_metrics = NodeMetrics(self._data, self._arguments.store, self._log)
        telling = loop.create_task(node_metrics.run())
        witness = loop.create_task(self._evidence.run())
        housekeeping = Housekeeping(self._settings.gateway.log, self._data)
        keeping = loop.create_task(housekeeping.run())
        stopping = loop.create_task(self._stop.wait())
        serving = loop.create_task(self._serving.wait())
        try:
            await asyncio.wait({feed, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await self._listen()
                await asyncio.wait({feed, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if feed.done():
                feed.result()  # it never ends by itself: this raises
            await self._drain()
        finally:
            await end(feed, pulse, quarantine, telling, witness, keeping, stopping, serving)
            await self._evidence.finish()
            await self._features.close()
            await self._private.stop()
            self._ledger.settle()
            await asyncio.to_thread(self._predictions.close)
            await housekeeping.close()
            self._recorder.publish()
            self._pipeline.publish()
            self._tracing.close()
            self._metrics.close()
            self._marks.close()
            self._first_tries.close()

    async def _listen(self) -> None:
        self._mirror.start()
        async with self._departure.turn():
            http, grpc = parse_address(self._arguments.http), parse_address(self._arguments.grpc)
            await self._http.start([shared_socket(http)], self._settings.http_tls)
            await self._grpc.start(grpc.host, grpc.port, self._settings.grpc_credentials)
            self._departure.release()  # what one that was killed while it left has left behind
        settle_memory()
        self._state = "ready"
        self._feed.announce()
        self._log.info(
            "listening: http %s, grpc %s (%s)",
            self._arguments.http,
            self._arguments.grpc,
            self._grpc.kind,
        )

    async def _drain(self) -> None:
        timeout = float(self._settings.gateway.limits.drain_timeout)
        self._state = "draining"
        self._gateway.draining = True
        self._feed.announce()
        if self._patience:
            began = time.monotonic()
            await self._leave_politely(min(self._patience, timeout / 2))
            timeout = max(0.0, timeout - (time.monotonic() - began))
        self._http.begin_drain(min(self._patience, timeout / 2))
        self._grpc.begin_drain()
        abandoned = sum(await asyncio.gather(self._http.drain(timeout), self._grpc.drain(timeout)))
        await self._mirror.stop()
        # What still runs after the drain runs for nobody: closing may be cut short.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.gather(
                    *(
                        lane.upstream.close()
                        for model in self._pipeline.table.models.values()
                        for lane in model.lanes.values()
                    )
                )
        if abandoned:
            self._log.warning("drained; %d requests abandoned after %gs", abandoned, timeout)
        else:
            self._log.info("drained")

    async def _leave_politely(self, patience: float) -> None:
        """Leave the shared ports to siblings, so that no fresh connection is reset."""
        # First: the departure finds out which connections arrive here by making some.
        self._spread.leave()
        async with self._departure.turn():
            if await self._departure.begin():
                self._http.begin_drain(patience)
                self._grpc.begin_drain()
                self._log.info("leaving; new connections go to other workers")
                await asyncio.sleep(_UNACCEPTED_SECONDS)
                await self._departure.end()
            else:
                self._log.info("leaving; nobody else takes new connections")

    async def _load(self, config: ModelConfig, version: str, staged: StagedVersion) -> Upstream:
        root = Path(self._arguments.config)
        upstream = InlineUpstream(
            config.model,
            version,
            await asyncio.to_thread(at_hand, staged, self._data, root),
            config.serve,
            self._metrics,
            SystemClock(),
            marks=self._marks,
        )
        async with self._first_tries.loading(f"{config.model}/{version}", staged.sha256):
            await upstream.load()
        return upstream

    async def _apply(self, snapshot: Snapshot) -> None:
        if self._state == "starting":
            self._state = "loading"
        async with self._one_table_at_a_time:
            await self._replace_table(snapshot)
            self._serving.set()

    async def _rebuild(self) -> None:
        """Serve the same revision with what is in quarantine now."""
        async with self._one_table_at_a_time:
            snapshot = self._pipeline.table.snapshot
            if snapshot is not None:
                await self._replace_table(snapshot)
                self._feed.announce()

    async def _replace_table(self, snapshot: Snapshot) -> None:
        old = self._pipeline.table
        new = await self._loader.build(snapshot, old)
        self._evidence.follow(new)
        self._pipeline.table = new
        self._metrics.gauge("sluice_route_revision").set(new.revision)
        await self._loader.retire(old, new)

    def _report(self) -> WorkerReport:
        return WorkerReport(
            worker=self._name,
            state=self._state,
            revision=self._pipeline.table.revision,
            reported_at=time.time(),
            pid=self._arguments.pid,
            resident_bytes=resident_bytes(),
            in_flight=self._admission.in_flight,
            busy=round(self._pulse.busy, 3),
            node=node_name(),
            generation=self._arguments.generation,
            refused_revision=self._feed.refused_revision,
            refused_reason=self._feed.refused_reason,
            not_ready={
                f"{name}/{version}": words
                for name, model in self._pipeline.table.models.items()
                for version, words in model.not_ready().items()
            },
        )

    def _readyz(self, _: dict[str, str]) -> tuple[int, Any]:
        ready = self._state == "ready" and self._gateway.ready()
        body = {
            "ready": ready,
            "state": self._state,
            "revision": self._pipeline.table.revision,
            "refused_revision": self._feed.refused_revision,
            "refused_reason": self._feed.refused_reason,
        }
        return (200 if ready else 503), body

    def _load_report(self) -> dict[str, float]:
        return {
            "in_flight": self._admission.in_flight,
            "busy_seconds": time.process_time(),
            "busy": self._pulse.busy,
            "connections": self._metrics.gauge("sluice_connections", protocol="http").value,
        }

    def _recent(self, query: dict[str, str]) -> tuple[int, Any]:
        limit = int(query.get("limit", "100"))
        return 200, self._recorder.recent(max(0, min(limit, 1000)), query.get("model", ""))

    def _drain_asked(self, query: dict[str, str]) -> tuple[int, Any]:
        self._patience = float(query.get("patience", "0"))
        self._stop.set()
        return 200, {"draining": True}

    def _drain_now(self) -> None:
        self._patience = 0.0
        if self._state == "draining":
            self._http.begin_drain()
        self._stop.set()

    def _release_asked(self, _: dict[str, str]) -> tuple[int, Any]:
        self._departure.release()
        return 200, {}

    def _publish(self) -> None:
        """Bring numbers up to date that are kept elsewhere, and credentials."""
        self._spread.beat()
        self._admission.publish()
        self._recorder.publish()
        self._predictions.publish()
        self._features.publish()
        self._pipeline.publish()
        self._upstreams.publish()
        self._settings.credentials.refresh()


def main(argv: list[str] | None = None, *, run: Callable[..., Any] = uvloop.run) -> int:
    """Run a worker until it has drained (exit 0), or say why that is impossible (exit 1)."""
    arguments = parse_arguments(argv)
    arguments.pid = os.getpid()
    name = f"worker-{arguments.worker}"

    async def serve(settings: Settings) -> None:
        last_words.leave(Path(arguments.data) / "run" / f"{name}.crash")
        await Worker(arguments, settings).run()

    return live(name, arguments, serve, run)


if __name__ == "__main__":
    exit_now(main())
