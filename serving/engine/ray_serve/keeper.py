"""A replica's process: claimed number, supervision, readiness, and a report for the launcher."""

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from serving.clock import SystemClock
from serving.config.applied import read_failure, startable
from serving.config.hosts import HostSpec, private_socket, read_hosts
from serving.config.keys import DATA_VARIABLE
from serving.config.load import load_gateway
from serving.engine.directory import DataDirectory
from serving.engine.embedded_store import EmbeddedStore
from serving.engine.host_fleet import demand_of
from serving.engine.lifecycle import State
from serving.engine.node_follower import NodeFollower
from serving.engine.programs import DRAIN_GRACE_SECONDS, Launch, Options, Programs, is_ok
from serving.engine.ray_serve import demand
from serving.engine.ray_serve.kept import Kept, claim_number, print_line
from serving.engine.ray_serve.succession import Succession
from serving.engine.refusals import OwnRefusal, refusals_of_all, what_workers_say
from serving.engine.report import Addresses
from serving.engine.rolling import retire
from serving.errors import EngineError
from serving.tasks import end
from serving.unix_http import ask

__all__ = ["STOPPING", "HostSite", "Keeper", "Site", "in_session", "is_of"]

STOPPING: Final = "stopping"
"""In DATA/run while the launcher ends the gateway: no sibling stays to take connections."""

_POLL_SECONDS: Final = 0.05
_REFUSAL_SECONDS: Final = 0.5
_GIVE_UP_FAILURES: Final = 3
_LISTED_SECONDS: Final = 15.0


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment is told; plain values, because they travel as Serve's `args`.

    `incarnation` names this start, in a replica together with the Ray it is on (`in_session`): a
    control process that comes back within it goes on with what was applied last, one of another
    start reads the configuration directory again.
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


def in_session(site: Site, session: str) -> Site:
    """The same start, on one Ray: its name alone is the same on Kubernetes' next cluster too.

    Ray keeps its session's name when its head is lost and comes back.
    """
    return msgspec.structs.replace(site, incarnation=f"{site.incarnation}@{session}")


def is_of(engine: str, incarnation: str) -> bool:
    """Whether orders for `engine` are for the start that a launcher knows by this name."""
    return engine.partition("@")[0] == incarnation


