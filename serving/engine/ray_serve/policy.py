"""Serve's autoscaling policy for `Gateway`: hands the workers' reports to `autoscale.decide`.

Serve pickles this module by value and calls the object in its controller, every 0.1 s: no I/O.

What the policy is built with is part of what Serve takes for the code's version, so other values
there would replace every replica. Those that are applied later come with the workers' reports,
and the bounds with Serve's own configuration.
"""

from typing import Any, Final

from msgspec.structs import replace

from serving.engine.autoscale import Load, Scaling, decide

__all__ = ["GatewayPolicy"]

_TOLD: Final = ("target_busy", "target_in_flight", "upscale_delay", "downscale_delay")


class GatewayPolicy:
    """Built once in the controller, with the settings of `engine.workers`."""

    def __init__(self, **settings: Any) -> None:
        self._scaling = Scaling(**settings)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Decide the number of replicas; `context` is Serve's `AutoscalingContext`."""
        metrics = context.aggregated_metrics or {}
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
