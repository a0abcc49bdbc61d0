"""Versions that must not run here: read from the register, and followed while the worker lives."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from serving.config.snapshot import Snapshot
from serving.files import stamp
from serving.quarantine import register
from serving.quarantine.decision import Key, Quarantined

__all__ = ["Quarantine", "Shut", "nobody", "refusal"]

_LOOK_SECONDS: Final = 0.05
"""A `stat` costs 7 µs; until the next look a bad version may take another worker along."""

_AGAIN_SECONDS: Final = 5.0

Shut = Mapping[str, Mapping[str, str]]
"""Model to version to what a request for it is told."""


def refusal(one: Quarantined) -> str:
    """What a request for a version in quarantine is told."""
    since = datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"model '{one.model}' version '{one.version}' is quarantined since {since}: {one.reason}; "
        "publish a mended file as a new version, or let this one back with "
        f"`sluice quarantine lift {one.model} {one.version}`"
    )


def nobody(snapshot: Snapshot) -> Shut:
    """No version is in quarantine."""
    del snapshot
    return {}


class Quarantine:
    """The register as this worker last read it.

    Args:
        data: the data directory.
        log: where changes that cannot be followed are told.
    """

    def __init__(self, data: Path, log: logging.Logger) -> None:
        self._data = data
        self._file = data / register.FILE
        self._log = log
        self._stamp: tuple[int, ...] | None = None
        self._entries: dict[Key, Quarantined] = {}
        self.look()

    def look(self) -> bool:
        """Read the register if it has changed; True if other versions are in it now."""
        found = stamp(self._file)
        if found == self._stamp:
            return False
        before, self._stamp = set(self._entries), found
        self._entries = {one.key: one for one in register.load(self._data).quarantined}
        return set(self._entries) != before

    def shut(self, snapshot: Snapshot) -> Shut:
        """Which versions of a snapshot must not run, by the bytes of their files."""
        return {
            model: its
            for model, versions in snapshot.staged.items()
            if (
                its := {
                    version: refusal(self._entries[model, version, staged.sha256])
                    for version, staged in versions.items()
                    if (model, version, staged.sha256) in self._entries
                }
            )
        }

    async def follow(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Call `changed` whenever other versions are in quarantine; never returns.

        Where that fails (a version that was let back does not load), it is tried again.
        """
        due = False
        said = ""
        while True:
            await asyncio.sleep(_AGAIN_SECONDS if due else _LOOK_SECONDS)
            if not (self.look() or due):
                continue
            try:
                await changed()
            except Exception as error:  # noqa: BLE001 - a worker that stops following crashes again
                due = True
                if str(error) != said:
                    said = str(error)
                    self._log.error("the quarantine cannot be followed: %s", said)
            else:
                due, said = False, ""
