"""Latencies in buckets whose width grows with the value, as HdrHistogram's do.

A value is counted in units of 100 ns. Below 256 units each unit has its bucket; above, every power
of two is cut into 128 buckets, so a bucket's middle is within 1/256 of any value in it. Histograms
of processes and phases add up without further loss.
"""

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Histogram"]

_NORMAL_95: Final = 1.959964
"""Standard deviations on either side that hold 95 % of a normal distribution."""

_UNIT_SECONDS: Final = 1e-7
_BITS: Final = 7
_HALF: Final = 1 << _BITS
_LARGEST: Final = (1 << 40) - 1
"""About 30 hours; longer counts as that."""


class Histogram(msgspec.Struct, gc=False):
    """How many values fell where. Values are seconds."""

    counts: dict[int, int] = {}
    """Bucket number to count; only buckets with a count."""

    total: float = 0.0
    """Sum of the values, in seconds."""

    largest: float = 0.0
    """The largest value, exactly."""

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a value; a negative one counts as 0."""
        seconds = max(seconds, 0.0)
        units = min(int(seconds / _UNIT_SECONDS), _LARGEST)
        shift = max(units.bit_length() - _BITS - 1, 0)
        bucket = (shift << _BITS) + (units >> shift)
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += seconds * count
        self.largest = max(self.largest, seconds)

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Histogram":
        """Count an array of seconds at once; the same as adding each."""
        if not len(values):
            return cls()
        seconds = np.maximum(values, 0.0)
        units = np.minimum(seconds / _UNIT_SECONDS, _LARGEST).astype(np.int64)
        # frexp's exponent of a whole number is its bit length; exact below 2**53.
        shift = np.maximum(np.frexp(units.astype(np.float64))[1] - _BITS - 1, 0)
        buckets, counts = np.unique((shift << _BITS) + (units >> shift), return_counts=True)
        return cls(
            dict(zip(buckets.tolist(), counts.tolist(), strict=True)),
            float(seconds.sum()),
            float(seconds.max()),
        )

    def merge(self, other: "Histogram") -> None:
        """Add what another has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        """Their mean in seconds; NaN without values."""
        count = self.count
        return self.total / count if count else math.nan

    def quantile(self, share: float) -> float:
        """The smallest value that `share` of all do not exceed, in seconds; NaN without values.

        Within 1/256 of the exact one or 100 ns; 1.0 gives the largest value exactly.
        """
        return self.quantiles((share,))[0]

    def quantiles(self, shares: tuple[float, ...]) -> list[float]:
        """Several quantiles; `shares` must ascend."""
        count = self.count
        if not count:
            return [math.nan] * len(shares)
        found: list[float] = []
        buckets = sorted(self.counts)
        seen, at = self.counts[buckets[0]], 0
        for share in shares:
            rank = min(max(math.ceil(share * count), 1), count)
            while seen < rank:
                at += 1
                seen += self.counts[buckets[at]]
            # The last value is known exactly, and no other is larger.
            found.append(self.largest if rank == count else min(_middle(buckets[at]), self.largest))
        return found

    def interval(self, share: float) -> tuple[float | None, float | None]:
        """Between which values the quantile of endless such values lies, with 95 % confidence.

        By the ranks that a binomial count leaves likely, whatever the distribution (Conover,
        Practical Nonparametric Statistics, 3.2); None where there are too few values for a bound.
        Chance is all it allows for: a machine that is busier the second time is not chance.
        """
        count = self.count
        spread = _NORMAL_95 * math.sqrt(count * share * (1 - share))
        low, high = math.floor(count * share - spread), math.ceil(count * share + spread) + 1
        return (
            self.quantile(low / count) if low >= 1 else None,
            self.quantile(high / count) if high <= count else None,
        )

    def points(self) -> list[tuple[float, int]]:
        """(seconds, count) of each bucket in ascending order, for a drawing."""
        return [(_middle(bucket), self.counts[bucket]) for bucket in sorted(self.counts)]


def _middle(bucket: int) -> float:
    shift = max((bucket >> _BITS) - 1, 0)
    low = (bucket - (shift << _BITS)) << shift
    return (low + (1 << shift) / 2) * _UNIT_SECONDS
