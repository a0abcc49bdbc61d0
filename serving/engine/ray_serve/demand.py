"""Who waits for hosts, told by the workers' policy to the hosts' policies in Serve's controller.

Applications do not see each other's metrics, and the policies of all of them run in the same
process, one after the other: this module is where they meet. Policies are pickled by value, so
they must import it when they are called, by name.
"""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["PREFIX", "of", "tell"]

PREFIX: Final = "demand:"
"""Before a host's id: the name under which a worker's replica reports it."""

_FRESH_SECONDS: Final = 10.0

_demands: dict[str, tuple[float, float]] = {}


def tell(metrics: Mapping[str, Mapping[Any, float]], now: float) -> None:
    """Take note of what the workers report, summed over them.

    Args:
        metrics: of the deployment `Gateway`, by name, then replica.
        now: wall-clock seconds.
    """
    for name, values in metrics.items():
        if name.startswith(PREFIX):
            _demands[name.removeprefix(PREFIX)] = (now, sum(values.values()))


def of(id_: str, now: float) -> float:
    """Requests that want a host of this id; 0 if nobody has said anything lately."""
    told, number = _demands.get(id_, (0.0, 0.0))
    return number if now - told < _FRESH_SECONDS else 0.0
