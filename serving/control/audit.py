"""Who asked for what, allowed or not: a file that shows when somebody has touched it.

`DATA/journal/audit.jsonl`, one JSON object a line. `previous` is the SHA-256 of the line
before (of nothing, for the first), so changing, removing or reordering lines breaks the chain
at that place. Whoever can write the file can also build a whole new chain or cut the end off:
compare `head` with one noted elsewhere to notice that.

Nothing is ever removed from it: a verb costs a few hundred bytes, and callers without a known
credential cannot make it grow by more than 60 lines a minute.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from serving.clock import Clock
from serving.files import append_line

__all__ = ["AuditLog", "AuditRecord", "verify"]

_FIRST: Final = hashlib.sha256(b"").hexdigest()
_LONGEST_TEXT: Final = 500
_ROLLOUT: Final = b'"verb":"rollout '
_REFUSALS: Final = 60
_REFUSAL_SECONDS: Final = 60.0


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a verb. `at` is wall-clock seconds; `who` a token's name or `anonymous`."""

    at: float
    who: str
    verb: str
    subject: str
    result: str
    revision: int = 0
    previous: str


class AuditLog:
    """Appends records; one process writes them.

    Attempts without a known credential are bounded: past `_REFUSALS` in a minute they are only
    counted, and the next line says how many there were. So nobody fills the disk from outside.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / "audit.jsonl"
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._refusals: deque[float] = deque(maxlen=_REFUSALS)
        self._unwritten = 0
        self._head = _last_digest(self._path)

    @property
    def head(self) -> str:
        """Digest of the newest line; note it elsewhere to notice a rewritten file."""
        return self._head

    async def record(
        self,
        *,
        who: str,
        verb: str,
        subject: str,
        result: str,
        revision: int = 0,
        anonymous: bool = False,
    ) -> None:
        """Write one line and wait for the disk, in a thread. Raises OSError.

        `anonymous`: the caller showed no known credential.
        """
        if anonymous and not self._may_write_refusal():
            self._unwritten += 1
            return
        async with self._one_at_a_time:
            note = f" ({self._unwritten} refusals before this are not written)"
            record = AuditRecord(
                at=self._clock.wall(),
                who=who[:_LONGEST_TEXT],
                verb=verb,
                subject=subject[:_LONGEST_TEXT],
                result=result[:_LONGEST_TEXT] + (note if self._unwritten else ""),
                revision=revision,
                previous=self._head,
            )
            self._unwritten = 0
            await asyncio.to_thread(self._append, msgspec.json.encode(record))

    def missing(self, places: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """Those subjects and revisions that no line of a rollout has. Reads the whole file once.

        A process that ends between a decision and its line leaves the line to the next one.

        Raises:
            OSError: the file cannot be read.
        """
        wanted = set(places)
        if not wanted or not self._path.exists():
            return wanted
        with self._path.open("rb") as file:
            for line in file:
                if _ROLLOUT not in line:
                    continue
                with suppress(msgspec.MsgspecError):
                    record = msgspec.json.decode(line, type=AuditRecord)
                    wanted.discard((record.subject, record.revision))
        return wanted

    def _may_write_refusal(self) -> bool:
        now = self._clock.monotonic()
        if len(self._refusals) == _REFUSALS and now - self._refusals[0] < _REFUSAL_SECONDS:
            return False
        self._refusals.append(now)
        return True

    def _append(self, line: bytes) -> None:
        try:
            append_line(self._path, line)
        except OSError:
            self._head = _last_digest(self._path)  # a part of the line may be there
            raise
        self._head = hashlib.sha256(line).hexdigest()


def _last_digest(path: Path) -> str:
    if not path.exists():
        return _FIRST
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    return hashlib.sha256(lines[-1]).hexdigest() if lines else _FIRST


def verify(path: Path) -> list[str]:
    """Say where the chain is broken; an empty list is an untouched file.

    A line that a crash cut off is named too: it is not a record, and the next one points at it.
    """
    problems = []
    previous = _FIRST
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            record = msgspec.json.decode(line, type=AuditRecord)
        except msgspec.MsgspecError:
            problems.append(f"line {number} is no audit record")
        else:
            if record.previous != previous:
                problems.append(f"line {number} does not follow the line before it")
        previous = hashlib.sha256(line).hexdigest()
    return problems
