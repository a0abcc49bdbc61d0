"""Dedicated versions as Serve applications: one each, so that they come and go alone."""

from typing import Any, Final

import msgspec

from serving.config.hosts import HostSpec, scaling_of
from serving.engine.autoscale import AVERAGED_SECONDS, REPORT_SECONDS, Scaling
from serving.engine.ray_serve.cluster import application
from serving.engine.ray_serve.keeper import HostSite, Site

__all__ = ["host_app", "host_application", "least_cpus"]

_IMPORT_PATH: Final = "serving.engine.ray_serve.deployments:build_host"


def host_app(spec: HostSpec) -> str:
    """The name of a version's application."""
    return f"sluice-host-{spec.id}"


def host_application(site: Site, spec: HostSpec, patience: dict[str, Any]) -> dict[str, Any]:
    """The application that keeps the processes of one version.

    Args:
        site: of the gateway.
        spec: the version.
        patience: Serve's bounds on starts, stops and health checks.
    """
    scaling = Scaling(**msgspec.structs.asdict(scaling_of(spec)))
    return application(
        host_app(spec),
        _IMPORT_PATH,
        HostSite(**msgspec.structs.asdict(site), host=spec.id),
        [
            {
                "name": "Host",
                "max_surge_percent": 100,
                "ray_actor_options": {"num_cpus": float(spec.serve.host_cpus)},
                # Without `initial_replicas`: Serve goes back to that with every change of bounds.
                "autoscaling_config": {
                    "min_replicas": scaling.min,
                    "max_replicas": scaling.max,
                    "metrics_interval_s": REPORT_SECONDS,
                    "look_back_period_s": AVERAGED_SECONDS,
                    # The policy has delays of its own.
                    "upscale_delay_s": 0.0,
                    "downscale_delay_s": 0.0,
                    "policy": {
                        "policy_function": "serving.engine.ray_serve.policy:HostPolicy",
                        "policy_kwargs": {"host": spec.id, **_plain(scaling)},
                    },
                },
                **patience,
            }
        ],
    )


def least_cpus(specs: list[HostSpec]) -> float:
    """CPUs that the processes which always run reserve."""
    return sum(scaling_of(spec).min * float(spec.serve.host_cpus) for spec in specs)


def _plain(scaling: Scaling) -> dict[str, int | float]:
    return {
        name: float(value) if isinstance(value, float) else value
        for name, value in msgspec.structs.asdict(scaling).items()
        if name not in {"min", "max"}
    }
