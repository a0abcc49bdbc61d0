"""What runs inside Ray: deployments of workers, of control, and of dedicated versions' hosts.

`build` is the import path of the gateway's application, for `sluice up` and for a RayService alike:
`serving.engine.ray_serve.deployments:build`, with the fields of `Site` as `args`. Each dedicated
version is an application of its own, `build_host`: within one application Serve would restart the
workers whenever a version comes or goes.
"""

from typing import Any

import msgspec
import ray
import ray.util
from ray import serve
from ray.serve._private import replica as serve_replica

from serving.engine.ray_serve.keeper import HostSite, Keeper, Site, in_session

__all__ = ["APPLICATION", "build", "build_host"]

APPLICATION = "sluice"


class _Kept:
    """A replica that keeps one process."""

    role = ""
    site: type[Site] = Site

    # Serve awaits it, and starts no second wave before it has returned.
    async def __init__(  # type: ignore[misc]
        self, site: dict[str, Any], *others: Any
    ) -> None:
        del others
        _listen_on_the_nodes_address()
        replica = serve.get_replica_context().replica_id.unique_id
        session = ray.get_runtime_context().get_session_name()
        told = in_session(msgspec.convert(site, self.site), session)
        node = ray.util.get_node_ip_address()
        self._keeper = Keeper(told, role=self.role, replica=replica, node=node)
        await self._keeper.start()

    async def check_health(self) -> None:
        """Serve replaces this replica when it raises."""
        self._keeper.raise_if_unhealthy()

    async def __del__(self) -> None:
        """Serve awaits this when the replica is to stop: the process drains."""
        # Serve also calls it on a replica whose construction failed.
        keeper = getattr(self, "_keeper", None)
        if keeper is not None:
            await keeper.stop()


def _listen_on_the_nodes_address() -> None:
    """Have Serve bind this replica's internal server to its node's address.

    Serve 2.60 binds it to every interface, and that is written into its source; it does so after
    the replica's own `__init__`. A Ray on loopback then has nothing that others can reach.
    """
    bind = serve_replica.add_port_to_grpc_server

    def bind_here(server: Any, address: str) -> Any:
        host = ray.util.get_node_ip_address()
        wanted = f"[{host}]" if ":" in host else host
        return bind(server, address.replace("[::]", wanted))

    serve_replica.add_port_to_grpc_server = bind_here


@serve.deployment(name="Control", ray_actor_options={"num_cpus": 0})
class Control(_Kept):
    """Keeps the control process. One replica, on the head node."""

    role = "control"


@serve.deployment(name="Gateway")
class Gateway(_Kept):
    """Keeps one worker; requests reach that directly, never this replica."""

    role = "worker"

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `GatewayPolicy` decides by."""
        return await self._keeper.load()


def build(args: dict[str, Any]) -> Any:
    """The application. `args` are the fields of `Site`; a missing or unknown one is an error."""
    site = msgspec.to_builtins(msgspec.convert(args, Site))
    return Gateway.bind(site, Control.bind(site))  # type: ignore[attr-defined]


@serve.deployment(name="Host")
class Host(_Kept):
    """Keeps one process of a dedicated version; workers reach that directly."""

    role = "host"
    site = HostSite

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `HostPolicy` decides by, besides the demand in `Gateway`."""
        return await self._keeper.load()


def build_host(args: dict[str, Any]) -> Any:
    """A dedicated version's application. `args` are the fields of `HostSite`."""
    return Host.bind(msgspec.to_builtins(msgspec.convert(args, HostSite)))  # type: ignore[attr-defined]
