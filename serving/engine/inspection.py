"""Looking at a running engine from outside: its report, its processes, their sockets."""

import asyncio
import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from serving.config.hosts import private_socket
from serving.engine.directory import DataDirectory
from serving.engine.report import EngineReport, ProcessReport, read_report
from serving.unix_http import ask

__all__ = ["ProcessStatus", "inspect", "resident_bytes"]

_ASK_SECONDS: Final = 1.0

T = TypeVar("T")


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process as the engine and the process itself describe it.

    `state` is the engine's word; `says` the worker's own (`loading`, `ready` …), empty for
    other processes and for one that does not answer. `busy` is a worker's share of a core,
    `replica` the Ray Serve replica that keeps the process, `serves` a model host's
    `model/version`. `resident_bytes` is the memory it holds,
    None if there is no process. `since` is when `state` began, wall-clock seconds.
    """

    name: str
    pid: int | None
    state: str
    restarts: int
    failures: int
    last_exit: str
    since: float
    resident_bytes: int | None = None
    says: str = ""
    revision: int | None = None
    in_flight: int | None = None
    busy: float | None = None
    replica: str = ""
    serves: str = ""


class _Readiness(msgspec.Struct):
    state: str = ""
    revision: int | None = None


class _Load(msgspec.Struct):
    in_flight: float = 0
    busy: float = 0.0


async def inspect(data: Path) -> tuple[EngineReport, list[ProcessStatus]] | None:
    """What runs on a data directory, or None if nothing does.

    Asks every worker at once and none for longer than a second, so that a stuck one is shown
    as it is and holds nobody up.
    """
    directory = DataDirectory(data)
    report = read_report(directory.engine_json)
    if report is None or not report.alive:
        return None
    return report, list(
        await asyncio.gather(*(_examine(directory, process) for process in report.processes))
    )


async def _examine(directory: DataDirectory, process: ProcessReport) -> ProcessStatus:
    status = ProcessStatus(
        name=process.name,
        pid=process.pid,
        state=process.state,
        restarts=process.restarts,
        failures=process.failures,
        last_exit=process.last_exit,
        since=process.since,
        replica=process.replica,
        serves=process.serves,
        resident_bytes=None if process.pid is None else resident_bytes(process.pid),
    )
    socket = _private(directory, process.name)
    if socket is None or process.pid is None:
        return status
    ready, load = await asyncio.gather(
        _answer(socket, "/readyz", _Readiness), _answer(socket, "/load", _Load)
    )
    return msgspec.structs.replace(
        status,
        says=ready.state if ready is not None else "",
        revision=ready.revision if ready is not None else None,
        in_flight=int(load.in_flight) if load is not None else None,
        busy=load.busy if load is not None else None,
    )


def _private(directory: DataDirectory, name: str) -> Path | None:
    """The private listener of a worker or a model host; others have nothing to say about load."""
    kind, _, rest = name.partition("-")
    if kind == "worker":
        return directory.worker_socket(int(rest))
    if kind == "host":
        id_, _, number = rest.rpartition("-")
        return private_socket(directory.run, id_, int(number))
    return None


async def _answer(socket: Path, target: str, kind: type[T]) -> T | None:
    answer = await ask(socket, target, timeout_seconds=_ASK_SECONDS)
    try:
        return None if answer is None else msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError:
        return None


def resident_bytes(pid: int) -> int | None:
    """Memory a process holds (second field of /proc/PID/statm, in pages), None if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError):
        return None
