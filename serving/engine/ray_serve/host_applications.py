"""Dedicated versions as Serve applications: one each, so that they come and go alone.

Workers reach hosts over Unix sockets, so on a cluster that may have several nodes each node has
hosts of its own: an application for each version and node.
"""

from typing import Any, Final

import msgspec

from serving.config.hosts import HostSpec, scaling_of
from serving.engine.ray_serve.cluster import application
from serving.engine.ray_serve.keeper import HostSite, Site
from serving.engine.ray_serve.scaling import autoscaled

__all__ = ["host_app", "host_application", "least_cpus"]

_IMPORT_PATH: Final = "serving.engine.ray_serve.deployments:build_host"


def host_app(spec: HostSpec, node: str = "") -> str:
    """The name of a version's application. `node` is an address, empty where there is but one."""
    return f"sluice-host-{spec.id}{'-' if node else ''}{node}"


def host_application(
    site: Site, spec: HostSpec, patience: dict[str, Any], node: str = ""
) -> dict[str, Any]:
    """The application that keeps the processes of one version.

    Args:
        site: of the gateway.
        spec: the version.
        patience: Serve's bounds on starts, stops and health checks.
        node: the address of the node that they are on and for; empty where there is but one.
    """
    scaling = scaling_of(spec)
    # Not the bounds: they change whenever the version gets or loses its traffic.
    settings = {"host": spec.id, "node": node, **msgspec.structs.asdict(scaling)}
    del settings["min"], settings["max"]
    # Ray gives each node a resource of this name.
    place = {"resources": {f"node:{node}": 0.001}} if node else {}
    return application(
        host_app(spec, node),
        _IMPORT_PATH,
        HostSite(**msgspec.structs.asdict(site), host=spec.id),
        [
            {
                "name": "Host",
                "max_surge_percent": 100,
                "ray_actor_options": {"num_cpus": float(spec.serve.host_cpus), **place},
                **autoscaled((scaling.min, scaling.max), "HostPolicy", settings),
                **patience,
            }
        ],
    )


def least_cpus(specs: list[HostSpec]) -> float:
    """CPUs that the processes which always run reserve, on one node."""
    return sum(scaling_of(spec).min * float(spec.serve.host_cpus) for spec in specs)
