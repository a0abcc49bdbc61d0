"""Who waits for hosts, told by the workers' policy to the hosts' policies in Serve's controller.

Applications do not see each other's metrics, and the policies of all of them run in the same
process, one after the other: this module is where they meet. Policies are pickled by value, so
they must import it when they are called, by name.
"""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["name_of", "of", "tell"]

_PREFIX: Final = "demand:"

_FRESH_SECONDS: Final = 10.0

_demands: dict[str, tuple[float, float]] = {}


def name_of(id_: str, node: str) -> str:
    """The name under which a worker's replica on a node reports who wants a host of this id."""
    return f"{_PREFIX}{id_}@{node}"


def tell(metrics: Mapping[str, Mapping[Any, float]], now: float) -> None:
    """Take note of what the workers report, summed over them.

    Args:
        metrics: of the deployment `Gateway`, by name, then replica.
        now: wall-clock seconds.
    """
    for name, values in metrics.items():
        if name.startswith(_PREFIX):
            _demands[name] = (now, sum(values.values()))


def of(id_: str, now: float, node: str = "") -> float:
    """Requests that want a host of this id; 0 if nobody has said anything lately.

    Args:
        id_: the host's.
        now: wall-clock seconds.
        node: only those of the workers there; left out: all.
    """
    wanted = name_of(id_, node)
    return sum(
        number
        for name, (told, number) in _demands.items()
        if (name == wanted if node else name.startswith(wanted)) and now - told < _FRESH_SECONDS
    )
