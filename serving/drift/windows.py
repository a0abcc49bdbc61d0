"""From parts, the counts of a minute or so, to the windows that a report compares. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from serving.drift.bins import Counts
from serving.drift.counts_file import CountKey
from serving.drift.report import Window

__all__ = ["BLOCKS", "Part", "Stretch", "stretches", "windows_of"]

BLOCKS: Final = 30
"""Blocks of a window that has as many parts: enough to see how much its traffic comes in bursts."""


class Part(msgspec.Struct, frozen=True):
    """What was counted in a stretch of time, by all workers. Times are seconds since 1970."""

    start: float
    end: float
    counts: dict[CountKey, Counts]


class Stretch(msgspec.Struct, frozen=True):
    """One version's parts of one window, [parts, layout.size], in order of time."""

    key: CountKey
    start: float
    end: float
    counts: Counts

    @property
    def total(self) -> Counts:
        """Their sum, [layout.size]."""
        total: Counts = self.counts.sum(axis=0)
        return total


def stretches(parts: Iterable[Part], key: CountKey, seconds: float) -> list[Stretch]:
    """Cut time into windows of `seconds`, at their multiples since 1970; oldest first.

    A part belongs to the window that it begins in. Windows without a row are left out.
    """
    found: dict[int, list[Part]] = {}
    for part in parts:
        if key in part.counts:
            found.setdefault(int(part.start // seconds), []).append(part)
    result = []
    for _, members in sorted(found.items()):
        members.sort(key=lambda part: part.start)
        counts = np.stack([part.counts[key] for part in members])
        if counts[:, 0].sum():
            result.append(Stretch(key, members[0].start, members[-1].end, counts))
    return result


def windows_of(found: Sequence[Stretch]) -> list[Window]:
    """What `report` takes: each window in about `BLOCKS` blocks of equal time."""
    return [
        Window(
            start=one.start,
            end=one.end,
            blocks={
                name: counts
                for name, counts in one.key.layout.by_column(_blocks(one.counts)).items()
                if counts.any()  # nobody asked for that output, or the log leaves it out
            },
        )
        for one in found
    ]


def _blocks(counts: Counts) -> Counts:
    """Add up neighbours until there are about `BLOCKS`; shape [blocks, size]."""
    each = max(1, round(len(counts) / BLOCKS))
    return np.add.reduceat(counts, np.arange(0, len(counts), each), axis=0)
