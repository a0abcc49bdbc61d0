"""Serve's autoscaling policies: hand what processes report to `autoscale.decide`.

Serve pickles this module by value and calls the objects in its controller, every 0.1 s: no I/O.

What a policy is built with is part of what Serve takes for the code's version, so other values
there would replace every replica. Those that are applied later come with the workers' reports,
and the bounds with Serve's own configuration.
"""

from typing import Any, Final

from msgspec.structs import replace

from serving.engine.autoscale import Load, Scaling, decide

__all__ = ["GatewayPolicy", "HostPolicy"]

_TOLD: Final = ("target_busy", "target_in_flight", "upscale_delay", "downscale_delay")


class GatewayPolicy:
    """For the workers; built once in the controller, with the settings of `engine.workers`."""

    def __init__(self, **settings: Any) -> None:
        self._scaling = Scaling(**settings)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Decide the number of replicas; `context` is Serve's `AutoscalingContext`."""
        from serving.engine.ray_serve import demand  # noqa: PLC0415 - see there

        metrics = context.aggregated_metrics or {}
        demand.tell(metrics, context.current_time)
        current = context.target_num_replicas
        busy = metrics.get("busy") or {}
        if not busy:
            return current, dict(context.policy_state or {})
        # Replicas that have not reported yet carry what the others do not.
        told = {name: max(metrics[name].values()) for name in _TOLD if metrics.get(name)}
        scaling = replace(
            self._scaling,
            min=context.capacity_adjusted_min_replicas,
            max=context.capacity_adjusted_max_replicas,
            **told,
        )
        load = Load(
            busy=sum(busy.values()), in_flight=sum((metrics.get("in_flight") or {}).values())
        )
        return decide(load, scaling, current, context.current_time, context.policy_state or {})


class HostPolicy:
    """For the hosts of one dedicated version, with the settings of `serve.hosts`.

    Args:
        host: the version's id, see `serving.config.hosts`.
        node: whose workers these hosts are for; empty: everybody's.
        settings: fields of `Scaling`, without the bounds.
    """

    def __init__(self, *, host: str, node: str = "", **settings: Any) -> None:
        self._host = host
        self._node = node
        self._scaling = Scaling(**settings)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Decide the number of replicas; who waits is in the workers, who is busy in the hosts."""
        from serving.engine.ray_serve import demand  # noqa: PLC0415 - see there

        metrics = context.aggregated_metrics or {}
        load = Load(
            busy=sum((metrics.get("busy") or {}).values()),
            in_flight=demand.of(self._host, context.current_time, self._node),
        )
        bounds = {
            "min": context.capacity_adjusted_min_replicas,
            "max": context.capacity_adjusted_max_replicas,
        }
        return decide(
            load,
            replace(self._scaling, **bounds),
            context.target_num_replicas,
            context.current_time,
            context.policy_state or {},
        )
