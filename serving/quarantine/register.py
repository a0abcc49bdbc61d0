"""`DATA/quarantine.json`: crashes of late and the versions they have put into quarantine.

Written whole under a lock, because the supervisors of several workers and control write it. A
file that cannot be read counts as an empty one where it is read, and is replaced where it is
written: losing it lets a bad version crash two more workers, and nothing else.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from serving.files import write_whole
from serving.quarantine.decision import Crash, Key, Quarantined, condemned

__all__ = ["FILE", "Register", "keep_only", "lift", "load", "mark_reported", "record"]

FILE: Final = "quarantine.json"
_CRASHES_KEPT: Final = 50


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds; crashes oldest first."""

    quarantined: list[Quarantined] = []
    crashes: list[Crash] = []

    def find(self, key: Key) -> Quarantined | None:
        """The entry of one version."""
        return next((one for one in self.quarantined if one.key == key), None)


def load(data: Path) -> Register:
    """Read it; an empty one if there is none, or none that can be read."""
    try:
        return msgspec.json.decode((data / FILE).read_bytes(), type=Register)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Register()


def record(data: Path, crash: Crash) -> list[Quarantined]:
    """Add a crash and return the versions that it puts into quarantine. Raises OSError."""
    with _changing(data) as (register, save):
        crashes = [*register.crashes, crash][-_CRASHES_KEPT:]
        new = condemned(crashes, register.quarantined)
        save(Register(quarantined=[*register.quarantined, *new], crashes=crashes))
        return new


def lift(data: Path, model: str, version: str) -> list[Quarantined]:
    """Let a version back, its crashes forgotten; returns what was lifted. Raises OSError."""
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
        gone = [one for one in register.quarantined if leaves(one)]
        keys = {one.key for one in gone}
        save(
            Register(
                quarantined=[one for one in register.quarantined if one.key not in keys],
                crashes=[
                    crash
                    for crash in register.crashes
                    if not any(suspect.key in keys for suspect in crash.suspects)
                ],
            )
        )
        return gone


@contextmanager
def _changing(data: Path) -> Iterator[tuple[Register, Callable[[Register], None]]]:
    descriptor = os.open(data / f".{FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield load(data), lambda register: write_whole(data / FILE, _written(register))
    finally:
        os.close(descriptor)


def _written(register: Register) -> bytes:
    return msgspec.json.format(msgspec.json.encode(register)) + b"\n"
