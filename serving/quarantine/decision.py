"""Who is to blame for a crash, and when that is enough. Decides, does no I/O.

The rule: two crashes of workers within 60 s on the same version, by the bytes of its file,
quarantine it. Times are wall-clock seconds, as workers of several engines write into one history
and it outlives a reboot; a clock that is set between two crashes makes it take another one.
"""

import signal
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from serving.quarantine.marks import Marked

__all__ = [
    "CRASHES",
    "WINDOW_SECONDS",
    "Crash",
    "Key",
    "Quarantined",
    "Suspect",
    "condemned",
    "is_crash",
    "suspects",
]

WINDOW_SECONDS: Final = 60.0
CRASHES: Final = 2

_CRASH_SIGNALS: Final = frozenset(
    (
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGSYS,
        signal.SIGTRAP,
    )
)

Key = tuple[str, str, str]
"""Model, version, SHA-256 of its file."""


class Suspect(msgspec.Struct, frozen=True):
    """A version that was being run, or loaded, when a worker crashed."""

    model: str
    version: str
    sha256: str
    loading: bool = False

    @property
    def key(self) -> Key:
        """What makes it this version and no other."""
        return self.model, self.version, self.sha256


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """The death of one worker by `signal`, at a wall-clock second of its node.

    `forgiven`: a version was let back since; it is known, and counts against nobody.
    """

    at: float
    worker: str
    signal: str
    suspects: tuple[Suspect, ...]
    node: str = ""
    forgiven: bool = False

    @property
    def identity(self) -> tuple[str, str, float]:
        """Tells it from every other crash, also where two nodes have heard of it."""
        return self.node, self.worker, self.at


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A version that must not be loaded. `since` is a wall-clock second.

    `reported`: control has written it into the audit log.
    """

    model: str
    version: str
    sha256: str
    since: float
    crashes: int
    reason: str
    reported: bool = False

    @property
    def key(self) -> Key:
        """What makes it this version and no other."""
        return self.model, self.version, self.sha256

    @property
    def identity(self) -> tuple[Key, float]:
        """Tells it from a later quarantine of the same version."""
        return self.key, self.since


def is_crash(returncode: int) -> bool:
    """Whether a process died by a signal that its own code raises.

    SIGKILL is none: nobody can tell the kernel short of memory from a person, or from an engine
    that gave up on a silent process, and a version that merely ran then is not to blame.
    """
    return -returncode in _CRASH_SIGNALS


def suspects(
    marked: Sequence[Marked], thread: int | None, production: Collection[tuple[str, str]] = ()
) -> tuple[Suspect, ...]:
    """Name whom a crash counts against.

    Args:
        marked: what was being run.
        thread: the one that crashed, None if nobody knows.
        production: (model, version) of those that answer for their model. Where several ran and
            nobody knows which it was, these are not suspected unless there are no others.
    """
    if thread is not None:
        marked = [one for one in marked if one.thread == thread]
    elif others := [one for one in marked if (one.model, one.version) not in production]:
        marked = others
    return tuple(Suspect(one.model, one.version, one.sha256, one.loading) for one in marked)


def condemned(crashes: Sequence[Crash], quarantined: Iterable[Quarantined]) -> list[Quarantined]:
    """Decide which versions the latest crash quarantines, beside those that are.

    Args:
        crashes: the history, oldest first.
        quarantined: whose case is closed.
    """
    if not crashes or crashes[-1].forgiven:
        return []
    last = crashes[-1]
    known = {one.key for one in quarantined}
    found = []
    for suspect in last.suspects:
        if suspect.key in known:
            continue
        known.add(suspect.key)
        its = [
            crash
            for crash in crashes
            if not crash.forgiven
            and abs(last.at - crash.at) <= WINDOW_SECONDS
            and any(one.key == suspect.key for one in crash.suspects)
        ]
        if len(its) >= CRASHES:
            found.append(
                Quarantined(
                    model=suspect.model,
                    version=suspect.version,
                    sha256=suspect.sha256,
                    since=last.at,
                    crashes=len(its),
                    reason=_reason(its, loading=suspect.loading),
                )
            )
    return found


def _reason(crashes: Sequence[Crash], *, loading: bool) -> str:
    doing = "being loaded" if loading else "running"
    last = crashes[-1]
    seconds = abs(last.at - crashes[0].at)
    where = f" on {last.node}" if last.node else ""
    return (
        f"{len(crashes)} worker processes crashed within {seconds:.0f} s while it was {doing} "
        f"(last {last.worker}{where}, {last.signal})"
    )
