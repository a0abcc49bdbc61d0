"""Processes of dedicated versions under the local engine: as many as are listed and needed.

Control lists the versions in `DATA/hosts.json`. New settings or new code replace processes one at a
time: the next is up before the one before goes.

A version that scales is judged by the same `decide` as Ray's replicas. One that has gone from
the file drains; control takes it out only when no worker uses it any more.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from serving.config.hosts import (
    HOSTS_FILE,
    HostSpec,
    host_name,
    private_socket,
    read_hosts,
    scaling_of,
)
from serving.engine.autoscale import AVERAGED_SECONDS, REPORT_SECONDS, Load, Scaling, decide
from serving.engine.directory import DataDirectory
from serving.engine.lifecycle import State
from serving.engine.supervised import ProcessSpec, SupervisedProcess
from serving.errors import InvalidConfig
from serving.files import stamp
from serving.tasks import end
from serving.unix_http import ask

__all__ = ["HostFleet", "demand_of"]

_LOOK_SECONDS: Final = 0.1
_ASK_SECONDS: Final = 1.0

Make = Callable[[HostSpec, int, int], ProcessSpec]
"""Of a version, a process's number, and the generation of settings that it is to go by."""


class _Version:
    """One version's processes, and what its scaling remembers."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.processes: dict[int, SupervisedProcess] = {}
        self.generations: dict[int, int] = {}
        self.wanted = scaling_of(spec).min
        self.memory: dict[str, Any] = {}
        self.seen: deque[Load] = deque(maxlen=round(AVERAGED_SECONDS / REPORT_SECONDS))
        self.busy: dict[int, tuple[float, float]] = {}
        """By number: when it was asked, and its CPU seconds then."""

    @property
    def scaling(self) -> Scaling:
        """Bounds and targets."""
        return Scaling(**msgspec.structs.asdict(scaling_of(self.spec)))


class HostFleet:
    """Keeps the processes, from `start` to `stop`.

    Args:
        directory: where the list and the sockets are.
        make: builds a process's specification.
        supervise: makes a supervisor of it.
        workers: the private sockets of the workers, which know who is waiting.
        generation: of settings that processes are to go by.
        on_change: called when a process was added or has gone.
    """

    def __init__(
        self,
        directory: DataDirectory,
        make: Make,
        *,
        supervise: Callable[[ProcessSpec], SupervisedProcess],
        workers: Callable[[], list[Path]],
        generation: Callable[[], int],
        on_change: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._make = make
        self._supervise = supervise
        self._workers = workers
        self._generation = generation
        self._on_change = on_change
        self._say = say
        self._versions: dict[str, _Version] = {}
        self._leaving: dict[SupervisedProcess, asyncio.Task[None]] = {}
        self._tasks: dict[SupervisedProcess, asyncio.Task[None]] = {}
        self._stamp: Any = None
        self._problem = ""
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def processes(self) -> list[SupervisedProcess]:
        """All of them, by version; those that drain too."""
        staying = [one for version in self._versions.values() for one in version.processes.values()]
        return [*staying, *self._leaving]

    @property
    def missing(self) -> list[str]:
        """Versions that need a process and have none that is ready."""
        return [
            version.spec.name
            for version in self._versions.values()
            if version.wanted > 0
            and not any(one.state is State.READY for one in version.processes.values())
        ]

    def name_of(self, process: SupervisedProcess) -> str:
        """The `model/version` that a process serves, empty if it is not ours or leaves."""
        for version in self._versions.values():
            if process in version.processes.values():
                return version.spec.name
        return ""

    def start(self) -> "asyncio.Task[None]":
        """Begin to keep the processes that the list names."""
        self._keeping = asyncio.create_task(self._keep(), name="model hosts")
        return self._keeping

    async def stop(self) -> None:
        """Drain all. Returns when none is left."""
        self._stopping = True
        if self._keeping is not None:
            await end(self._keeping)
        await asyncio.gather(*(process.stop() for process in self.processes))
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def kill(self) -> None:
        """SIGKILL all."""
        for process in self.processes:
            process.kill()

    async def _keep(self) -> None:
        measured = 0.0
        while True:
            self._read()
            now = time.monotonic()
            due = now - measured >= REPORT_SECONDS
            scaled = [v for v in self._versions.values() if _scales(v)]
            if any(v.wanted == 0 for v in scaled) or (scaled and due):
                demand = await demand_of(self._workers())
                for version in scaled:
                    if due or version.wanted == 0:
                        await self._scale(version, demand.get(version.spec.id, 0.0))
            if due:
                measured = now
            generation = self._generation() if self._versions else 0
            for version in self._versions.values():
                self._fit(version, generation)
            await asyncio.sleep(_LOOK_SECONDS)

    def _read(self) -> None:
        file = self._directory.path / HOSTS_FILE
        fresh = stamp(file)
        if fresh == self._stamp:
            return
        try:
            listed = read_hosts(self._directory.path)
        except InvalidConfig as error:
            if error.message != self._problem:
                self._say(f"model hosts stay as they are: {error.message}")
            self._problem = error.message
            return
        self._stamp, self._problem = fresh, ""
        found = {spec.id: spec for spec in listed}
        for id_ in [id_ for id_ in self._versions if id_ not in found]:
            gone = self._versions.pop(id_)
            for process in gone.processes.values():
                self._let_go(process)
        for id_, spec in found.items():
            known = self._versions.get(id_)
            if known is None:
                self._versions[id_] = _Version(spec)
            else:
                known.spec = spec
                bounds = scaling_of(spec)
                known.wanted = min(max(known.wanted, bounds.min), bounds.max)

    async def _scale(self, version: _Version, demand: float) -> None:
        load = Load(busy=await self._busy(version), in_flight=demand)
        version.seen.append(load)
        # Where there is none, what is averaged away is somebody who waits.
        seen = list(version.seen) if version.wanted else [load]
        average = Load(
            busy=sum(one.busy for one in seen) / len(seen),
            in_flight=sum(one.in_flight for one in seen) / len(seen),
        )
        version.wanted, version.memory = decide(
            average, version.scaling, version.wanted, time.monotonic(), version.memory
        )

    async def _busy(self, version: _Version) -> float:
        total = 0.0
        for number in version.processes:
            answer = await ask(
                private_socket(self._directory.run, version.spec.id, number),
                "/load",
                timeout_seconds=_ASK_SECONDS,
            )
            if answer is None or answer.status != 200:
                version.busy.pop(number, None)
                continue
            said = msgspec.json.decode(answer.body, type=dict[str, float])
            now, used = time.monotonic(), said["busy_seconds"]
            before = version.busy.get(number)
            version.busy[number] = (now, used)
            if before is not None and used >= before[1] and now > before[0]:
                total += (used - before[1]) / (now - before[0])
        return total

    def _fit(self, version: _Version, generation: int) -> None:
        if self._stopping:
            return
        there, id_ = version.processes, version.spec.id
        old = [number for number in there if version.generations[number] < generation]
        # One more while they are replaced, as long as its start does not fail.
        extra = bool(old) and version.wanted > 0
        while len(there) < version.wanted + extra:
            # Not the number of one that drains: it would take the other's sockets away.
            taken = {process.spec.name for process in self.processes}
            number = next(n for n in count() if host_name(id_, n) not in taken)
            process = self._supervise(self._make(version.spec, number, generation))
            there[number], version.generations[number] = process, generation
            self._tasks[process] = process.start()
            self._on_change()
        young = [number for number in there if number not in old]
        if extra and all(there[number].state is State.READY for number in young):
            self._dismiss(version, old[0])
        while len(there) > version.wanted + extra:
            self._dismiss(version, max(there))

    def _dismiss(self, version: _Version, number: int) -> None:
        version.busy.pop(number, None)
        version.generations.pop(number, None)
        self._let_go(version.processes.pop(number))

    def _let_go(self, process: SupervisedProcess) -> None:
        async def leave() -> None:
            try:
                await process.stop()
            finally:
                self._leaving.pop(process, None)
                self._tasks.pop(process, None)
                self._on_change()

        self._leaving[process] = asyncio.create_task(leave())


async def demand_of(workers: list[Path]) -> dict[str, float]:
    """By host id: requests that want one, summed over the workers that answer."""
    total: dict[str, float] = {}
    answers = await asyncio.gather(
        *(ask(socket, "/demand", timeout_seconds=_ASK_SECONDS) for socket in workers)
    )
    for answer in answers:
        if answer is not None and answer.status == 200:
            with contextlib.suppress(msgspec.DecodeError):
                for id_, number in msgspec.json.decode(answer.body, type=dict[str, float]).items():
                    total[id_] = total.get(id_, 0.0) + number
    return total


def _scales(version: _Version) -> bool:
    bounds = scaling_of(version.spec)
    return bounds.min != bounds.max
