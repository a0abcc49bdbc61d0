"""What has been shipped to one target; a file that survives whoever writes it.

`LOG/shipping/<digest of the target>.jsonl`: a line a file, written when the target has confirmed
the whole of it. So after a crash the file under way is sent again, and never one left out. One
process ships to a target at a time.
"""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from serving.errors import SluiceError
from serving.files import append_line, try_lock, write_whole
from serving.recording.layout import LogFolder

__all__ = ["Cursor", "ShippingBusy", "State", "state_of"]

State = tuple[int, int]
"""Size in bytes and time of last change in nanoseconds: of a file that was written anew they
differ."""

_FOLDER: Final = "shipping"
_KEPT_LINES: Final = 2
"""Of a cursor's file, times the files it names; more and it is written anew."""


class ShippingBusy(SluiceError):
    """Another process ships this log to the same target."""


class _Line(msgspec.Struct, omit_defaults=True):
    file: str
    size: int = 0
    changed: int = 0


class Cursor:
    """Which files a target has; a context manager that holds it.

    Args:
        log: what is shipped.
        target: where to, as the user wrote it.

    Raises:
        ShippingBusy: somebody else does. OSError: of the disk.
    """

    def __init__(self, log: LogFolder, target: str) -> None:
        folder = log.root / _FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(target.encode()).hexdigest()[:16]
        self._path = folder / f"{name}.jsonl"
        lock = try_lock(folder / f"{name}.lock")
        if lock is None:
            raise ShippingBusy("another process ships this log to the same target")
        self._lock = lock
        self._shipped: dict[str, State] = {}
        self._lines = 0
        try:
            self._read()
        except BaseException:
            os.close(lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    @property
    def shipped(self) -> dict[str, State]:
        """Files by their path in the log, as they were when they were sent."""
        return dict(self._shipped)

    def note(self, file: str, state: State) -> None:
        """Keep that the target has a file. Raises OSError."""
        append_line(self._path, msgspec.json.encode(_Line(file, *state)))
        self._shipped[file] = state
        self._lines += 1

    def keep(self, there: set[str]) -> None:
        """Forget files that are not in the log any more. Raises OSError."""
        self._shipped = {file: state for file, state in self._shipped.items() if file in there}
        if self._lines > _KEPT_LINES * len(self._shipped) + 100:
            lines = [msgspec.json.encode(_Line(file, *s)) for file, s in self._shipped.items()]
            write_whole(self._path, b"".join(line + b"\n" for line in lines))
            self._lines = len(lines)

    def _read(self) -> None:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                one = msgspec.json.decode(line, type=_Line)
            except msgspec.MsgspecError:
                continue  # torn by a crash: that file is sent again
            self._shipped[one.file] = one.size, one.changed
        self._lines = len(lines)


def state_of(path: Path) -> State:
    """A file as it is now. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
