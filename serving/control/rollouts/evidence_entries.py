"""Which workers' evidence is read, which is refused, and whose is removed."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from serving.clock import Clock
from serving.rollout.book import Book
from serving.rollout.wire import UNFOLDED_BYTES, Unfolded, decode_unfolded

__all__ = ["Entries", "Read"]

_LOOK_BYTES: Final = UNFOLDED_BYTES
"""Of all workers in one look; the rest is read by the next. At least the largest is read."""

_LOOK_BATCHES: Final = 1000
"""And so many of what was read: a second or so. After control was away for long there are
thousands, and what they say so far should be acted on in between."""

_SILENT_SECONDS: Final = 86_400.0


@dataclass
class Read:
    """What one look found."""

    added: list[Unfolded]
    """With what is new in them."""

    ended: list[str]
    """Incarnations that write nothing more; all they wrote is in `added` or in the book."""


@dataclass
class _Entry:
    size: int
    since: float
    refused: bool = False
    named: bool = False


class Entries:
    """Workers' entries of one rollout.

    Args:
        rollout_id: for the log.
        clock: its monotonic time says how long an entry has not changed.
        log: hears of each worker whose evidence is refused, once.
    """

    def __init__(self, rollout_id: str, clock: Clock, log: logging.Logger) -> None:
        self._rollout_id = rollout_id
        self._clock = clock
        self._log = log
        self._entries: dict[str, _Entry] = {}

    @property
    def refused(self) -> int:
        """Workers whose evidence is refused now."""
        return sum(entry.refused for entry in self._entries.values())

    def wanted(self, sizes: Mapping[str, int]) -> list[str]:
        """Incarnations to read, of these with so many bytes each; the smallest first."""
        for name in self._entries.keys() - sizes.keys():
            del self._entries[name]
        names, room = [], _LOOK_BYTES
        for name, size in sorted(sizes.items(), key=lambda item: item[1]):
            entry = self._entries.get(name)
            if entry is None:
                entry = self._entries[name] = _Entry(size, self._clock.monotonic())
            elif entry.size != size:
                entry.size, entry.since, entry.refused = size, self._clock.monotonic(), False
            if size > UNFOLDED_BYTES:
                self._refuse(name, f"it takes {size} bytes, more than {UNFOLDED_BYTES}")
            elif not entry.refused and (room := room - size) >= 0:
                names.append(name)
        return names

    def read(self, book: Book, contents: Mapping[str, bytes]) -> Read:
        """What is new in these entries; what cannot be evidence is refused and disturbs no other.

        Args:
            book: what is known; it is not changed.
            contents: by incarnation, of those that are `wanted`.
        """
        found, most = Read([], []), max(1, _LOOK_BATCHES // max(1, len(contents)))
        for name, content in contents.items():
            try:
                unfolded = decode_unfolded(content)
                new = book.fresh(unfolded, most)
            except ValueError as error:
                self._refuse(name, str(error))
                continue
            if unfolded.incarnation != name:
                self._refuse(name, "it names another incarnation")
                continue
            if new.unfolded.batches:
                found.added.append(new.unfolded)
            if unfolded.ended and not new.rest:
                found.ended.append(name)
        return found

    def silent(self) -> list[str]:
        """Incarnations whose entry has been the same for a day: all of it was read long ago."""
        before = self._clock.monotonic() - _SILENT_SECONDS
        return [name for name, entry in self._entries.items() if entry.since < before]

    def _refuse(self, name: str, why: str) -> None:
        entry = self._entries[name]
        entry.refused = True
        if not entry.named:
            entry.named = True
            self._log.warning(
                "rollout %s: evidence of %s is refused: %s", self._rollout_id, ascii(name), why
            )
