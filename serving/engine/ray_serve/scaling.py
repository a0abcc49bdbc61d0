"""The number of replicas as Serve is told it: a range, also where it is fixed.

Serve takes the policy's arguments for part of the code: with other ones it replaces every replica.
So they stay what they were at the start, what is applied later reaches the policy with the
workers' reports (`policy`), and the bounds are Serve's own, which it changes in place. A fixed
number is a range of one, so that it can become a wider one the same way. `initial_replicas` is left
out, because Serve sets the number to it whenever bounds change.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from serving.config.schema import WorkersConfig
from serving.engine.autoscale import AVERAGED_SECONDS, REPORT_SECONDS

__all__ = ["as_range", "autoscaled", "scaling"]


def as_range(workers: int | WorkersConfig) -> WorkersConfig:
    """A number is a range of one."""
    return WorkersConfig(min=workers, max=workers) if isinstance(workers, int) else workers


def scaling(workers: WorkersConfig, at_start: WorkersConfig) -> dict[str, Any]:
    """The options of the deployment `Gateway` that say how many replicas there are.

    Args:
        workers: what holds now.
        at_start: what held when the application was first deployed.
    """
    settings = msgspec.structs.asdict(at_start)
    return autoscaled((workers.min, workers.max), "GatewayPolicy", settings)


def autoscaled(bounds: tuple[int, int], policy: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a deployment that a policy scales.

    Args:
        bounds: least and most replicas.
        policy: a class of `policy`.
        settings: what that is built with; plain values, durations as floats.
    """
    least, most = bounds
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "metrics_interval_s": REPORT_SECONDS,
            "look_back_period_s": AVERAGED_SECONDS,
            # The policy has delays of its own, the same as in `sluice simulate autoscale`.
            "upscale_delay_s": 0.0,
            "downscale_delay_s": 0.0,
            "policy": {
                "policy_function": f"serving.engine.ray_serve.policy:{policy}",
                "policy_kwargs": {
                    name: float(value) if isinstance(value, float) else value
                    for name, value in settings.items()
                },
            },
        }
    }
