"""Which entity is asked for: Zipf's law over a bounded set of keys. Pure and seeded."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw"]


def draw(
    count: int, keys: int, *, exponent: float, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `count` numbers from 0 to `keys` - 1; the one of rank k with weight k ** -exponent.

    Which number has which rank is a permutation drawn from `random` first, so popular keys are not
    neighbours.
    """
    if exponent == 0:
        return random.integers(0, keys, size=count)
    ranks = random.permutation(keys)
    weights = np.arange(1, keys + 1, dtype=np.float64) ** -exponent
    cumulative = np.cumsum(weights)
    at = np.searchsorted(cumulative, random.random(count) * cumulative[-1], side="right")
    drawn: NDArray[np.int64] = ranks[np.minimum(at, keys - 1)]
    return drawn
