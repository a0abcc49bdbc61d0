"""Changes of level of what is watched: a file, newest last, and counts for `/metrics`.

`DATA/journal/monitoring.jsonl`, one JSON object a line; the newest 2,000 are kept at least, and
at most twice as many.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from serving.drift.verdict import Level
from serving.files import append_line, write_whole

__all__ = ["MonitoringEvent", "MonitoringEvents", "Place"]

_KEEP: Final = 2000

Place = tuple[str, str, str]
"""Model, version, role."""


class MonitoringEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A version in a role came to another level. `at` is seconds since 1970."""

    at: float
    model: str
    version: str
    role: str
    level: Level
    reasons: list[str]

    @property
    def place(self) -> Place:
        """Whose level it is."""
        return self.model, self.version, self.role


class MonitoringEvents:
    """One per control process. Blocks on the disk; one thread at a time writes.

    Args:
        path: the file; its folder is made.
        keep: events kept at least.
    """

    def __init__(self, path: Path, *, keep: int = _KEEP) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._keep = keep
        found = list(_read(path))
        self._lines = len(found)
        self._newest = deque(found, maxlen=keep)
        self.levels: dict[Place, Level] = {one.place: one.level for one in found}
        """What every place came to last."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Events by model and level, since this process started."""

    def record(self, event: MonitoringEvent) -> None:
        """Keep an event and wait for the disk. Raises OSError: then it did not happen."""
        append_line(self._path, msgspec.json.encode(event))
        self._lines += 1
        self._newest.append(event)
        self.levels[event.place] = event.level
        self.counts[event.model, event.level] += 1
        if self._lines > 2 * self._keep:
            with contextlib.suppress(OSError):  # tried again with the next one
                kept = list(self._newest)
                write_whole(self._path, b"".join(msgspec.json.encode(one) + b"\n" for one in kept))
                self._lines = len(kept)

    def newest(self, model: str, most: int) -> list[MonitoringEvent]:
        """A model's last events, newest first."""
        return [one for one in reversed(list(self._newest)) if one.model == model][:most]


def _read(path: Path) -> Iterable[MonitoringEvent]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):  # cut off by a crash
            yield msgspec.json.decode(line, type=MonitoringEvent)
