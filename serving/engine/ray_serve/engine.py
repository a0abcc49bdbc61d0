"""The engine on Ray Serve, as `sluice up` drives it.

This process holds the ports and the data directory, keeps the embedded store, and starts (or
joins) Ray. Control and the workers are kept by replicas inside Ray; what Serve is to run for that,
and what becomes of it when something is applied, is `applications`' affair.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from serving.clock import Clock, SystemClock
from serving.config.applied import applied_directory
from serving.config.schema import EngineConfig, WorkersConfig
from serving.engine.directory import DataDirectory
from serving.engine.embedded_store import EmbeddedStore, find_server
from serving.engine.lifecycle import State
from serving.engine.log_lines import LineSink
from serving.engine.ports import HeldPort
from serving.engine.programs import ROOM, ROOM_PER_WORKER, Options, hold_ports
from serving.engine.ray_serve.applications import Applications
from serving.engine.ray_serve.cluster import Cluster, require_ray
from serving.engine.ray_serve.gateway_application import NAME, site_of
from serving.engine.ray_serve.keeper import STOPPING
from serving.engine.ray_serve.kept import ReplicaReport, read_reports
from serving.engine.ray_serve.ray_thread import RayThread, take_signals_back
from serving.engine.ray_serve.scaling import as_range
from serving.engine.refusals import what_control_waits_for
from serving.engine.report import (
    Addresses,
    EngineReport,
    ProcessReport,
    process_started,
    write_report,
)
from serving.engine.stages import Stage, stage_of
from serving.engine.supervised import SupervisedProcess
from serving.errors import EngineError
from serving.tasks import end

__all__ = ["RayEngine"]

_LOOK_SECONDS: Final = 0.25
_REPORT_SECONDS: Final = 1.0
_GONE: Final = 20
"""Looks at Serve in a row that failed, after which Ray counts as lost."""


class RayEngine:
    """Owns a data directory, the ports and, unless it joins one, a Ray.

    `lines` takes the store's log lines (Ray brings the others to standard error itself);
    `on_change` is called whenever something changed.

    Raises:
        EngineError: Ray is not installed, or in a version that is not supported.
    """

    def __init__(
        self,
        options: Options,
        config: EngineConfig,
        *,
        lines: LineSink,
        on_change: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.version: Final = require_ray()
        self.options: Final = options
        self.store_url = ""
        self._config = config
        # Part of what Serve takes for the code's version, like everything the site says.
        self._incarnation = secrets.token_hex(8)
        self._lines = lines
        self._on_change = on_change
        self._clock = clock if clock is not None else SystemClock()
        self._directory = DataDirectory(options.data)
        self._ports: list[HeldPort] = []
        self._addresses: Addresses | None = None
        self._store: SupervisedProcess | None = None
        self._store_task: asyncio.Task[None] | None = None
        self._cluster: Cluster | None = None
        self._ray_up = False
        self._running = False
        self._reports: list[ReplicaReport] = []
        self._applications: Applications | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._killed = asyncio.Event()
        self._ray = RayThread()

    @property
    def addresses(self) -> Addresses:
        """Where the listeners are. Raises EngineError before `start`."""
        if self._addresses is None:
            raise EngineError("the engine has not been started")
        return self._addresses

    async def start(self) -> Addresses:
        """Claim directory and ports and start the store; Ray follows in `until_ready`.

        Raises:
            EngineError: The data directory or a port belongs to somebody else, or there is no
                store to run. Nothing is left behind.
        """
        self._directory.claim(least_free=ROOM + self._workers.max * ROOM_PER_WORKER)
        try:
            self._addresses, self._ports = hold_ports(self.options)
            for leftover in self._directory.run.glob("*.replica*"):
                leftover.unlink(missing_ok=True)
            embedded = None
            if self.options.store == "embedded":
                embedded = EmbeddedStore(self._directory.store, find_server())
        except BaseException:
            self._let_go()
            raise
        self._started_at = self._clock.wall()
        self.store_url = embedded.url if embedded is not None else self.options.store
        self._cluster = Cluster(self._config.address, self._directory.run)
        if embedded is not None:
            self._store = SupervisedProcess(
                embedded.spec(), lines=self._lines, on_change=self._changed, clock=self._clock
            )
            self._store_task = self._store.start()
        self._upkeep = asyncio.create_task(self._keep_report())
        return self._addresses

    async def until_ready(self) -> None:
        """Start Ray, deploy, and wait until control and every worker serve.

        Raises:
            EngineError: Ray does not start or has too few CPUs, or Serve gives up on a replica.
        """
        cluster = self._existing_cluster()
        await self._ray.call(cluster.start)
        take_signals_back()
        self._ray_up = True
        self._changed()
        self._applications = applications = Applications(
            self.options,
            self._config,
            site_of(self.options, self.addresses, self._incarnation),
            self._directory.path,
            cluster=cluster,
            ray=self._ray,
            lines=self._lines,
        )
        await applications.begin()
        while True:
            self._raise_if_hopeless()
            await applications.follow_hosts()
            up = await applications.are_up()
            self._look()
            if up and (self._store is None or self._store.state is State.READY):
                self._running = True
                self._changed()
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def waits_for(self) -> str:
        """What control says it waits for, empty if it says nothing."""
        return await what_control_waits_for(self._directory)

    async def until_broken(self) -> None:
        """Raise when a Ray of our own is lost for good; returns never otherwise.

        Raises:
            EngineError: It does not answer any more. Workers that still run are ended by `stop`.
        """
        cluster, failures, looked = self._existing_cluster(), 0, 0.0
        assert self._applications is not None
        following = asyncio.create_task(self._applications.follow_number())
        try:
            # One that was joined may come back: its other nodes serve meanwhile.
            while failures < _GONE or self._config.address is not None:
                await asyncio.sleep(_LOOK_SECONDS)
                try:
                    await self._applications.follow_hosts()
                    if self._clock.monotonic() - looked < _REPORT_SECONDS:
                        continue
                    looked = self._clock.monotonic()
                    await self._ray.call(lambda: cluster.state(NAME))
                    if failures:
                        self._lines("engine", "Ray answers again")
                    failures = 0
                except Exception as error:  # noqa: BLE001 - whatever Ray raises, it did not answer
                    failures += 1
                    if failures == 1:
                        self._lines("engine", f"Ray does not answer: {error}")
        finally:
            await end(following)
        raise EngineError("Ray has not answered for a while; the gateway is stopped")

    async def stop(self) -> None:
        """Drain workers and control, end Serve and Ray, then the store; leave nothing."""
        cluster = self._cluster
        names = [NAME] if self._applications is None else self._applications.names
        try:
            if cluster is not None and not self._killed.is_set():
                (self._directory.run / STOPPING).touch()
                stopping = asyncio.create_task(self._ray.call(partial(cluster.stop, names)))
                killed = asyncio.create_task(self._killed.wait())
                await asyncio.wait({stopping, killed}, return_when="FIRST_COMPLETED")
                if stopping.done() and (error := stopping.exception()) is not None:
                    self._lines("engine", f"Ray did not stop in order: {error}")
                await end(stopping, killed)
            if self._store is not None:
                await self._store.stop()
        finally:
            if self._store is not None and self._store_task is not None:
                self._store.kill()
                await asyncio.wait({self._store_task})
            if self._upkeep is not None:
                await end(self._upkeep)
            if cluster is not None:
                await asyncio.to_thread(cluster.clean)
            for leftover in (*self._directory.run.glob("*.replica*"), *self._locks()):
                leftover.unlink(missing_ok=True)
            self._let_go()

    def kill(self) -> None:
        """SIGKILL everything now. `stop` still has to be awaited, and then returns soon."""
        self._killed.set()
        if self._cluster is not None:
            self._cluster.kill()
        if self._store is not None:
            self._store.kill()

    def stages(self) -> list[Stage]:
        """How far the start is."""
        named = {report.process.name: report.process for report in self._reports}
        control = named.get("control")
        workers = [one for name, one in named.items() if name.startswith("worker-")]
        ready = sum(worker.state is State.READY for worker in workers)
        wanted = self._workers.min
        if self._running:
            # Those on other nodes leave no report here; Serve has said that all are up.
            ready = max(ready, wanted)
        ray = f"{self.version} ready" if self._ray_up else f"starting {self.version}"
        return [
            *([] if self._store is None else [stage_of("store", self._store.state)]),
            Stage("ray", ray, self._ray_up),
            stage_of("control", State.STOPPED if control is None else control.state),
            Stage("workers", f"{ready} of {wanted} ready", self._running),
        ]

    @property
    def _workers(self) -> WorkersConfig:
        if self._applications is not None:
            return self._applications.workers
        return as_range(self._config.workers)

    def _existing_cluster(self) -> Cluster:
        if self._cluster is None:
            raise EngineError("the engine has not been started")
        return self._cluster

    def _raise_if_hopeless(self) -> None:
        if self._store is not None and self._store.explanation:
            raise EngineError(f"store does not start: {self._store.explanation}")

    def _look(self) -> None:
        self._reports = read_reports(self._directory.run)
        self._on_change()

    async def _keep_report(self) -> None:
        while True:
            self._changed()
            await asyncio.sleep(_REPORT_SECONDS)

    def _changed(self) -> None:
        self._reports = read_reports(self._directory.run)
        store: list[ProcessReport] = [] if self._store is None else [self._store.report]
        report = EngineReport(
            pid=os.getpid(),
            pid_started=process_started(os.getpid()),
            started_at=self._started_at,
            configuration=applied_directory(self._directory.path)
            or str(self.options.configuration.absolute()),
            data=str(self._directory.path),
            addresses=self.addresses,
            processes=[*store, *(one.process for one in self._reports)],
            engine="ray",
        )
        try:
            write_report(self._directory.engine_json, report)
        except OSError as error:
            self._lines("engine", f"engine.json could not be written: {error.strerror}")
        self._on_change()

    def _locks(self) -> list[Path]:
        run = self._directory.run
        return [*run.glob("worker-*.lock"), *run.glob("host-*.lock")]

    def _let_go(self) -> None:
        while self._ports:
            self._ports.pop().close()
        self._directory.release()
