"""`DATA/quarantine.json`: crashes of late, and the versions in quarantine on this node.

Written whole under a lock, because the supervisors of several workers and control write it. A
file that cannot be read counts as an empty one where it is read, and is replaced where it is
written: losing it lets a bad version crash two more workers, and nothing else.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from serving.files import lock, write_whole
from serving.quarantine.decision import Crash, Key, Quarantined
from serving.quarantine.history import Register, removed, united, with_crash

__all__ = ["FILE", "hear", "keep_only", "lift", "load", "mark_reported", "record"]

FILE: Final = "quarantine.json"


def load(data: Path) -> Register:
    """Read it; an empty one if there is none, or none that can be read."""
    try:
        return msgspec.json.decode((data / FILE).read_bytes(), type=Register)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Register()


def record(data: Path, crash: Crash) -> list[Quarantined]:
    """Add a crash and return the versions that it puts into quarantine. Raises OSError."""
    with _changing(data) as (register, save):
        changed, new = with_crash(register, crash)
        save(changed)
        return new


def hear(data: Path, theirs: Register) -> bool:
    """Add what another node knows; whether anything of it was new. Raises OSError."""
    # Looked at first without the lock: it is heard once a second, and new once a year.
    if united(before := load(data), theirs) is before:
        return False
    with _changing(data) as (register, save):
        after = united(register, theirs)
        if after is register:
            return False
        save(after)
        return True


def lift(data: Path, model: str, version: str) -> list[Quarantined]:
    """Let a version back, its crashes forgiven; returns what was lifted. Raises OSError."""
    return _remove(data, lambda one: (one.model, one.version) == (model, version))


def keep_only(data: Path, configured: frozenset[Key]) -> list[Quarantined]:
    """Drop entries of versions that are not configured any more. Raises OSError."""
    return _remove(data, lambda one: one.key not in configured)


def mark_reported(data: Path, keys: frozenset[Key]) -> None:
    """Note that control has told about these. Raises OSError."""
    with _changing(data) as (register, save):
        save(
            msgspec.structs.replace(
                register,
                quarantined=[
                    msgspec.structs.replace(one, reported=one.reported or one.key in keys)
                    for one in register.quarantined
                ],
            )
        )


def _remove(data: Path, leaves: Callable[[Quarantined], bool]) -> list[Quarantined]:
    if not any(map(leaves, load(data).quarantined)):
        return []
    with _changing(data) as (register, save):
        changed, gone = removed(register, leaves)
        save(changed)
        return gone


@contextmanager
def _changing(data: Path) -> Iterator[tuple[Register, Callable[[Register], None]]]:
    with lock(data / f".{FILE}.lock"):
        yield load(data), lambda register: write_whole(data / FILE, _written(register))


def _written(register: Register) -> bytes:
    return msgspec.json.format(msgspec.json.encode(register)) + b"\n"
