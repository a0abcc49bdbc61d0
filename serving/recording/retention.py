"""Which files of the log are to go; decides only."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

__all__ = ["Kept", "Removal", "to_remove"]


class Kept(msgspec.Struct, frozen=True, order=True):
    """One Parquet file. `ends` is the end of its hour, in seconds since 1970."""

    ends: float
    path: Path
    size: int


class Removal(msgspec.Struct, frozen=True):
    """A file that goes, and why: `expired` or `over_size`."""

    path: Path
    size: int
    reason: str


def to_remove(
    files: Iterable[Kept], *, now: float, retention: float, room: int, live: int = 0
) -> list[Removal]:
    """Choose files that are too old, and of the others the oldest until the rest fits.

    Args:
        files: all Parquet files.
        now: seconds since 1970.
        retention: seconds a row may be kept after the end of its hour.
        room: bytes the log may take.
        live: bytes of segments, which are never chosen.
    """
    removed: list[Removal] = []
    kept: list[Kept] = []
    for file in sorted(files):
        if file.ends + retention < now:
            removed.append(Removal(file.path, file.size, "expired"))
        else:
            kept.append(file)
    total = live + sum(file.size for file in kept)
    for file in kept:
        if total <= room:
            break
        removed.append(Removal(file.path, file.size, "over_size"))
        total -= file.size
    return removed
