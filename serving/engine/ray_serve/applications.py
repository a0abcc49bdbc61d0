"""What Serve is to run for a gateway, and how that follows what is applied.

Control lists dedicated versions in `DATA/hosts.json` and orders another number of workers in
`DATA/run/orders.json`; both are looked at, and deployed. What is as before goes on.
"""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from serving.config.applied import Failure, read_orders, write_failure
from serving.config.hosts import HOSTS_FILE, HostSpec, read_hosts
from serving.config.schema import EngineConfig, WorkersConfig
from serving.engine.log_lines import LineSink
from serving.engine.programs import Options
from serving.engine.ray_serve.cluster import Cluster
from serving.engine.ray_serve.gateway_application import NAME, gateway_application, patience_of
from serving.engine.ray_serve.host_applications import host_app, host_application, least_cpus
from serving.engine.ray_serve.keeper import Site, is_of
from serving.engine.ray_serve.ray_thread import RayThread
from serving.engine.ray_serve.scaling import as_range
from serving.engine.rolling import LOOK_SECONDS
from serving.errors import EngineError, InvalidConfig
from serving.files import stamp

__all__ = ["Applications"]

_FAILED: Final = {"DEPLOY_FAILED"}
_NODES_SECONDS: Final = 1.0
"""How often it is looked whether nodes have come or gone."""


class Applications:
    """Deploys them, on a Ray that has been started.

    Args:
        options: what to serve and how patient to be.
        config: `engine` in `gateway.yaml`, as at the start.
        site: what replicas are told.
        data: the data directory, under the name that its sockets have.
        cluster: where they run.
        ray: makes the calls.
        lines: takes what people should know.
    """

    def __init__(
        self,
        options: Options,
        config: EngineConfig,
        site: Site,
        data: Path,
        *,
        cluster: Cluster,
        ray: RayThread,
        lines: LineSink,
    ) -> None:
        self._options = options
        self._config = config
        self._at_start = as_range(config.workers)
        self._site = site
        self._data = data
        self._cluster = cluster
        self._ray = ray
        self._lines = lines
        self._hosts: list[HostSpec] = []
        self._hosts_stamp: tuple[int, ...] | None = None
        self._nodes: tuple[str, ...] = ("",)
        self._looked = -_NODES_SECONDS
        self._running = False

    @property
    def workers(self) -> WorkersConfig:
        """How many there are to be now."""
        return as_range(self._config.workers)

    @property
    def names(self) -> list[str]:
        """Of what is deployed, in the order in which it is to end."""
        return [NAME, *(host_app(spec, node) for spec, node in self._placed)]

    @property
    def _placed(self) -> list[tuple[HostSpec, str]]:
        """Dedicated versions, and the nodes that have hosts of them."""
        return [(spec, node) for spec in self._hosts for node in self._nodes]

    async def begin(self) -> None:
        """Deploy the gateway. Raises EngineError where it does not fit."""
        await self._ray.call(self._insist_on_fit)
        await self._deploy()

    async def are_up(self) -> bool:
        """Whether the gateway runs.

        Raises:
            EngineError: Serve has given up on it, or on a dedicated version.
        """
        state, why = await self._ray.call(lambda: self._cluster.state(NAME))
        if state == "RUNNING":
            self._running = True
        elif state in _FAILED:
            raise EngineError(f"Ray Serve gave up on the gateway:\n{_reason(why)}")
        else:
            for spec, node in self._placed:
                name = host_app(spec, node)
                state, why = await self._ray.call(partial(self._cluster.state, name))
                if state in _FAILED:
                    raise EngineError(f"Ray Serve gave up on {spec.name}:\n{_reason(why)}")
        return self._running

    async def follow_hosts(self) -> None:
        """Deploy what control has listed, where there are workers, if that is not what is."""
        fresh, nodes = stamp(self._data / HOSTS_FILE), await self._with_workers()
        if (fresh, nodes) == (self._hosts_stamp, self._nodes):
            return
        try:
            listed = read_hosts(self._data)
        except InvalidConfig as error:
            self._lines("engine", f"model hosts stay as they are: {error.message}")
            self._hosts_stamp, self._nodes = fresh, nodes
            return
        needed = self.workers.min * self._config.worker_cpus + least_cpus(listed) * len(nodes)
        cpus = await self._ray.call(self._cluster.cpus)
        if needed > cpus:
            each = f" on each of {len(nodes)} nodes" if len(nodes) > 1 else ""
            words = (
                f"workers and the processes of dedicated versions{each} need {needed:g} CPUs, and "
                f"Ray has {cpus:g}; lower engine.worker_cpus, serve.hosts or serve.host_cpus"
            )
            if not self._running:
                raise EngineError(words)
            self._lines("engine", f"{words}. Some do not start")
        self._hosts, self._nodes = listed, nodes
        await self._deploy()
        self._hosts_stamp = fresh

    async def _with_workers(self) -> tuple[str, ...]:
        """Nodes on which a worker may be, so that hosts are wanted; one without a name if alone."""
        if self._config.address is None or time.monotonic() - self._looked < _NODES_SECONDS:
            return self._nodes
        found = await self._ray.call(self._cluster.nodes)
        self._looked = time.monotonic()
        return tuple(sorted(one for one, cpus in found.items() if cpus >= self._config.worker_cpus))

    async def follow_number(self) -> None:
        """Have Serve keep another number of workers when one is applied, for ever.

        Nothing else of the application changes, so no replica is replaced for it.
        """
        seen = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            orders = await asyncio.to_thread(read_orders, self._data)
            if orders is None or orders.serial == seen:
                continue
            if not is_of(orders.engine, self._site.incarnation):
                continue
            seen = orders.serial
            if orders.number is None or orders.number == self._config.workers:
                continue
            before = self._config
            self._config = replace(before, workers=orders.number)
            try:
                await self._ray.call(self._insist_on_fit)
                await self._deploy()
            except Exception as error:  # noqa: BLE001 - Ray's own errors are of many kinds
                self._config = before
                reason = error.message if isinstance(error, EngineError) else str(error)
                self._lines("engine", f"the number of workers stays: {reason}")
                failure = Failure(serial=orders.serial, reason=reason, kept=orders.workers)
                await asyncio.to_thread(write_failure, self._data, failure)

    async def _deploy(self) -> None:
        site, patience = self._site, patience_of(self._options)
        applications = [
            gateway_application(site, self._config, self._at_start, patience),
            *(host_application(site, spec, patience, node) for spec, node in self._placed),
        ]
        await self._ray.call(partial(self._cluster.deploy, applications))

    def _insist_on_fit(self) -> None:
        cpus, each = self._cluster.cpus(), self._config.worker_cpus
        needed = self.workers.min * each
        if needed > cpus:
            raise EngineError(
                f"{self.workers.min} workers of {each:g} CPUs need {needed:g}, and Ray has "
                f"{cpus:g}; lower engine.workers or engine.worker_cpus in gateway.yaml"
            )
        if self._options.store == "embedded" and (nodes := len(self._cluster.nodes())) > 1:
            raise EngineError(
                f"`store: embedded` serves one machine, and this Ray has {nodes}; set `store` in "
                "gateway.yaml to the address of a server that all of them reach"
            )


def _reason(why: str) -> str:
    """The line of a traceback that says what is wrong, or all of it."""
    wanted = [line.strip() for line in why.splitlines() if "EngineError: " in line]
    return wanted[-1].rpartition("EngineError: ")[2] if wanted else why.strip()[-2000:]
