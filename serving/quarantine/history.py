"""What is known of crashes and of versions in quarantine, and how what two nodes know becomes one.

Each node counts its own crashes and acts on them alone; control hears of them and tells all nodes.
Nobody knows whose word is newer, so words are united: an entry, a crash and a lift each have an
identity, a union of them loses and doubles nothing, and in whichever order they are heard it comes
to the same. What was lifted stays known as lifted, or a node that hears of it late would bring the
entry back. Decides, does no I/O.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from serving.quarantine.decision import Crash, Key, Quarantined, condemned

__all__ = ["Lifted", "Register", "removed", "united", "with_crash"]

_CRASHES_KEPT: Final = 50
_LIFTED_KEPT: Final = 100

T = TypeVar("T")


class Lifted(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one quarantine: which version, and since when it had been in it."""

    model: str
    version: str
    sha256: str
    since: float

    @property
    def identity(self) -> tuple[Key, float]:
        """That of the entry it ends."""
        return (self.model, self.version, self.sha256), self.since


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """What one node knows; crashes and lifts oldest first, as many as are kept."""

    quarantined: list[Quarantined] = []
    crashes: list[Crash] = []
    lifted: list[Lifted] = []

    def find(self, key: Key) -> Quarantined | None:
        """The entry of one version."""
        return next((one for one in self.quarantined if one.key == key), None)


def with_crash(register: Register, crash: Crash) -> tuple[Register, list[Quarantined]]:
    """Add a crash; also give the versions that it puts into quarantine."""
    crashes = [*register.crashes, crash][-_CRASHES_KEPT:]
    new = condemned(crashes, register.quarantined)
    return (
        replace(register, quarantined=[*register.quarantined, *new], crashes=crashes),
        new,
    )


def removed(
    register: Register, leaves: Callable[[Quarantined], bool]
) -> tuple[Register, list[Quarantined]]:
    """Let versions out, their crashes forgiven; also give their entries."""
    gone = [one for one in register.quarantined if leaves(one)]
    lifts = [
        Lifted(model=one.model, version=one.version, sha256=one.sha256, since=one.since)
        for one in gone
    ]
    return _without(register, lifts), gone


def united(mine: Register, theirs: Register) -> Register:
    """What is known after hearing another node out; `mine` itself if that was nothing new.

    Crashes of another node count here as well: one on each of two nodes are two.
    """
    known = {one.identity for one in mine.lifted}
    register = _without(mine, [one for one in theirs.lifted if one.identity not in known])
    dead = {one.identity for one in register.lifted}
    there = {one.key: one for one in register.quarantined}
    # Of two entries of one version the older stays, so that every node ends with the same.
    news = [
        one
        for one in theirs.quarantined
        if one.identity not in dead and (one.key not in there or one.since < there[one.key].since)
    ]
    if news:
        merged = there | {one.key: one for one in news}
        entries = sorted(merged.values(), key=lambda one: (one.since, one.key))
        register = replace(register, quarantined=entries)
    heard = {crash.identity for crash in register.crashes}
    full = len(register.crashes) >= _CRASHES_KEPT
    oldest = min((crash.at for crash in register.crashes), default=0.0)
    for crash in theirs.crashes:
        # One that was dropped for want of room would otherwise be news again and again.
        if crash.identity not in heard and not (full and crash.at <= oldest):
            register, _ = with_crash(register, crash)
    return register


def _without(register: Register, lifts: list[Lifted]) -> Register:
    if not lifts:
        return register
    identities = {one.identity for one in lifts}
    keys = {key for key, _ in identities}
    return Register(
        quarantined=[one for one in register.quarantined if one.identity not in identities],
        crashes=[
            replace(crash, forgiven=True)
            if any(suspect.key in keys for suspect in crash.suspects)
            else crash
            for crash in register.crashes
        ],
        lifted=_newest([*register.lifted, *lifts], _LIFTED_KEPT),
    )


def _newest(items: Iterable[T], number: int) -> list[T]:
    return list(items)[-number:]
