"""Workers' drift counts, taken every so often, kept as parts on the disk.

Counts in files only grow, so a part is the difference to what was taken before. A restart of
control or of a worker neither loses nor doubles one: the state names the part that belongs to
it, and is written first.
"""

import base64
import contextlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from serving.drift.bins import Counts
from serving.drift.counts_file import CountKey, is_alive, read_counts
from serving.drift.windows import Part
from serving.files import append_line, write_whole

__all__ = ["DriftParts"]

_DAY_SECONDS: Final = 86400.0
_Listed = list[tuple[CountKey, bytes]]


class _Line(msgspec.Struct, frozen=True):
    number: int
    start: float
    end: float
    counts: _Listed


class _State(msgspec.Struct):
    line: _Line
    taken: dict[str, _Listed]
    """By file, what had been taken from it."""


class _Fresh(msgspec.Struct):
    """What was counted since the last part, and by whom."""

    start: float = 0.0
    counts: dict[CountKey, Counts] = {}
    taken: dict[str, _Listed] = {}
    finished: list[Path] = []


class DriftParts:
    """The parts of one data directory. One process takes them (control). Blocks on the disk.

    Args:
        folder: where workers count (`*.counts`), and where parts are kept.
        keep: seconds after which parts are forgotten.
    """

    def __init__(self, folder: Path, keep: float = 8 * _DAY_SECONDS) -> None:
        self._folder = folder
        self._keep = keep
        self._last: int | None = None
        self._quiet = 0.0
        """When nothing had been counted: what is counted later came later."""
        self._state = self._read_state()
        if self._state is not None:
            self._append(self._state.line)  # again, if a crash came between

    def take(self, now: float) -> Part | None:
        """Take what was counted since the last time; None if nothing was.

        Raises:
            OSError: the disk does not keep it; it is taken the next time.
        """
        fresh = self._fresh(now)
        if not fresh.counts and not fresh.finished:
            self._quiet = now
            return None
        number = self._state.line.number + 1 if self._state is not None else 1
        state = _State(_Line(number, fresh.start, now, _listed(fresh.counts)), fresh.taken)
        write_whole(self._folder / "state.msgpack", msgspec.msgpack.encode(state))
        self._state = state
        self._append(state.line)
        for path in fresh.finished:
            path.unlink(missing_ok=True)
        self._forget(now)
        return Part(fresh.start, now, fresh.counts) if fresh.counts else None

    def peek(self, now: float) -> Part | None:
        """What `take` would give, and leave it there. Raises OSError."""
        fresh = self._fresh(now)
        return Part(fresh.start, now, fresh.counts) if fresh.counts else None

    def _fresh(self, now: float) -> "_Fresh":
        before = self._state.taken if self._state is not None else {}
        found = _Fresh()
        begun = now
        for path in sorted(self._folder.glob("*.counts")):
            alive, counts = self._read(path)
            if counts is None:
                continue
            old = dict(_arrays(before.get(path.name, [])))
            for key, vector in counts.items():
                more = vector - old[key] if key in old else vector
                if more.any():
                    known = found.counts.get(key)
                    found.counts[key] = more if known is None else known + more
            found.taken[path.name] = _listed(counts)
            begun = min(begun, path.stat().st_ctime)
            if not alive:
                found.finished.append(path)
        found.start = begun if self._state is None else max(self._state.line.end, self._quiet)
        return found

    def since(self, moment: float) -> list[Part]:
        """Parts that ended after a moment, oldest first."""
        found: dict[int, Part] = {}
        for path in sorted(self._folder.glob("parts-*")):
            day = float(path.name.partition("-")[2])
            if day + _DAY_SECONDS < moment:
                continue
            for line in _lines(path):
                if line.end > moment:
                    found[line.number] = Part(line.start, line.end, dict(_arrays(line.counts)))
        return [found[number] for number in sorted(found)]

    def _read(self, path: Path) -> tuple[bool, Mapping[CountKey, Counts] | None]:
        """Whether its process lives, asked first, and its counts; None if it is no such file."""
        try:
            return is_alive(path), read_counts(path)
        except (OSError, ValueError, msgspec.DecodeError):
            return True, None

    def _read_state(self) -> _State | None:
        try:
            content = (self._folder / "state.msgpack").read_bytes()
        except FileNotFoundError:
            return None
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.msgpack.decode(content, type=_State)
        return None

    def _append(self, line: _Line) -> None:
        day = int(line.end // _DAY_SECONDS * _DAY_SECONDS)
        path = self._folder / f"parts-{day}"
        if self._last is None:
            self._last = max((known.number for known in _lines(path)), default=0)
        if line.counts and self._last < line.number:
            self._last = line.number
            append_line(path, base64.b64encode(zlib.compress(msgspec.msgpack.encode(line))))

    def _forget(self, now: float) -> None:
        for path in self._folder.glob("parts-*"):
            if float(path.name.partition("-")[2]) + _DAY_SECONDS + self._keep < now:
                path.unlink(missing_ok=True)


def _listed(counts: Mapping[CountKey, Counts]) -> _Listed:
    return [(key, vector.astype("<i8").tobytes()) for key, vector in counts.items()]


def _arrays(listed: _Listed) -> Iterator[tuple[CountKey, Counts]]:
    for key, content in listed:
        yield key, np.frombuffer(content, "<i8").astype(np.int64)


def _lines(path: Path) -> Iterator[_Line]:
    """Every line that is whole; a torn one was written again."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for line in content.splitlines():
        with contextlib.suppress(ValueError, zlib.error, msgspec.DecodeError):
            yield msgspec.msgpack.decode(zlib.decompress(base64.b64decode(line)), type=_Line)
