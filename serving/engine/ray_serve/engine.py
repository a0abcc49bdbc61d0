"""The engine on Ray Serve, as `sluice up` drives it.

This process holds the ports and the data directory, keeps the embedded store, and starts (or
joins) Ray. Control and the workers are kept by replicas inside Ray. Ray's calls block, so they
run one after the other in a thread of their own, which lives as long as this process: Ray's
servers are tied to the life of the thread that started them.
"""

import asyncio
import os
import queue
import secrets
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from serving.clock import Clock, SystemClock
from serving.config.applied import Failure, applied_directory, read_orders, write_failure
from serving.config.hosts import HOSTS_FILE, HostSpec, read_hosts
from serving.config.schema import EngineConfig, WorkersConfig
from serving.engine.directory import DataDirectory
from serving.engine.embedded_store import EmbeddedStore, find_server
from serving.engine.lifecycle import State
from serving.engine.log_lines import LineSink
from serving.engine.ports import HeldPort
from serving.engine.programs import ROOM, ROOM_PER_WORKER, Options, hold_ports
from serving.engine.ray_serve.cluster import Cluster, application, require_ray
from serving.engine.ray_serve.host_applications import host_app, host_application, least_cpus
from serving.engine.ray_serve.keeper import STOPPING, Site, is_of
from serving.engine.ray_serve.kept import ReplicaReport, read_reports
from serving.engine.ray_serve.scaling import as_range, scaling
from serving.engine.refusals import what_control_waits_for
from serving.engine.report import (
    Addresses,
    EngineReport,
    ProcessReport,
    process_started,
    write_report,
)
from serving.engine.rolling import LOOK_SECONDS
from serving.engine.stages import Stage, stage_of
from serving.engine.supervised import SupervisedProcess
from serving.errors import EngineError, InvalidConfig
from serving.files import stamp
from serving.tasks import end

__all__ = ["RayEngine"]

_NAME: Final = "sluice"
_IMPORT_PATH: Final = "serving.engine.ray_serve.deployments:build"
_LOOK_SECONDS: Final = 0.25
_REPORT_SECONDS: Final = 1.0
_SLACK_SECONDS: Final = 5.0
_HEALTH_SECONDS: Final = 2.0
_GONE: Final = 20
"""Looks at Serve in a row that failed, after which Ray counts as lost."""

_FAILED: Final = {"DEPLOY_FAILED"}

