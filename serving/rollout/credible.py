"""Whether a batch can be what a worker counted; the store is not only ours."""

import math
from collections.abc import Iterator
from typing import Final

from serving.rollout.bitmap import places
from serving.rollout.wire import Arms, Batch, Cells, Share

__all__ = ["check"]

_VERSIONS: Final = 2
_COUNT: Final = 1 << 40
"""Above every count of a batch, and 2²³ of them still fit into 64 bits."""


def check(batch: Batch) -> None:
    """Raise ValueError, with what is wrong, for a batch that must not be added."""
    if not 1 <= batch.number < _COUNT:
        raise ValueError(f"batches are numbered from 1, not {batch.number}")
    if len(batch.seconds) != _VERSIONS:
        raise ValueError("durations are those of the canary and those of production")
    if not all(0 <= one < math.inf for seconds in batch.seconds for one in seconds):
        raise ValueError("a duration is a number of seconds, 0 or more")
    for number in (batch.copies, *batch.lost.values()):
        if not 0 <= number < _COUNT:
            raise ValueError(f"{number} copies, or losses, cannot be")
    for share in batch.shares:
        _check_share(share)
    for cells in _all_cells(batch):
        places(cells.cells)
        if not 0 <= cells.unkeyed < _COUNT:
            raise ValueError(f"{cells.unkeyed} requests without a key cannot be")


def _check_share(share: Share) -> None:
    if not 0 < share.rho < 1:
        raise ValueError(f"a probability of the canary is within 0 and 1, not {share.rho}")
    for pair in (share.requests, *share.excluded.values()):
        if len(pair) != _VERSIONS or not all(0 <= one < _COUNT for one in pair):
            raise ValueError(f"requests of canary and production are two numbers, not {pair}")


def _all_cells(batch: Batch) -> Iterator[Cells]:
    yield from batch.shadow.values()
    arms: list[Arms] = []
    for share in batch.shares:
        arms += (share.exposed, *share.events.values())
    for one in arms:
        yield one.canary
        yield one.production
