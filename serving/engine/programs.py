"""What the engines run: the worker and the control program, with their arguments and bounds."""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from serving.config.addresses import parse_address
from serving.config.applied import read_applied
from serving.config.hosts import HostSpec, data_socket, host_name, private_socket
from serving.config.keys import STORE_VARIABLE
from serving.engine.autopsy import Autopsy
from serving.engine.directory import DataDirectory
from serving.engine.ports import HeldPort, written
from serving.engine.report import Addresses
from serving.engine.supervised import Heard, ProcessSpec, explain_full_disk
from serving.errors import EngineError
from serving.unix_http import ask

__all__ = [
    "DRAIN_GRACE_SECONDS",
    "ROOM",
    "ROOM_PER_WORKER",
    "Launch",
    "Options",
    "Programs",
    "hold_ports",
    "is_ok",
]

DRAIN_GRACE_SECONDS: Final = 2.0
"""A worker's own `limits.drain_timeout` passes first; what is left after this is killed."""

ROOM: Final = 16 << 20
"""Free bytes on the data directory's disk: a store, a journal, small models, some to spare."""

ROOM_PER_WORKER: Final = 4 << 20
"""Its metrics file (`serving.metrics.MetricsFile`)."""

_MODULE: Final = (sys.executable, "-P", "-m")  # -P: the working directory holds no modules


class Programs(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, before the arguments that every such program takes.

    The store's address comes in the environment, as `STORE_VARIABLE`.
    """

    worker: tuple[str, ...] = (*_MODULE, "serving.worker.process")
    control: tuple[str, ...] = (*_MODULE, "serving.control.process")
    host: tuple[str, ...] = (*_MODULE, "serving.worker.host")
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


def hold_ports(options: Options) -> tuple[Addresses, list[HeldPort]]:
    """Take the listeners' ports, and learn their numbers where 0 was asked for.

    Raises:
        EngineError: One is taken or cannot be bound; the message names it. None is held then.
    """
    wanted = {"http": options.http, "grpc": options.grpc, "admin": options.admin}
    held: list[HeldPort] = []
    found: dict[str, str] = {}
    try:
        for name, text in wanted.items():
            option = f"listen.{name}"
            try:
                address = parse_address(text)
            except ValueError as error:
                raise EngineError(f"{option}: {error}") from error
            held.append(HeldPort(address, option, shared=name != "admin"))
            found[name] = written(held[-1].address)
    except BaseException:
        for port in held:
            port.close()
        raise
    return Addresses(**found), held


class Launch:
    """Builds the specification of each process on one data directory.

    Args:
        options: what to serve and how patient to be.
        programs: what to run.
        directory: where its sockets are.
        addresses: the listeners' real ones.
        store_url: the store's address.
    """

    def __init__(
        self,
        options: Options,
        programs: Programs,
        directory: DataDirectory,
        *,
        addresses: Addresses,
        store_url: str,
    ) -> None:
        self._options = options
        self._programs = programs
        self._directory = directory
        self._addresses = addresses
        self._store_url = store_url

    def control(self, *more: str, generation: int = 0) -> ProcessSpec:
        """The control process, to go by the settings of a generation."""
        forced = ("--insecure-bind",) if self._options.insecure_bind else ()
        return self._spec(
            "control",
            self._programs.control,
            ("--admin", self._addresses.admin, *forced, *_of(generation), *more),
            socket=self._directory.control_socket,
            silent_seconds=self._options.control_silent_seconds,
            drain_seconds=self._options.drain_seconds,
        )

    def worker(self, number: int, generation: int = 0) -> ProcessSpec:
        """Worker `number`, to go by the settings of a generation."""
        addresses, name = self._addresses, f"worker-{number}"
        own = ("--worker", str(number), "--http", addresses.http, "--grpc", addresses.grpc)
        spec = self._spec(
            name,
            self._programs.worker,
            (*own, *_of(generation)),
            socket=self._directory.worker_socket(number),
            silent_seconds=self._options.worker_silent_seconds,
            drain_seconds=self._drain_seconds(generation),
        )
        return msgspec.structs.replace(spec, autopsy=Autopsy(self._directory.path, name))

    def host(self, spec: HostSpec, number: int, generation: int = 0) -> ProcessSpec:
        """One process of a dedicated version, to go by the settings of a generation."""
        run = self._directory.run
        socket = private_socket(run, spec.id, number)
        return self._spec(
            host_name(spec.id, number),
            self._programs.host,
            ("--host", spec.id, "--number", str(number), *_of(generation)),
            socket=socket,
            silent_seconds=self._options.worker_silent_seconds,
            drain_seconds=self._drain_seconds(generation),
            others=(data_socket(run, spec.id, number),),
        )

    def _drain_seconds(self, generation: int) -> float:
        applied = read_applied(self._directory.path, generation)
        if applied is None:
            return self._options.drain_seconds
        return applied.gateway.limits.drain_timeout + DRAIN_GRACE_SECONDS

    def _spec(
        self,
        name: str,
        program: tuple[str, ...],
        arguments: tuple[str, ...],
        *,
        socket: Path,
        silent_seconds: float,
        drain_seconds: float,
        others: tuple[Path, ...] = (),
    ) -> ProcessSpec:
        shared = (
            *("--data", str(self._directory.path)),
            *("--config", str(self._options.configuration.absolute())),
            *("--parent", str(os.getpid())),
        )
        return ProcessSpec(
            name=name,
            command=(*program, *shared, *arguments),
            environment={STORE_VARIABLE: self._store_url},
            probe=_health_of(socket, silent_seconds),
            silent_seconds=silent_seconds,
            start_seconds=self._options.start_seconds,
            drain_seconds=drain_seconds,
            prepare=_without(socket, *others),
            explain=explain_full_disk,
        )


def _of(generation: int) -> tuple[str, ...]:
    return ("--generation", str(generation)) if generation else ()


async def is_ok(socket: Path, target: str, timeout_seconds: float) -> bool:
    """Whether a process answers 200 on its private socket."""
    answer = await ask(socket, target, timeout_seconds=timeout_seconds)
    return answer is not None and answer.status == 200


def _health_of(socket: Path, timeout_seconds: float) -> Callable[[], Awaitable[Heard]]:
    async def probe() -> Heard:
        ok = await is_ok(socket, "/healthz", timeout_seconds)
        return Heard.WELL if ok else Heard.NOTHING

    return probe


def _without(*sockets: Path) -> Callable[[], Awaitable[None]]:
    async def prepare() -> None:
        for socket in sockets:
            socket.unlink(missing_ok=True)

    return prepare
