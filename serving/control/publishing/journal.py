"""What control has published, on its own disk, before anybody else hears of it.

One file, `DATA/journal/snapshots.jsonl`, one line a revision, flushed to the disk before the
store gets it. When the store comes back empty or behind, the last line is published again. A
line that a crash cut off is skipped: it was never published.

The newest 1,000 revisions are kept, and at most a tenth more; a line is a whole configuration
(4 KB for the demo, about 2 KB a version). Memory holds the last entry and where the others are.
The audit log beside it (`serving.control.audit`) is a few hundred bytes a verb and is never
shortened: whoever needs it smaller moves the file away while control is stopped.
"""

import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from serving.config.schema import GatewayConfig
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import dec_hook, enc_hook
from serving.control.publishing.origin import Origin
from serving.files import append_line, write_whole

__all__ = ["Action", "Entry", "Journal", "Summary"]

_KEEP: Final = 1000

Action = Literal["start", "apply", "load", "unload", "rollout", "adopt"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One published revision: what, and who, when (wall-clock seconds) and why.

    `gateway` is what `gateway.yaml` said then, without its secrets; `directory` is where the
    configuration came from, empty for load and unload. `rollout` is traffic that a rollout moved,
    `adopt` a revision found in the store.
    `generation` is that of the settings that came with it (`serving.config.applied`), 0 for none.
    `origin` is what the directory's files were, and of which commit; None where there was none.
    """

    snapshot: Snapshot
    gateway: GatewayConfig
    author: str
    at: float
    action: Action
    reason: str = ""
    directory: str = ""
    generation: int = 0
    origin: Origin | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """An entry without its configuration, for the history."""

    revision: int
    author: str
    at: float
    action: Action
    reason: str = ""
    changes: list[str] = []
    origin: Origin | None = None


class _Place(msgspec.Struct, frozen=True):
    """Where a revision's line is: its first byte, and its bytes without the newline."""

    revision: int
    offset: int
    size: int


class _Revision(msgspec.Struct):
    revision: int


class _Glimpse(msgspec.Struct):
    """As much of an entry as tells its revision, found without building the rest."""

    snapshot: _Revision


class Journal:
    """Append-only list of entries; one process writes it. Safe to call from several threads.

    Args:
        folder: `DATA/journal`, made if it is not there.
        keep: revisions kept at least; the file is shortened when it holds a tenth more.
    """

    def __init__(self, folder: Path, *, keep: int = _KEEP) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / "snapshots.jsonl"
        self._keep = keep
        self._one_at_a_time = threading.Lock()
        self._places: list[_Place] = []
        self.last: Entry | None = None
        """The newest entry, None if nothing was ever published."""

        if self._path.exists():
            self._find_places()

    @property
    def revisions(self) -> list[int]:
        """Every revision that is kept, oldest first."""
        return [place.revision for place in self._places]

    def newest(self, limit: int) -> list[Entry]:
        """Read at most `limit` entries from the disk, oldest first. Raises OSError."""
        return self.read(self.revisions[-limit:] if limit > 0 else ())

    def read(self, revisions: Collection[int]) -> list[Entry]:
        """Read these revisions from the disk, oldest first. Raises OSError."""
        with self._one_at_a_time:
            lines = self._lines([one for one in self._places if one.revision in revisions])
            return [entry for line in lines if (entry := _decoded(line)) is not None]

    def append(self, entry: Entry) -> None:
        """Write an entry and wait for the disk. Raises OSError: then nothing may be published."""
        line = msgspec.json.encode(entry, enc_hook=enc_hook)
        with self._one_at_a_time:
            append_line(self._path, line)
            self._place(entry.snapshot.revision, self._path.stat().st_size - len(line) - 1, line)
            self.last = entry
            if len(self._places) > self._keep + self._keep // 10:
                # The entry is safe; a disk too full to shorten the file is tried again next time.
                with suppress(OSError):
                    self._shorten()

    def _find_places(self) -> None:
        offset = 0
        with self._path.open("rb") as file:
            for line in file:
                with suppress(msgspec.MsgspecError):
                    glimpse = msgspec.json.decode(line, type=_Glimpse)
                    self._place(glimpse.snapshot.revision, offset, line.rstrip(b"\n"))
                offset += len(line)
        while self._places and self.last is None:
            [line] = self._lines(self._places[-1:])
            self.last = _decoded(line)
            if self.last is None:  # cut off in its last bytes, or not ours
                self._places.pop()

    def _place(self, revision: int, offset: int, line: bytes) -> None:
        newest = self._places[-1].revision if self._places else 0
        if revision < newest:  # put together by hand: an old revision must not come last
            return
        if revision == newest and self._places:
            self._places.pop()  # another writer's, adopted over ours
        self._places.append(_Place(revision, offset, len(line)))

    def _lines(self, places: list[_Place]) -> Iterator[bytes]:
        if not places:
            return
        with self._path.open("rb") as file:
            for place in places:
                file.seek(place.offset)
                yield file.read(place.size)

    def _shorten(self) -> None:
        kept = self._places[-self._keep :]
        lines = list(self._lines(kept))
        write_whole(self._path, b"".join(line + b"\n" for line in lines))
        self._places = []
        offset = 0
        for place, line in zip(kept, lines, strict=True):
            self._place(place.revision, offset, line)
            offset += len(line) + 1


def _decoded(line: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(line, type=Entry, dec_hook=dec_hook)
    except msgspec.MsgspecError:
        return None
