"""Which worker of a node a fresh connection goes to, by how many each of them has.

The kernel spreads connections over the sockets of a port by a hash, which is no more even than
dice (docs/decisions.md has the numbers). So whoever accepts one looks at the counts, and hands it
to the worker with the fewest if that has clearly fewer. Always handing it on would even out a
little more, and cost a wake-up of another process for nearly every connection.

With exact counts a worker keeps a connection only up to `fewest + 1 + max(1, fewest / 4)`, and
nobody who is handed one comes above that. The fewest is at most the mean, so nobody gets more than
twice the mean once there are two connections a worker.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["SLACK", "Load", "choose"]

SLACK: Final = 1
"""This many more than the fewest are kept without looking further."""

_SLACK_SHARE: Final = 4
"""And a quarter more: with hundreds of connections a few do not matter."""

_MOST_WAITING: Final = 4
"""More than that wait to be taken: it is stopped or very busy, or everybody has just seen that
it has the fewest. Counts both what a stopped worker can swallow and what a storm moves in vain."""


class Load(NamedTuple):
    """One worker as its siblings see it."""

    number: int
    """The worker's."""
    open: int
    """Connections that it serves."""
    waiting: int
    """Connections that were handed to it and that it has not taken yet."""


def choose(me: int, loads: Sequence[Load]) -> int | None:
    """Say who serves a connection that worker `me` has accepted; None: it does itself.

    Args:
        me: the worker that asks.
        loads: those who take connections, in the order of their numbers; the new one is nowhere
            counted. Where `me` is missing or alone, it serves.
    """
    mine = next((one.open + one.waiting for one in loads if one.number == me), None)
    if mine is None or mine <= SLACK:
        return None
    fewest, chosen = mine, None
    # Beginning behind oneself: whoever looks at the same time begins elsewhere.
    start = next((at for at, one in enumerate(loads) if one.number > me), 0)
    for one in (*loads[start:], *loads[:start]):
        if one.open + one.waiting < fewest and one.waiting < _MOST_WAITING:
            fewest, chosen = one.open + one.waiting, one.number
    if mine <= fewest + max(SLACK, fewest // _SLACK_SHARE):
        return None
    return chosen
