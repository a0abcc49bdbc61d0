"""Which worker of a node a fresh connection goes to, by how many each of them has.

The kernel spreads connections over the sockets of a port by a hash, which is no more even than
dice (docs/decisions.md has the numbers). So whoever accepts one looks at the counts, and hands it
to the worker with the fewest if it has clearly more itself. To hand on whatever evens things out,
however little, would wake another process for nearly every connection.

With exact counts nobody keeps a connection that brings it above five quarters of the mean, or two
above the fewest, and nobody is handed one that does. So once there are two connections a worker,
nobody has more than twice the mean.
"""

from collections.abc import Sequence
from typing import Final

__all__ = ["choose", "is_even"]

_MORE: Final = 1
"""Who has at most so many more than the fewest, before the new one, keeps it."""

_SHARE: Final = 5 / 4
"""So does who comes to at most so many times the mean by it."""


def is_even(mine: int, others: Sequence[int]) -> bool:
    """Whether who has `mine` connections may keep one more that is counted nowhere yet."""
    mean = (mine + sum(others) + 1) / (len(others) + 1)
    return mine <= min(others) + _MORE or mine + 1 <= _SHARE * mean


def choose(mine: int, others: Sequence[int]) -> int | None:
    """Say whose a connection becomes that was just accepted, and is counted nowhere yet.

    Args:
        mine: the connections of the worker that accepted it.
        others: those of the workers that it can be handed to. Of several with the fewest the
            first one is taken: with the same order everywhere, all would choose the same.

    Returns:
        The place in `others`; None if it stays where it is.
    """
    if not others or is_even(mine, others):
        return None
    return min(range(len(others)), key=others.__getitem__)
