"""A replica's process: claimed number, supervision, readiness, and a report for the launcher."""

import asyncio
import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from serving.config.hosts import HostSpec, private_socket, read_hosts
from serving.config.load import load_gateway
from serving.engine.directory import DataDirectory
from serving.engine.embedded_store import EmbeddedStore
from serving.engine.host_fleet import demand_of
from serving.engine.lifecycle import State
from serving.engine.log_lines import prefixed
from serving.engine.programs import Launch, Options, Programs, is_ok
from serving.engine.ray_serve import demand
from serving.engine.refusals import refusals_of_all, what_workers_say
from serving.engine.report import Addresses, ProcessReport, process_started
from serving.engine.supervised import ProcessSpec, SupervisedProcess
from serving.errors import EngineError
from serving.unix_http import ask

__all__ = ["HostSite", "Keeper", "ReplicaReport", "Site", "read_reports"]

_POLL_SECONDS: Final = 0.05
_REFUSAL_SECONDS: Final = 0.5
_GIVE_UP_FAILURES: Final = 3
_DRAIN_GRACE_SECONDS: Final = 2.0
_MOST_WORKERS: Final = 256


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment is told; plain values, because they travel as Serve's `args`.

    `incarnation` names this start: a control process that comes back within it goes on with what
    was applied last, one of another start reads the configuration directory again.
    """

    configuration: str
    data: str
    http: str
    grpc: str
    admin: str
    incarnation: str
    insecure_bind: bool = False


class HostSite(Site, frozen=True, kw_only=True):
    """What the deployment of a dedicated version is told; `host` is its id in `DATA/hosts.json`."""

    host: str


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """`DATA/run/<process>.replica`: a process as the replica that keeps it sees it."""

    process: ProcessReport
    supervisor: int
    supervisor_started: str
    explanation: str = ""
    last_lines: list[str] = []

    @property
    def alive(self) -> bool:
        """Whether the replica that wrote it still exists."""
        return process_started(self.supervisor) == self.supervisor_started != ""


def read_reports(run: Path) -> list[ReplicaReport]:
    """What living replicas of this machine have written, by name."""
    found = []
    for file in run.glob("*.replica"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            report = msgspec.json.decode(file.read_bytes(), type=ReplicaReport)
            if report.alive:
                found.append(report)
    return sorted(found, key=lambda report: (report.process.name != "control", report.process.name))


class Keeper:
    """Keeps one process of a gateway, from `start` to `stop`.

    Raises:
        EngineError: `gateway.yaml` is not there any more or has mistakes.
    """

    def __init__(self, site: Site, *, role: str, replica: str) -> None:
        gateway = load_gateway(Path(site.configuration))
        self.directory: Final = DataDirectory(Path(site.data))
        self.directory.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock: int | None = None
        self._replica = replica
        self._file: Path | None = None
        options = Options(
            configuration=Path(site.configuration),
            data=Path(site.data),
            insecure_bind=site.insecure_bind,
            drain_seconds=gateway.limits.drain_timeout + _DRAIN_GRACE_SECONDS,
        )
        launch = Launch(
            options,
            Programs(),
            self.directory,
            addresses=Addresses(http=site.http, grpc=site.grpc, admin=site.admin),
            store_url=store_of(gateway.store, self.directory),
        )
        self._serves = ""
        if role == "control":
            self._spec: ProcessSpec = launch.control("--incarnation", site.incarnation)
            self._socket = self.directory.control_socket
        elif isinstance(site, HostSite):
            host = _host_of(site)
            number = self._claim_number(f"host-{host.id}")
            self._serves = host.name
            self._spec = launch.host(host, number)
            self._socket = private_socket(self.directory.run, host.id, number)
        else:
            number = self._claim_number("worker")
            self._spec = launch.worker(number)
            self._socket = self.directory.worker_socket(number)
        self._role = role
        self.process: Final = SupervisedProcess(
            self._spec, lines=_print_line, on_change=self._changed
        )
        self._task: asyncio.Task[None] | None = None
        self._measured: tuple[float, float] | None = None

    def _claim_number(self, kind: str) -> int:
        """The lowest number that no other replica of this machine has.

        A lock, not a list: the kernel lets go of it however its owner ends.
        """
        for number in range(_MOST_WORKERS):
            path = self.directory.run / f"{kind}-{number}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                self._lock = descriptor
                return number
        raise EngineError(
            f"{_MOST_WORKERS} processes of a kind run on {self.directory.real_path} already"
        )

    async def start(self) -> None:
        """Start the process and return when it serves.

        Raises:
            EngineError: It keeps dying, died for a reason that trying again will not change, or
                refuses what control published.
        """
        self._file = self.directory.run / f"{self._spec.name}.replica"
        self._task = self.process.start()
        judged = time.monotonic()
        try:
            while not await is_ok(self._socket, "/readyz", 1.0):
                self._raise_if_hopeless()
                if time.monotonic() - judged > _REFUSAL_SECONDS:
                    await self._raise_if_refused()
                    judged = time.monotonic()
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drain the process; nothing of it is left afterwards."""
        await self.process.stop()
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def raise_if_unhealthy(self) -> None:
        """For Serve's health check: whether this replica still keeps its process.

        A process that died is started again here, within a fraction of a second; Serve only
        has to replace the replica when that does not help.

        Raises:
            EngineError: The process fails again and again, or nobody supervises it.
        """
        if self._task is not None and self._task.done():
            raise EngineError(f"{self._spec.name} is not supervised any more")
        self._raise_if_hopeless()

    async def load(self) -> dict[str, float]:
        """The process's share of a core since the last call, and its requests in flight.

        A worker's also holds, per dedicated version, the requests that want one of its hosts.
        """
        return await self._own_load() | await self._demand()

    async def _demand(self) -> dict[str, float]:
        if self._role != "worker":
            return {}
        demands = await demand_of([self._socket])
        return {demand.PREFIX + id_: number for id_, number in demands.items()}

    async def _own_load(self) -> dict[str, float]:
        answer = await ask(self._socket, "/load", timeout_seconds=1.0)
        now = time.monotonic()
        if answer is None or answer.status != 200:
            self._measured = None
            return {"busy": 0.0, "in_flight": 0.0}
        said = msgspec.json.decode(answer.body, type=dict[str, float])
        busy = said["busy_seconds"]
        before, self._measured = self._measured, (now, busy)
        if before is None or busy < before[1] or now <= before[0]:
            return {"busy": 0.0, "in_flight": said["in_flight"]}
        return {
            "busy": (busy - before[1]) / (now - before[0]),
            "in_flight": said["in_flight"],
        }

    def _raise_if_hopeless(self) -> None:
        report = self.process.report
        if self.process.explanation and report.state is State.BACKING_OFF:
            raise EngineError(f"{report.name} does not start: {self.process.explanation}")
        if report.failures >= _GIVE_UP_FAILURES and report.state in {
            State.STARTING,
            State.BACKING_OFF,
        }:
            words = "; ".join(list(self.process.last_lines)[-3:]) or "no last words"
            raise EngineError(
                f"{report.name} failed {report.failures} times in a row, last with "
                f"{report.last_exit}: {words}"
            )

    async def _raise_if_refused(self) -> None:
        if self._role == "host":  # it follows no revision
            return
        revision, words = await what_workers_say(self.directory)
        name = self._spec.name
        if reasons := refusals_of_all(revision, words, {name: self.process.report.pid}):
            raise EngineError(f"no worker can serve the configuration: {reasons[0]}")

    def _changed(self) -> None:
        if self._file is None:
            return
        report = ReplicaReport(
            process=msgspec.structs.replace(
                self.process.report, replica=self._replica, serves=self._serves
            ),
            supervisor=os.getpid(),
            supervisor_started=process_started(os.getpid()),
            explanation=self.process.explanation,
            last_lines=list(self.process.last_lines),
        )
        fresh = self._file.with_suffix(".replica-new")
        with contextlib.suppress(OSError):  # a full disk costs a report, not the process
            fresh.write_bytes(msgspec.json.encode(report))
            fresh.replace(self._file)


def _host_of(site: HostSite) -> HostSpec:
    for spec in read_hosts(Path(site.data)):
        if spec.id == site.host:
            return spec
    raise EngineError(f"no version with the id {site.host} is to be served by hosts any more")


def store_of(configured: str, directory: DataDirectory) -> str:
    """The store's address: the configured one, or the launcher's own server on this machine."""
    if configured != "embedded":
        return configured
    return EmbeddedStore(directory.store, Path()).url


def _print_line(process: str, line: str) -> None:
    # Not sys.stderr: Serve sends that to a file of its own; Ray brings this to the launcher.
    os.write(2, f"{prefixed(process, line)}\n".encode())
