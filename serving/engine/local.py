"""The engine for one machine: this process starts and keeps the store, control and workers.

Everything starts at once: a Python process needs half a second to import what it runs on, the
store a twentieth, and whoever is first waits for the others. They stop in the order workers,
control, store, each group after the one before is gone, so that a draining worker can still
record and report.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from serving.clock import Clock, SystemClock
from serving.config.applied import applied_directory, read_failure, read_orders, startable
from serving.engine.crew import Crew
from serving.engine.directory import DataDirectory
from serving.engine.embedded_store import EmbeddedStore, find_server
from serving.engine.host_fleet import HostFleet
from serving.engine.lifecycle import State
from serving.engine.log_lines import LineSink
from serving.engine.ports import HeldPort
from serving.engine.programs import (
    ROOM,
    ROOM_PER_WORKER,
    Launch,
    Options,
    Programs,
    hold_ports,
    is_ok,
)
from serving.engine.refusals import (
    refusals_of_all,
    what_control_waits_for,
    what_workers_say,
)
from serving.engine.report import Addresses, EngineReport, process_started, write_report
from serving.engine.rolling import Member
from serving.engine.stages import Stage, stage_of
from serving.engine.supervised import ProcessSpec, SupervisedProcess
from serving.errors import EngineError
from serving.tasks import end
from serving.unix_http import ask

__all__ = ["LocalEngine", "Options", "Programs"]

_READY_PROBE_SECONDS: Final = 0.03
_REFUSAL_PROBE_SECONDS: Final = 0.5
_GIVE_UP_FAILURES: Final = 3
_LOOK_SECONDS: Final = 1.0
_LAST_LINES_SHOWN: Final = 8
_NOT_UP: Final = (State.STARTING, State.BACKING_OFF)
_TROUBLED: Final = {State.BACKING_OFF, State.UNHEALTHY}


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
        self.hosts: HostFleet | None = None
        """Processes of dedicated model versions."""

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
        self._store_task: asyncio.Task[None] | None = None
        self._control_task: asyncio.Task[None] | None = None
        self._control_generation = 0
        self._hosts_task: asyncio.Task[None] | None = None
        self._crew: Crew | None = None
        self._started_at = 0.0
        self._started = False

    @property
    def addresses(self) -> Addresses:
        """Where the listeners are. Raises EngineError before `start`."""
        if self._addresses is None:
            raise EngineError("the engine has not been started")
        return self._addresses

    @property
    def workers(self) -> Sequence[SupervisedProcess]:
        """Those that run now; while one is replaced, its successor too."""
        return [member.process for member in self._members]

    @property
    def processes(self) -> Sequence[SupervisedProcess]:
        """Every supervised process, the store first."""
        hosts = self.hosts.processes if self.hosts is not None else []
        return [p for p in (self.store, self.control, *self.workers, *hosts) if p is not None]

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
        self._directory.claim(least_free=ROOM + self.options.workers * ROOM_PER_WORKER)
        try:
            self._addresses, self._ports = hold_ports(self.options)
            embedded = self._embedded_store()
        except BaseException:
            self._let_go()
            raise
        self._started_at = self._clock.wall()
        url = self.store_url = embedded.url if embedded is not None else self.options.store
        if embedded is not None:
            self.store = self._supervise(embedded.spec())
            self._store_task = self.store.start()
        self._launch = launch = Launch(
            self.options,
            self._programs,
            self._directory,
            addresses=self._addresses,
            store_url=url,
        )
        self.control = self._supervise(launch.control())
        self._control_task = self.control.start()
        self._crew = Crew(
            self._directory.path,
            launch=launch.worker,
            supervise=self._supervise,
            socket=self._directory.worker_socket,
            refused=self._refusal_of,
            say=lambda line: self._lines("engine", line),
            start_seconds=self.options.start_seconds,
        )
        self._crew.start(self.options.workers)
        self.hosts = HostFleet(
            self._directory,
            launch.host,
            supervise=self._supervise,
            workers=lambda: [member.socket for member in self._members],
            generation=self._generation,
            on_change=self._changed,
            say=lambda text: self._lines("engine", text),
        )
        self._hosts_task = self.hosts.start()
        self._started = True
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
                if await is_ok(socket, "/readyz", 1.0):
                    del waiting[name]
                    self.serving.add(name)
                    self._on_change()
            # Workers do not serve before the hosts that they need; extra ones may come later.
            always = [p for p in (self.store, self.control, *self.workers) if p is not None]
            if not waiting and all(process.state is State.READY for process in always):
                return
            if self._clock.monotonic() - judged >= _REFUSAL_PROBE_SECONDS:
                await self._raise_if_refused()
                judged = self._clock.monotonic()
            await asyncio.sleep(_READY_PROBE_SECONDS)

    def stages(self) -> list[Stage]:
        """How far the start is."""
        found = [] if self.store is None else [stage_of("store", self.store.state)]
        control = self.control.state if self.control is not None else State.STOPPED
        ready = [worker for worker in self.workers if worker.spec.name in self.serving]
        wanted = max(len(self.workers), self.options.workers)
        text = f"{len(ready)} of {wanted} ready"
        missing = self.hosts.missing if self.hosts is not None else []
        if troubled := [w.spec.name for w in self.workers if w.state in _TROUBLED]:
            text += f", {', '.join(troubled)} died and will be started again"
        return [
            *found,
            stage_of("control", control),
            Stage("models", _models(missing, ready=bool(ready)), bool(ready)),
            Stage("workers", text, len(ready) == wanted),
        ]

    async def waits_for(self) -> str:
        """What control says it waits for, empty if it says nothing."""
        return await what_control_waits_for(self._directory)

    async def until_broken(self) -> None:
        """Follow what is applied while supervision lasts; raise a mistake in either."""
        assert self._crew is not None
        following = asyncio.create_task(self._crew.follow(self._replace_control))
        try:
            while not all(task.done() for task in self._tasks):
                # Workers come and go meanwhile.
                tasks = {following, *self._tasks}
                done, _ = await asyncio.wait(
                    tasks, timeout=_LOOK_SECONDS, return_when="FIRST_EXCEPTION"
                )
                for task in done:
                    if not task.cancelled():  # `stop` ends the one that looks after model hosts
                        task.result()
        finally:
            await end(following)

    async def _replace_control(self, generation: int) -> None:
        """Have control started again if it was started with an older generation."""
        if generation <= self._control_generation:
            return
        assert self.control is not None
        self._control_generation = generation
        await self.control.stop()
        self.control = self._supervise(self._launch.control(generation=generation))
        self._control_task = self.control.start()

    async def stop(self) -> None:
        """Drain workers, then control, then the store; leave no process, socket or lock."""
        store = [self.store] if self.store is not None else []
        control = [self.control] if self.control is not None else []
        try:
            await asyncio.gather(*(process.stop() for process in self.workers))
            if self.hosts is not None:
                await self.hosts.stop()
            for group in (control, store):
                await asyncio.gather(*(process.stop() for process in group))
        finally:
            self.kill()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._let_go()

    def kill(self) -> None:
        """SIGKILL everything now. `stop` still has to be awaited, and then returns at once."""
        for process in self.processes:
            process.kill()
        if self.hosts is not None:
            self.hosts.kill()

    async def worker_load(self, number: int) -> dict[str, float] | None:
        """What worker `number` says about its load: in_flight, busy_seconds, connections."""
        answer = await ask(self._directory.worker_socket(number), "/load", timeout_seconds=1.0)
        if answer is None or answer.status != 200:
            return None
        return msgspec.json.decode(answer.body, type=dict[str, float])

    @property
    def _members(self) -> Sequence[Member]:
        return self._crew.members if self._crew is not None else ()

    @property
    def _tasks(self) -> list["asyncio.Task[None]"]:
        kept = [self._store_task, self._control_task, self._hosts_task]
        tasks = [*kept, *(one.task for one in self._members)]
        return [task for task in tasks if task is not None]

    def _embedded_store(self) -> EmbeddedStore | None:
        if self.options.store != "embedded":
            return None
        return EmbeddedStore(self._directory.store, self._programs.store or find_server())

    def _supervise(self, spec: ProcessSpec) -> SupervisedProcess:
        return SupervisedProcess(
            spec, lines=self._lines, on_change=self._changed, clock=self._clock
        )

    def _private_sockets(self) -> list[tuple[SupervisedProcess, Path]]:
        assert self.control is not None
        workers = [(member.process, member.socket) for member in self._members]
        return [(self.control, self._directory.control_socket), *workers]

    def _raise_if_hopeless(self) -> None:
        for process in self.processes:
            report = process.report
            serves = self._serves(process)
            name = f"{report.name} (model {serves})" if serves else report.name
            if process.explanation:
                raise EngineError(f"{name} does not start: {process.explanation}")
            if report.failures >= _GIVE_UP_FAILURES and report.state in _NOT_UP:
                lines = list(process.last_lines)[-_LAST_LINES_SHOWN:] or ["(none)"]
                raise EngineError(
                    f"{name} failed {report.failures} times in a row, "
                    f"last with {report.last_exit}; its last words:\n" + "\n".join(lines)
                )

    async def _raise_if_refused(self) -> None:
        revision, words = await what_workers_say(self._directory)
        pids = {worker.spec.name: worker.report.pid for worker in self.workers}
        if reasons := refusals_of_all(revision, words, pids):
            lines = "\n".join(reasons)
            raise EngineError(f"no worker can serve the configuration:\n{lines}")

    async def _refusal_of(self, worker: str, pid: int | None) -> str:
        revision, words = await what_workers_say(self._directory)
        reasons = refusals_of_all(
            revision, [word for word in words if word.worker == worker], {worker: pid}
        )
        return reasons[0] if reasons else ""

    def _changed(self) -> None:
        if self._started:
            self._write_report()
        self._on_change()

    def _write_report(self) -> None:
        report = EngineReport(
            pid=os.getpid(),
            pid_started=process_started(os.getpid()),
            started_at=self._started_at,
            configuration=applied_directory(self._directory.path)
            or str(self.options.configuration.absolute()),
            data=str(self._directory.path),
            addresses=self.addresses,
            processes=[
                msgspec.structs.replace(process.report, serves=self._serves(process))
                for process in self.processes
            ],
        )
        try:
            write_report(self._directory.engine_json, report)
        except OSError as error:
            # A full disk must not end supervision; readers see the state before.
            self._lines("engine", f"engine.json could not be written: {error.strerror}")

    def _generation(self) -> int:
        data = self._directory.path
        return startable(read_orders(data), read_failure(data))

    def _serves(self, process: SupervisedProcess) -> str:
        return self.hosts.name_of(process) if self.hosts is not None else ""

    def _let_go(self) -> None:
        while self._ports:
            self._ports.pop().close()
        self._directory.release()


def _models(missing: list[str], *, ready: bool) -> str:
    if ready:
        return "ready"
    return f"loading; no process is ready yet for {', '.join(missing)}" if missing else "loading"