T = TypeVar("T")


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
        self._scaling_at_start = as_range(config.workers)
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
        self._deployed = False
        self._running = False
        self._reports: list[ReplicaReport] = []
        self._site: Site | None = None
        self._hosts: list[HostSpec] = []
        self._hosts_stamp: tuple[int, ...] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._killed = asyncio.Event()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._make_calls, name="ray", daemon=True).start()

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
        await self._call(cluster.start)
        _take_signals_back()
        self._ray_up = True
        self._changed()
        await self._call(self._insist_on_fit)
        self._site = self._make_site()
        await self._deploy()
        self._deployed = True
        while True:
            self._raise_if_hopeless()
            await self._follow_hosts()
            state, why = await self._call(lambda: cluster.state(_NAME))
            self._look()
            if state == "RUNNING" and (self._store is None or self._store.state is State.READY):
                self._running = True
                self._changed()
                return
            if state in _FAILED:
                raise EngineError(f"Ray Serve gave up on the gateway:\n{_reason(why)}")
            for spec in self._hosts:
                state, why = await self._call(partial(cluster.state, host_app(spec)))
                if state in _FAILED:
                    raise EngineError(f"Ray Serve gave up on {spec.name}:\n{_reason(why)}")
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
        following = asyncio.create_task(self._follow_number())
        try:
            # One that was joined may come back: its other nodes serve meanwhile.
            while failures < _GONE or self._config.address is not None:
                await asyncio.sleep(_LOOK_SECONDS)
                try:
                    await self._follow_hosts()
                    if self._clock.monotonic() - looked < _REPORT_SECONDS:
                        continue
                    looked = self._clock.monotonic()
                    await self._call(lambda: cluster.state(_NAME))
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

    async def _follow_number(self) -> None:
        """Have Serve keep another number of workers when one is applied, for ever.

        Nothing else of the application changes, so no replica is replaced for it.
        """
        seen = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            orders = await asyncio.to_thread(read_orders, self._directory.path)
            if orders is None or orders.serial == seen:
                continue
            if not is_of(orders.engine, self._incarnation):
                continue
            seen = orders.serial
            if orders.number is None or orders.number == self._config.workers:
                continue
            before = self._config
            self._config = msgspec.structs.replace(before, workers=orders.number)
            try:
                await self._call(self._insist_on_fit)
                await self._deploy()
            except Exception as error:  # noqa: BLE001 - Ray's own errors are of many kinds
                self._config = before
                reason = error.message if isinstance(error, EngineError) else str(error)
                self._lines("engine", f"the number of workers stays: {reason}")
                failure = Failure(serial=orders.serial, reason=reason, kept=orders.workers)
                await asyncio.to_thread(write_failure, self._directory.path, failure)

    async def stop(self) -> None:
        """Drain workers and control, end Serve and Ray, then the store; leave nothing."""
        cluster = self._cluster
        names = [_NAME, *map(host_app, self._hosts)]
        try:
            if cluster is not None and not self._killed.is_set():
                (self._directory.run / STOPPING).touch()
                stopping = asyncio.create_task(self._call(partial(cluster.stop, names)))
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
        ray = f"{self.version} ready" if self._ray_up else f"starting {self.version}"
        return [
            *([] if self._store is None else [stage_of("store", self._store.state)]),
            Stage("ray", ray, self._ray_up),
            stage_of("control", State.STOPPED if control is None else control.state),
            Stage("workers", f"{ready} of {wanted} ready", self._running),
        ]

    @property
    def _workers(self) -> WorkersConfig:
        return as_range(self._config.workers)

    def _existing_cluster(self) -> Cluster:
        if self._cluster is None:
            raise EngineError("the engine has not been started")
        return self._cluster

    def _insist_on_fit(self) -> None:
        cluster = self._existing_cluster()
        cpus, each = cluster.cpus(), self._config.worker_cpus
        needed = self._workers.min * each
        if needed > cpus:
            raise EngineError(
                f"{self._workers.min} workers of {each:g} CPUs need {needed:g}, and Ray has "
                f"{cpus:g}; lower engine.workers or engine.worker_cpus in gateway.yaml"
            )
        if self.options.store == "embedded" and (nodes := cluster.nodes()) > 1:
            raise EngineError(
                f"`store: embedded` serves one machine, and this Ray has {nodes}; set `store` in "
                "gateway.yaml to the address of a server that all of them reach"
            )

    async def _follow_hosts(self) -> None:
        """Deploy what control has listed, if it lists something else than is deployed."""
        data = self._directory.path
        fresh = stamp(data / HOSTS_FILE)
        if fresh == self._hosts_stamp:
            return
        try:
            listed = read_hosts(data)
        except InvalidConfig as error:
            self._lines("engine", f"model hosts stay as they are: {error.message}")
            self._hosts_stamp = fresh
            return
        needed = self._workers.min * self._config.worker_cpus + least_cpus(listed)
        cpus = await self._call(self._existing_cluster().cpus)
        if needed > cpus:
            words = (
                f"workers and the processes of dedicated versions need {needed:g} CPUs, and Ray "
                f"has {cpus:g}; lower engine.worker_cpus, serve.hosts or serve.host_cpus"
            )
            if not self._running:
                raise EngineError(words)
            self._lines("engine", f"{words}. Some do not start")
        self._hosts = listed
        await self._deploy()
        self._hosts_stamp = fresh

    async def _deploy(self) -> None:
        assert self._site is not None
        site, patience = self._site, self._patience()
        applications = [
            self._application(site, patience),
            *(host_application(site, spec, patience) for spec in self._hosts),
        ]
        await self._call(partial(self._existing_cluster().deploy, applications))

    def _make_site(self) -> Site:
        addresses = self.addresses
        return Site(
            configuration=str(self.options.configuration.absolute()),
            data=str(self.options.data.absolute()),
            http=addresses.http,
            grpc=addresses.grpc,
            admin=addresses.admin,
            incarnation=self._incarnation,
            insecure_bind=self.options.insecure_bind,
        )

    def _patience(self) -> dict[str, Any]:
        return {
            "graceful_shutdown_timeout_s": self.options.drain_seconds + _SLACK_SECONDS,
            "graceful_shutdown_wait_loop_s": 0.1,
            "health_check_period_s": _HEALTH_SECONDS,
            "health_check_timeout_s": _HEALTH_SECONDS * 2,
            "max_constructor_retry_count": 2,
        }

    def _application(self, site: Site, patience: dict[str, Any]) -> dict[str, Any]:
        control = {
            "name": "Control",
            "num_replicas": 1,
            "ray_actor_options": {
                "num_cpus": 0,
                # Ray gives this resource to the node with its head, and to no other.
                "resources": {"node:__internal_head__": 0.001},
            },
            **patience,
        }
        gateway = {
            "name": "Gateway",
            "max_surge_percent": 100,
            "ray_actor_options": {"num_cpus": self._config.worker_cpus},
            **scaling(self._workers, self._scaling_at_start),
            **patience,
        }
        return application(_NAME, _IMPORT_PATH, site, [control, gateway])

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

    def _locks(self) -> list[Any]:
        run = self._directory.run
        return [*run.glob("worker-*.lock"), *run.glob("host-*.lock")]

    def _let_go(self) -> None:
        while self._ports:
            self._ports.pop().close()
        self._directory.release()

    async def _call(self, function: Callable[[], T]) -> T:
        """Run `function` in Ray's thread."""
        outcome: Future[T] = Future()

        def make() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        self._calls.put(make)
        return await asyncio.wrap_future(outcome)

    def _make_calls(self) -> None:
        while True:
            self._calls.get()()


def _take_signals_back() -> None:
    """Ray's core has put its own handlers over Python's; ours are to decide what a signal means."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.getsignal(number))
        signal.siginterrupt(number, False)


def _reason(why: str) -> str:
    """The line of a traceback that says what is wrong, or all of it."""
    wanted = [line.strip() for line in why.splitlines() if "EngineError: " in line]
    return wanted[-1].rpartition("EngineError: ")[2] if wanted else why.strip()[-2000:]
