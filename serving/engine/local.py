"""The engine for one machine: this process starts and keeps the store, control and workers.

Everything starts at once: a Python process needs half a second to import what it runs on, the
store a twentieth, and whoever is first waits for the others. They stop in the order workers,
control, store, each group after the one before is gone, so that a draining worker can still
record and report.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from serving.clock import Clock, SystemClock
from serving.config.addresses import parse_address
from serving.config.keys import STORE_VARIABLE
from serving.engine.directory import DataDirectory
from serving.engine.embedded_store import EmbeddedStore, find_server
from serving.engine.lifecycle import State
from serving.engine.log_lines import LineSink
from serving.engine.ports import HeldPort, written
from serving.engine.refusals import (
    refusals_of_all,
    what_control_waits_for,
    what_workers_say,
)
from serving.engine.report import Addresses, EngineReport, process_started, write_report
from serving.engine.supervised import Heard, ProcessSpec, SupervisedProcess, explain_full_disk
from serving.errors import EngineError
from serving.unix_http import ask

__all__ = ["LocalEngine", "Options", "Programs"]

_READY_PROBE_SECONDS: Final = 0.03
_REFUSAL_PROBE_SECONDS: Final = 0.5
_GIVE_UP_FAILURES: Final = 3
_LAST_LINES_SHOWN: Final = 8
_NOT_UP: Final = (State.STARTING, State.BACKING_OFF)

_ROOM: Final = 16 << 20
"""Free bytes on the data directory's disk: a store, a journal, small models, some to spare."""

_ROOM_PER_WORKER: Final = 4 << 20
"""Its metrics file (`serving.metrics.MetricsFile`)."""

_MODULE: Final = (sys.executable, "-P", "-m")  # -P: the working directory holds no modules


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, before the arguments that every such program takes.

    The store's address comes in the environment, as `STORE_VARIABLE`.
    """

    worker: tuple[str, ...] = (*_MODULE, "serving.worker.process")
    control: tuple[str, ...] = (*_MODULE, "serving.control.process")
    store: Path | None = None
    """Server binary; None: `find_server()`."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, where, and how patient to be. Times in seconds."""

    configuration: Path
    data: Path
    workers: int = 1
    http: str = "127.0.0.1:8000"
    grpc: str = "127.0.0.1:8001"
    admin: str = "127.0.0.1:8002"
    store: str = "embedded"
    insecure_bind: bool = False

    drain_seconds: float = 32.0
    """Until a stopping worker is killed. Keep it above the worker's own `limits.drain_timeout`."""

    worker_silent_seconds: float = 2.0
    """Its listener still receives connections while it is stuck, so this is short."""

    control_silent_seconds: float = 10.0
    """Nobody's request waits for control."""

    start_seconds: float = 60.0
    """Until a process that never answered is killed; imports on a busy machine take a while."""


