"""What the store said: the rows of one read, and of which views they are."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from feature_cache.near_cache import Entry

__all__ = ["FAILED", "Found", "Reading"]

FAILED: Final = Entry(None, 0.0, 0)
"""Stands where a row could not be read."""


class Found(msgspec.Struct, gc=False):
    """Rows in the order of the keys asked for.

    `values[i]` is the row, None if there is none. `cached[i]`: it was in the near cache.
    `failed[i]`: the store could not be asked in time, and there is no value.

    `whole` says that all of them are one entity's and have one origin: all read just now (0) or
    all cached (1); -1 where that is not known. Such a one is kept beside its rows, good until
    `until` (monotonic), and `made` is what was made of it.
    """

    values: list[Any]
    cached: list[bool]
    failed: list[bool]
    whole: int = -1
    kept: list[Entry] | None = None
    until: float = 0.0
    made: Any = None

    @property
    def entries(self) -> list[Entry]:
        """The rows as entries, which remember what was decoded of them; made when first wanted."""
        if self.kept is None:
            self.kept = [Entry(value, 0.0, 0) for value in self.values]
        return self.kept


class Reading(msgspec.Struct, gc=False):
    """What the store said about every view of a plan, for `rows` entities, at `wall_ms`.

    `first` is where each view's rows begin in `found`; a view that was not asked, because the
    request brings its fields, is not in it.
    """

    rows: int
    wall_ms: int
    found: Found
    first: Mapping[str, int]
