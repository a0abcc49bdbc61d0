"""What control has published, on its own disk, before anybody else hears of it.

One file, `DATA/journal/snapshots.jsonl`, one line a revision, flushed to the disk before the
store gets it. When the store comes back empty or behind, the last line is published again. A
line that a crash cut off is skipped: it was never published.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from serving.config.schema import GatewayConfig
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import dec_hook, enc_hook
from serving.files import append_line, write_whole

__all__ = ["Action", "Entry", "Journal", "Summary"]

_KEEP: Final = 200
"""Revisions kept. Past twice that the oldest are dropped, so start-up stays short."""

Action = Literal["start", "apply", "load", "unload", "adopt"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One published revision: what, and who, when (wall-clock seconds) and why.

    `gateway` is what `gateway.yaml` said then, without its secrets; `directory` is where the
    configuration came from, empty for load and unload. `adopt` is a revision found in the store.
    """

    snapshot: Snapshot
    gateway: GatewayConfig
    author: str
    at: float
    action: Action
    reason: str = ""
    directory: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """An entry without its configuration, for the history."""

    revision: int
    author: str
    at: float
    action: Action
    reason: str = ""
    changes: list[str] = []


class Journal:
    """Append-only list of entries; one process writes it.

    Args:
        folder: `DATA/journal`, made if it is not there.
        keep: revisions kept at least.
    """

    def __init__(self, folder: Path, *, keep: int = _KEEP) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / "snapshots.jsonl"
        self._keep = keep
        self.entries: list[Entry] = _read(self._path)

    @property
    def last(self) -> Entry | None:
        """The newest entry, None if nothing was ever published."""
        return self.entries[-1] if self.entries else None

    def append(self, entry: Entry) -> None:
        """Write an entry and wait for the disk. Raises OSError: then nothing may be published."""
        append_line(self._path, _encode(entry))
        if self.entries and self.entries[-1].snapshot.revision == entry.snapshot.revision:
            self.entries.pop()
        self.entries.append(entry)
        if len(self.entries) > 2 * self._keep:
            self.entries = self.entries[-self._keep :]
            # The entry itself is safe; a disk that is too full to shorten the file is tried again.
            with suppress(OSError):
                write_whole(self._path, b"".join(_encode(one) + b"\n" for one in self.entries))


def _encode(entry: Entry) -> bytes:
    return msgspec.json.encode(entry, enc_hook=enc_hook)


def _read(path: Path) -> list[Entry]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    entries: list[Entry] = []
    for line in content.split(b"\n"):
        try:
            entry: Any = msgspec.json.decode(line, type=Entry, dec_hook=dec_hook)
        except msgspec.MsgspecError:
            continue
        if entries and entry.snapshot.revision < entries[-1].snapshot.revision:
            continue
        if entries and entry.snapshot.revision == entries[-1].snapshot.revision:
            entries.pop()  # another writer's, adopted over ours
        entries.append(entry)
    return entries
