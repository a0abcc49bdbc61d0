"""What became of one view in one request, as bits that combine."""

from enum import IntFlag
from functools import lru_cache

__all__ = ["Status", "describe"]


class Status(IntFlag):
    """Status of one view for one row; fits a `u8`.

    `OK` alone is what everybody hopes for. The others say why a value may not be what the
    store holds now.
    """

    OK = 1
    """A value was there, and it was used."""

    CACHED = 2
    """It came from this process's near cache."""

    STALE = 4
    """It is older than the view's `fresh_for`."""

    NOT_FOUND = 8
    """Nobody has written this entity, it was erased, or it is older than `keep_for`."""

    NULLS = 16
    """At least one wanted field was written as null."""

    DEFAULTED = 32
    """At least one wanted field holds the view's default instead of a stored value."""

    TIMEOUT = 64
    """The store did not answer in time, answered with an error, or is known to be down."""

    SCHEMA = 128
    """The bytes follow a layout that is unknown, or has other types: they were not read."""


@lru_cache(maxsize=256)
def describe(bits: int) -> str:
    """The words of a status, such as `CACHED|OK|STALE`, in alphabetical order."""
    return "|".join(sorted(flag.name or "" for flag in Status if flag & bits))