class Keeper:
    """Keeps one process of a gateway, from `start` to `stop`.

    Args:
        site: what its replica was told.
        role: `worker`, `control` or `host`.
        replica: names its replica.
        node: the address of its node, as Ray knows it.

    Raises:
        EngineError: `gateway.yaml` is not there any more or has mistakes.
    """

    def __init__(self, site: Site, *, role: str, replica: str, node: str) -> None:
        gateway = load_gateway(Path(site.configuration))
        data = Path(os.environ.get(DATA_VARIABLE) or site.data)
        self.directory: Final = DataDirectory(data)
        self.directory.visit()
        self._site = site
        self._role = role
        self._replica = replica
        self._node = node
        store = store_of(gateway.store, self.directory)
        options = Options(
            configuration=Path(site.configuration),
            data=data,
            insecure_bind=site.insecure_bind,
            drain_seconds=gateway.limits.drain_timeout + DRAIN_GRACE_SECONDS,
        )
        self._launch = Launch(
            options,
            Programs(),
            self.directory,
            addresses=Addresses(http=site.http, grpc=site.grpc, admin=site.admin),
            store_url=store,
        )
        self._succession = Succession(
            self.directory.path,
            site.incarnation,
            make=self._make,
            refused=self._refusal_of,
            start_seconds=options.start_seconds,
        )
        self._follower = NodeFollower(
            self.directory.path, site.incarnation, store, clock=SystemClock(), say=_say
        )
        self._current: Kept | None = None
        self._following: list[asyncio.Task[None]] = []
        self._measured: tuple[float, float] | None = None
        self._own_refusal = OwnRefusal()

    def _make(self, generation: int) -> Kept:
        """A process of a generation, not started."""
        run, replica, site = self.directory.run, self._replica, self._site
        if self._role == "control":
            incarnation = ("--incarnation", site.incarnation)
            spec = self._launch.control(*incarnation, generation=generation)
            socket = self.directory.control_socket
            return Kept(spec, run, socket=socket, replica=replica, generation=generation)
        if isinstance(site, HostSite):
            host = _host_of(self.directory.path, site.host)
            number, lock = claim_number(run, f"host-{host.id}")
            return Kept(
                self._launch.host(host, number, generation),
                run,
                socket=private_socket(run, host.id, number),
                replica=replica,
                generation=generation,
                number=number,
                lock=lock,
                serves=host.name,
            )
        number, lock = claim_number(run, "worker")
        return Kept(
            self._launch.worker(number, generation),
            run,
            socket=self.directory.worker_socket(number),
            replica=replica,
            generation=generation,
            number=number,
            lock=lock,
        )

    @property
    def _kept(self) -> Kept:
        if self._current is None:
            raise EngineError("the process has not been started")
        return self._current

    async def start(self) -> None:
        """Start the process and return when it serves.

        Raises:
            EngineError: It keeps dying, died for a reason that trying again will not change, or
                refuses what control published.
        """
        await self._follower.catch_up()
        if isinstance(self._site, HostSite):
            await self._until_listed(self._site.host)
        self._current = await asyncio.to_thread(self._make, await asyncio.to_thread(self._ordered))
        self._kept.member.start()
        judged = time.monotonic()
        try:
            while not await is_ok(self._kept.member.socket, "/readyz", 1.0):
                self._raise_if_hopeless()
                if time.monotonic() - judged > _REFUSAL_SECONDS:
                    await self._raise_if_refused()
                    judged = time.monotonic()
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            await self.stop()
            raise
        follow = self._succession.control if self._role == "control" else self._succession.worker
        self._following = [
            asyncio.create_task(follow(lambda: self._kept, self._put)),
            asyncio.create_task(self._follower.run()),
        ]

    def _ordered(self) -> int:
        """The generation to start with."""
        orders = self._succession.orders()
        if self._role == "control":
            return orders.control if orders is not None else 0
        return startable(orders, read_failure(self.directory.path))

    async def _until_listed(self, host: str) -> None:
        """Wait for a version that control has listed: the list may come after the replica."""
        until = time.monotonic() + _LISTED_SECONDS
        while time.monotonic() < until:
            listed = await asyncio.to_thread(read_hosts, self.directory.path)
            if any(spec.id == host for spec in listed):
                return
            await asyncio.sleep(_REFUSAL_SECONDS)
            await self._follower.catch_up()

    def _put(self, kept: Kept) -> None:
        self._current = kept
        self._measured = None

    async def stop(self) -> None:
        """Drain the process; nothing of it is left afterwards."""
        await end(*self._following)
        if self._current is None:
            return
        if self._role == "control" or (self.directory.run / STOPPING).exists():
            await self._kept.process.stop()
        else:
            # Only this worker goes: its siblings take over its connections.
            await retire(self._kept.member)
        self._kept.forget()

    def raise_if_unhealthy(self) -> None:
        """For Serve's health check: whether this replica still keeps its process.

        A process that died is started again here, within a fraction of a second; Serve only
        has to replace the replica when that does not help.

        Raises:
            EngineError: The process fails again and again, or nobody supervises it.
        """
        task = self._kept.task
        # Control is between two lives while it is started again.
        replaced = self._role == "control" and self._kept.process.state is State.STOPPED
        if task is not None and task.done() and not replaced:
            raise EngineError(f"{self._kept.member.name} is not supervised any more")
        self._raise_if_hopeless()

    async def load(self) -> dict[str, float]:
        """The process's share of a core since the last call, and its requests in flight.

        A worker's also holds, per dedicated version, the requests that want one of its hosts, and
        the settings that the scaling policy is to go by, if they were changed.
        """
        return {**await self._load(), **await self._demand(), **self._succession.scaling}

    async def _demand(self) -> dict[str, float]:
        if self._role != "worker":
            return {}
        demands = await demand_of([self._kept.member.socket])
        return {demand.name_of(id_, self._node): number for id_, number in demands.items()}

    async def _load(self) -> dict[str, float]:
        answer = await ask(self._kept.member.socket, "/load", timeout_seconds=1.0)
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
        process = self._kept.process
        report = process.report
        if process.explanation and report.state is State.BACKING_OFF:
            raise EngineError(f"{report.name} does not start: {process.explanation}")
        if report.failures >= _GIVE_UP_FAILURES and report.state in {
            State.STARTING,
            State.BACKING_OFF,
        }:
            words = "; ".join(list(process.last_lines)[-3:]) or "no last words"
            raise EngineError(
                f"{report.name} failed {report.failures} times in a row, last with "
                f"{report.last_exit}: {words}"
            )

    async def _raise_if_refused(self) -> None:
        if reason := await self._refusal_of(self._kept):
            raise EngineError(f"no worker can serve the configuration: {reason}")

    async def _refusal_of(self, kept: Kept) -> str:
        """Why a worker will not serve what is published; empty if it will, or has not said."""
        if self._role == "control":
            return ""
        if not self.directory.control_socket.exists():
            return await self._own_refusal.of(kept.member.socket, kept.process.report.pid)
        revision, words = await what_workers_say(self.directory)
        name = kept.member.name
        reasons = refusals_of_all(revision, words, {name: kept.process.report.pid})
        return reasons[0] if reasons else ""


def _say(line: str) -> None:
    print_line("node", line)


def _host_of(data: Path, id_: str) -> HostSpec:
    for spec in read_hosts(data):
        if spec.id == id_:
            return spec
    raise EngineError(f"no version with the id {id_} is to be served by hosts any more")


def store_of(configured: str, directory: DataDirectory) -> str:
    """The store's address: the configured one, or the launcher's own server on this machine."""
    if configured != "embedded":
        return configured
    return EmbeddedStore(directory.store, Path()).url