class LocalEngine:
    """Owns a data directory, three ports and the processes on them.

    `lines` takes every log line; `on_change` is called whenever a process changes state.
    """

    def __init__(
        self,
        options: Options,
        *,
        lines: LineSink,
        programs: Programs | None = None,
        on_change: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.options: Final = options
        self.store: SupervisedProcess | None = None
        self.control: SupervisedProcess | None = None
        self.workers: list[SupervisedProcess] = []
        self.serving: set[str] = set()
        """Names of control and workers that have said they serve, filled by `until_ready`."""
        self.store_url = ""
        """The store's address, once started."""

        self._programs = programs if programs is not None else Programs()
        self._lines = lines
        self._on_change = on_change
        self._clock = clock if clock is not None else SystemClock()
        self._directory = DataDirectory(options.data)
        self._ports: list[HeldPort] = []
        self._addresses: Addresses | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._started_at = 0.0

    @property
    def addresses(self) -> Addresses:
        """Where the listeners are. Raises EngineError before `start`."""
        if self._addresses is None:
            raise EngineError("the engine has not been started")
        return self._addresses

    @property
    def processes(self) -> Sequence[SupervisedProcess]:
        """Every supervised process, the store first."""
        return [p for p in (self.store, self.control, *self.workers) if p is not None]

    @property
    def directory(self) -> DataDirectory:
        """The data directory and the names in it."""
        return self._directory

    async def start(self) -> Addresses:
        """Claim directory and ports, then start every process without waiting for any.

        Raises:
            EngineError: The data directory or a port belongs to somebody else, or there is no
                store to run. Nothing is left behind.
        """
        self._directory.claim(least_free=_ROOM + self.options.workers * _ROOM_PER_WORKER)
        try:
            self._addresses = self._hold_ports()
            embedded = self._embedded_store()
        except BaseException:
            self._let_go()
            raise
        self._started_at = self._clock.wall()
        url = self.store_url = embedded.url if embedded is not None else self.options.store
        if embedded is not None:
            self.store = self._supervise(embedded.spec())
        self.control = self._supervise(self._control_spec(url))
        self.workers = [
            self._supervise(self._worker_spec(number, url))
            for number in range(self.options.workers)
        ]
        self._tasks = [process.start() for process in self.processes]
        self._changed()
        return self._addresses

    async def until_ready(self) -> None:
        """Wait until the store answers and control and every worker serve; no bound of its own.

        Raises:
            EngineError: A process keeps dying before it was ever ready, or died for a reason
                that trying again will not change, or every worker has refused what control
                published. The message has the reasons or the last words.
        """
        judged = self._clock.monotonic()
        waiting = {process.spec.name: socket for process, socket in self._private_sockets()}
        while True:
            self._raise_if_hopeless()
            for name, socket in list(waiting.items()):
                if await _is_ok(socket, "/readyz", 1.0):
                    del waiting[name]
                    self.serving.add(name)
                    self._on_change()
            if not waiting and all(process.state is State.READY for process in self.processes):
                return
            if self._clock.monotonic() - judged >= _REFUSAL_PROBE_SECONDS:
                await self._raise_if_refused()
                judged = self._clock.monotonic()
            await asyncio.sleep(_READY_PROBE_SECONDS)

    async def waits_for(self) -> str:
        """What control says it waits for, empty if it says nothing."""
        return await what_control_waits_for(self._directory)

    async def until_broken(self) -> None:
        """Wait for a mistake in the supervision itself, and raise it. Never returns otherwise."""
        done, _ = await asyncio.wait(self._tasks, return_when="FIRST_EXCEPTION")
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Drain workers, then control, then the store; leave no process, socket or lock."""
        store = [self.store] if self.store is not None else []
        control = [self.control] if self.control is not None else []
        try:
            for group in (self.workers, control, store):
                await asyncio.gather(*(process.stop() for process in group))
        finally:
            self.kill()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._let_go()

    def kill(self) -> None:
        """SIGKILL everything now. `stop` still has to be awaited, and then returns at once."""
        for process in self.processes:
            process.kill()

    async def worker_load(self, number: int) -> dict[str, float] | None:
        """What worker `number` says about its load: in_flight, busy_seconds, connections."""
        answer = await ask(self._directory.worker_socket(number), "/load", timeout_seconds=1.0)
        if answer is None or answer.status != 200:
            return None
        return msgspec.json.decode(answer.body, type=dict[str, float])

    def _hold_ports(self) -> Addresses:
        wanted = {"http": self.options.http, "grpc": self.options.grpc, "admin": self.options.admin}
        found: dict[str, str] = {}
        for name, text in wanted.items():
            option = f"listen.{name}"
            try:
                address = parse_address(text)
            except ValueError as error:
                raise EngineError(f"{option}: {error}") from error
            port = HeldPort(address, option, shared=name != "admin")
            self._ports.append(port)
            found[name] = written(port.address)
        return Addresses(**found)

    def _embedded_store(self) -> EmbeddedStore | None:
        if self.options.store != "embedded":
            return None
        return EmbeddedStore(self._directory.store, self._programs.store or find_server())

    def _supervise(self, spec: ProcessSpec) -> SupervisedProcess:
        return SupervisedProcess(
            spec, lines=self._lines, on_change=self._changed, clock=self._clock
        )

    def _control_spec(self, store_url: str) -> ProcessSpec:
        forced = ("--insecure-bind",) if self.options.insecure_bind else ()
        return self._spec(
            "control",
            self._programs.control,
            ("--admin", self.addresses.admin, *forced),
            socket=self._directory.control_socket,
            store_url=store_url,
            silent_seconds=self.options.control_silent_seconds,
        )

    def _worker_spec(self, number: int, store_url: str) -> ProcessSpec:
        addresses = self.addresses
        return self._spec(
            f"worker-{number}",
            self._programs.worker,
            ("--worker", str(number), "--http", addresses.http, "--grpc", addresses.grpc),
            socket=self._directory.worker_socket(number),
            store_url=store_url,
            silent_seconds=self.options.worker_silent_seconds,
        )

    def _spec(
        self,
        name: str,
        program: tuple[str, ...],
        arguments: tuple[str, ...],
        *,
        socket: Path,
        store_url: str,
        silent_seconds: float,
    ) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            command=(*program, *self._shared_arguments(), *arguments),
            environment={STORE_VARIABLE: store_url},
            probe=_health_of(socket, silent_seconds),
            silent_seconds=silent_seconds,
            start_seconds=self.options.start_seconds,
            drain_seconds=self.options.drain_seconds,
            prepare=_without(socket),
            explain=explain_full_disk,
        )

    def _shared_arguments(self) -> tuple[str, ...]:
        return (
            *("--data", str(self._directory.path)),
            *("--config", str(self.options.configuration.absolute())),
            *("--parent", str(os.getpid())),
        )

    def _private_sockets(self) -> list[tuple[SupervisedProcess, Path]]:
        assert self.control is not None
        workers = [
            (worker, self._directory.worker_socket(number))
            for number, worker in enumerate(self.workers)
        ]
        return [(self.control, self._directory.control_socket), *workers]

    def _raise_if_hopeless(self) -> None:
        for process in self.processes:
            report = process.report
            if process.explanation:
                raise EngineError(f"{report.name} does not start: {process.explanation}")
            if report.failures >= _GIVE_UP_FAILURES and report.state in _NOT_UP:
                lines = list(process.last_lines)[-_LAST_LINES_SHOWN:] or ["(none)"]
                raise EngineError(
                    f"{report.name} failed {report.failures} times in a row, "
                    f"last with {report.last_exit}; its last words:\n" + "\n".join(lines)
                )

    async def _raise_if_refused(self) -> None:
        revision, words = await what_workers_say(self._directory)
        pids = {worker.spec.name: worker.report.pid for worker in self.workers}
        if reasons := refusals_of_all(revision, words, pids):
            lines = "\n".join(reasons)
            raise EngineError(f"no worker can serve the configuration:\n{lines}")

    def _changed(self) -> None:
        if self._addresses is not None and len(self._tasks) == len(self.processes):
            self._write_report()
        self._on_change()

    def _write_report(self) -> None:
        report = EngineReport(
            pid=os.getpid(),
            pid_started=process_started(os.getpid()),
            started_at=self._started_at,
            configuration=str(self.options.configuration.absolute()),
            data=str(self._directory.path),
            addresses=self.addresses,
            processes=[process.report for process in self.processes],
        )
        try:
            write_report(self._directory.engine_json, report)
        except OSError as error:
            # A full disk must not end supervision; readers see the state before.
            self._lines("engine", f"engine.json could not be written: {error.strerror}")

    def _let_go(self) -> None:
        while self._ports:
            self._ports.pop().close()
        self._directory.release()


def _health_of(socket: Path, timeout_seconds: float) -> Callable[[], Awaitable[Heard]]:
    async def probe() -> Heard:
        ok = await _is_ok(socket, "/healthz", timeout_seconds)
        return Heard.WELL if ok else Heard.NOTHING

    return probe


async def _is_ok(socket: Path, target: str, timeout_seconds: float) -> bool:
    answer = await ask(socket, target, timeout_seconds=timeout_seconds)
    return answer is not None and answer.status == 200


def _without(socket: Path) -> Callable[[], Awaitable[None]]:
    async def prepare() -> None:
        socket.unlink(missing_ok=True)  # noqa: ASYNC240  - one call on a local directory

    return prepare
