"""The control process: `python -m serving.control.process`; started by an engine.

It owns the configuration, the admin port and a private socket, and exits 0 on SIGTERM. While it
is away predictions go on: workers need it only to hear of changes.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import uvloop

from feature_cache.views import FeatureView
from serving import logs
from serving.clock import SystemClock
from serving.config.addresses import Address, listener_parts, parse_address
from serving.config.applied import Applied, read_applied, read_pinned
from serving.config.effects import taken_over
from serving.config.load import load_gateway
from serving.config.schema import ModelConfig, TlsConfig
from serving.config.store_argument import add_store_argument
from serving.control.admin.access import Access, ensure_admin_token
from serving.control.admin.application import Listener, build, operations_of
from serving.control.admin.server import (
    BACKLOG,
    AdminServer,
    admin_server,
    bound_address,
    public_socket,
    tls_options,
)
from serving.control.audit import AuditLog
from serving.control.features.streams import FeatureStreams
from serving.control.features.writer import FeatureWriter
from serving.control.fleet.director import Director
from serving.control.fleet.rolls import Rolls
from serving.control.labels.desk import LabelDesk
from serving.control.plane import ControlPlane
from serving.control.publishing.compile import Compiled, compile_configuration
from serving.control.publishing.journal import Journal
from serving.control.publishing.publisher import Publisher
from serving.control.rollouts.evidence import Evidence
from serving.control.rollouts.labels import RolloutLabels
from serving.control.rollouts.observer import BookObserver
from serving.control.stores.redis_store import RedisStore
from serving.control.training.candidate_gate import CandidateGate
from serving.control.training.deliveries import Courier
from serving.errors import InvalidConfig, SluiceError
from serving.files import write_whole
from serving.heap import give_back_large_blocks
from serving.lifeline import die_with_parent
from serving.tasks import end
from serving.unix_socket import bound_for_owner

__all__ = ["Control", "main", "parse_arguments"]

_REFRESH_SECONDS: Final = 1.0


class Control:
    """Wires the control plane together and owns its life.

    Raises:
        InvalidConfig: the address must not be bound like this, or a file it needs is unfit.
        OSError: the address cannot be bound.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._data = Path(arguments.data)
        self._root = Path(arguments.config)
        self._engine: str = arguments.incarnation or _incarnation(arguments.parent)
        self._insecure: bool = arguments.insecure_bind
        (self._data / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(self._data / "journal")
        self._log = logging.getLogger("control")
        rolls = Rolls(self._data, self._engine, arguments.generation, self._log)
        running = _running(self._data, self._root, journal, rolls)
        # Where tokens and certificates are. `self._root` stays what the engine was started with.
        files = Path(running.directory)
        gateway = self.gateway = running.gateway
        self.address = ""
        """`host:port` of the admin port, with the real port, once it is bound."""
        self._store = RedisStore(arguments.store)
        clock = SystemClock()
        self.publisher = Publisher(
            store=self._store,
            journal=journal,
            compile_directory=self._compile,
            gateway=gateway,
            directory=running.directory,
            rolls=rolls,
            data=self._data,
            clock=clock,
            log=self._log,
        )
        # Only where an engine names its start can there be other nodes.
        self._director = (
            Director(self._store, self._data, rolls, clock=clock, log=self._log)
            if arguments.incarnation
            else None
        )
        self._features = FeatureWriter(gateway.features, arguments.store, self._views, clock)
        self._labels = LabelDesk(
            models=self._models,
            gateway=lambda: self.publisher.running.gateway,
            data=self._data,
            clock=clock,
        )
        self.publisher.candidates.gate = CandidateGate(
            self._labels, current=lambda: self.publisher.current, clock=clock
        )
        self._audit = AuditLog(self._data / "journal", clock)
        self._evidence = Evidence(self._store, self._data / "rollouts", clock, self._log)
        self._loss_labels = RolloutLabels(
            gateway=lambda: self.publisher.running.gateway, data=self._data, clock=clock
        )
        self._address = parse_address(arguments.admin)
        self._plane = ControlPlane(
            publisher=self.publisher,
            features=self._features,
            labels=self._labels,
            audit=self._audit,
            courier=Courier(
                loopback=self._address.is_loopback,
                hosts=lambda: self.publisher.running.gateway.notify.hosts,
            ),
            store=self._store,
            observer=BookObserver(self._evidence, self._loss_labels, clock),
            data=self._data,
            version=_version(),
            clock=clock,
        )
        self._tls = listener_parts(gateway.listen.admin)[1]
        self._files = files
        tokens = files / gateway.auth.tokens if gateway.auth is not None else None
        _refuse_open_bind(self._address, self._tls, tokens, insecure=self._insecure)
        token = ensure_admin_token(self._data / "admin.token")
        self._access = Access(admin_token=token, tokens=tokens, loopback=self._address.is_loopback)
        # Who can open the private socket owns the data directory: like loopback.
        self._private_access = Access(admin_token=token, tokens=tokens, loopback=True)
        self._stop = asyncio.Event()

    def _views(self) -> Mapping[str, FeatureView]:
        current = self.publisher.current
        return current.views if current is not None else {}

    def _models(self) -> Mapping[str, ModelConfig]:
        current = self.publisher.current
        return current.models if current is not None else {}

    def _compile(self, directory: Path) -> Compiled:
        return compile_configuration(directory, self._data, insecure=self._insecure)

    async def run(self) -> None:
        """Serve until SIGTERM. Raises InvalidConfig if there is nothing that could be served."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        # Ctrl-C reaches the whole terminal group; the engine decides what it means for us.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        private_path = self._data / "run" / "control.sock"
        public, private = (
            public_socket(self._address),
            bound_for_owner(private_path, backlog=BACKLOG),
        )
        servers = self._servers()
        self._features.start()
        listening = [
            loop.create_task(server.serve(sockets=[bound]))
            for server, bound in zip(servers, (public, private), strict=True)
        ]
        work = [
            loop.create_task(self._publish()),
            loop.create_task(self._plane.keep()),
            loop.create_task(self._plane.keep_quarantine(self._audit)),
            loop.create_task(self._plane.drift.keep()),
            loop.create_task(self._plane.harm.keep()),
            loop.create_task(self._plane.retraining.keep()),
            loop.create_task(self._plane.notices.keep()),
            loop.create_task(self._plane.rollouts.keep()),
            loop.create_task(self._refresh()),
            loop.create_task(FeatureStreams(self._features).keep()),
            *([] if self._director is None else [loop.create_task(self._director.keep())]),
        ]
        stopping = loop.create_task(self._stop.wait())
        self.address = bound_address(public)
        self._plane.address = f"{'https' if self._tls else 'http'}://{self.address}"
        self._log.info("admin: %s", self._plane.address)
        try:
            await asyncio.wait({*listening, *work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*listening, return_exceptions=True)
            await end(*work, stopping)
            await self._features.close()
            await self._labels.close()
            await self._loss_labels.close()
            self._plane.rollouts.log.close()
            await self._store.close()
            private_path.unlink(missing_ok=True)
        for task in (*listening, *work):
            if not task.cancelled():
                task.result()  # what ended by itself did so with an error

    def _servers(self) -> list[AdminServer]:
        operations = operations_of(self._plane)
        public = Listener(host=self._address.host, access=self._access, tls=self._tls is not None)
        private = Listener(host="localhost", access=self._private_access)
        return [
            admin_server(
                build(operations, public, self._audit), tls_options(self._files, self._tls)
            ),
            admin_server(build(operations, private, self._audit), {}),
        ]

    async def _publish(self) -> None:
        epoch = self._data / "run" / "control.epoch"
        engine = self._engine
        restarted = engine != "" and _read(epoch) == engine
        await self.publisher.start(None if restarted else self._root)
        try:
            await asyncio.to_thread(write_whole, epoch, engine.encode())
        except OSError as error:  # a restart then reads the directory again
            self._log.warning("control.epoch cannot be written: %s", error.strerror)
        await self.publisher.upkeep.keep()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            self._access.refresh()
            self._private_access.refresh()


def _running(data: Path, root: Path, journal: Journal, rolls: Rolls) -> Applied:
    """What was applied last under this engine, else what `gateway.yaml` says.

    If that is broken now, it is what it said when something was last published. An apply that was
    journaled and not ordered any more, because control died in between, is ordered now.
    """
    before = rolls.applied or _at_start(data, root, journal)
    journaled = journal.last.generation if journal.last is not None else 0
    if journaled > rolls.latest and (applied := read_applied(data, journaled)) is not None:
        rolls.follow(before, applied, journaled)
        return applied
    return before


def _at_start(data: Path, root: Path, journal: Journal) -> Applied:
    """What the engine was started with: as a worker has read it already, or as we read it now."""
    gateway = read_pinned(data)
    if gateway is None:
        try:
            gateway = load_gateway(root)
        except InvalidConfig:
            if journal.last is None:
                raise
            gateway = journal.last.gateway
    return Applied(gateway=taken_over(gateway, gateway), directory=str(root))


def _refuse_open_bind(
    address: Address, tls: TlsConfig | None, tokens: Path | None, *, insecure: bool
) -> None:
    if not (address.is_loopback or tls is not None or tokens is not None or insecure):
        raise InvalidConfig(
            "listen.admin: beyond loopback it needs `tls` or `auth.tokens`; "
            "or force it by name with --insecure-bind"
        )


def _incarnation(pid: int | None) -> str:
    """Name one process of this boot, so that a pid that is used again is another; or nothing."""
    if pid is None:
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot} {pid} {fields[19]}"  # start time in clock ticks, see proc(5)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _version() -> str:
    try:
        return metadata.version("sluice-gateway")
    except metadata.PackageNotFoundError:
        return "0"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line that engines write."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.control.process",
        description="The control process. An engine starts it; see `sluice up`.",
    )
    parser.add_argument("--data", required=True, help="data directory")
    parser.add_argument("--config", required=True, help="configuration directory")
    parser.add_argument("--admin", required=True, help="host:port of the admin port")
    add_store_argument(parser)
    parser.add_argument("--parent", type=int, help="exit when this process does")
    parser.add_argument(
        "--incarnation", default="", help="names the engine's start [default: the parent's]"
    )
    parser.add_argument(
        "--generation", type=int, default=0, help="what this start counts as [default: 0]"
    )
    parser.add_argument(
        "--insecure-bind", action="store_true", help="allow listeners beyond loopback unprotected"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM (exit 0), or say on standard error why that is impossible (exit 1)."""
    arguments = parse_arguments(argv)
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    give_back_large_blocks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    try:
        control = Control(arguments)
        settings = control.gateway.logs
        logs.configure(settings.level, settings.format, process="control")
        uvloop.run(control.run())
    except InvalidConfig as error:
        for line in (*map(str, error.problems), f"control: {error.message}"):
            print(line, file=sys.stderr)  # noqa: T201 - the engine shows last words
        return 1
    except SluiceError as error:
        print(f"control: {error.message}", file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"control: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
