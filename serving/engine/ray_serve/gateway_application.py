"""The gateway as a Serve application: control and the workers."""

from typing import Any, Final

from serving.config.schema import EngineConfig, WorkersConfig
from serving.engine.programs import Options
from serving.engine.ray_serve.cluster import application
from serving.engine.ray_serve.keeper import Site
from serving.engine.ray_serve.scaling import as_range, scaling
from serving.engine.report import Addresses

__all__ = ["NAME", "gateway_application", "patience_of", "site_of"]

NAME: Final = "sluice"
_IMPORT_PATH: Final = "serving.engine.ray_serve.deployments:build"
_SLACK_SECONDS: Final = 5.0
_HEALTH_SECONDS: Final = 2.0


def site_of(options: Options, addresses: Addresses, incarnation: str) -> Site:
    """What its replicas are told."""
    return Site(
        configuration=str(options.configuration.absolute()),
        data=str(options.data.absolute()),
        http=addresses.http,
        grpc=addresses.grpc,
        admin=addresses.admin,
        incarnation=incarnation,
        insecure_bind=options.insecure_bind,
    )


def patience_of(options: Options) -> dict[str, Any]:
    """Serve's bounds on starts, stops and health checks, for every deployment."""
    return {
        "graceful_shutdown_timeout_s": options.drain_seconds + _SLACK_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
        "health_check_period_s": _HEALTH_SECONDS,
        "health_check_timeout_s": _HEALTH_SECONDS * 2,
        "max_constructor_retry_count": 2,
    }


def gateway_application(
    site: Site, config: EngineConfig, at_start: WorkersConfig, patience: dict[str, Any]
) -> dict[str, Any]:
    """The application.

    Args:
        site: what its replicas are told.
        config: what holds now.
        at_start: how many workers there were to be when it was first deployed.
        patience: from `patience_of`.
    """
    control = {
        "name": "Control",
        "num_replicas": 1,
        "ray_actor_options": {
            "num_cpus": 0,
            # Ray gives this resource to the node with its head, and to no other.
            "resources": {"node:__internal_head__": 0.001},
        },
        **patience,
    }
    gateway = {
        "name": "Gateway",
        "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": config.worker_cpus},
        **scaling(as_range(config.workers), at_start),
        **patience,
    }
    return application(NAME, _IMPORT_PATH, site, [control, gateway])
