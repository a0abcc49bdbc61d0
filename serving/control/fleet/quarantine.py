"""The quarantine as control sees it: read for whoever asks, told once, tidied, lifted."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from serving.config.keys import WorkerReport
from serving.config.snapshot import Snapshot
from serving.control.audit import AuditLog
from serving.errors import NotFound, ServingError
from serving.files import stamp
from serving.quarantine import register
from serving.quarantine.decision import Key, Quarantined

__all__ = ["QuarantineKeeper", "configured_keys", "is_everywhere"]

_WHO: Final = "engine"


def configured_keys(snapshot: Snapshot) -> frozenset[Key]:
    """Every version in a snapshot, by the bytes of its file."""
    return frozenset(
        (model, version, staged.sha256)
        for model, versions in snapshot.staged.items()
        for version, staged in versions.items()
    )


def is_everywhere(revision: int, reports: list[WorkerReport]) -> bool:
    """Whether no worker may still load what an older revision names."""
    return all(report.revision >= revision for report in reports)


class QuarantineKeeper:
    """Reads and changes `DATA/quarantine.json` on behalf of the admin port.

    Args:
        data: the data directory.
        log: where new entries are told, beside the audit log.
    """

    def __init__(self, data: Path, log: logging.Logger) -> None:
        self._data = data
        self._log = log
        self._stamp: tuple[int, ...] | None = None
        self._entries: list[Quarantined] = []
        self._told: set[tuple[Key, float]] = set()

    @property
    def entries(self) -> list[Quarantined]:
        """What is in quarantine, oldest first; reads the file if it has changed."""
        found = stamp(self._data / register.FILE)
        if found != self._stamp:
            self._stamp = found
            self._entries = register.load(self._data).quarantined
        return self._entries

    async def lift(self, model: str, version: str) -> list[Quarantined]:
        """Let a version back.

        Raises:
            NotFound: it is not in quarantine. ServingError: the file cannot be written.
        """
        try:
            lifted = await asyncio.to_thread(register.lift, self._data, model, version)
        except OSError as error:
            raise ServingError(
                f"the quarantine cannot be written ({error.strerror}), so nothing was changed"
            ) from error
        if not lifted:
            raise NotFound(f"model '{model[:64]}' version '{version[:64]}' is not in quarantine")
        self._log.warning("%s/%s is let back from quarantine", model, version)
        return lifted

    async def tell(self, audit: AuditLog) -> None:
        """Write entries that nobody was told of into the audit log, each once. Raises OSError."""
        new = [one for one in self.entries if not one.reported]
        for one in new:
            if (one.key, one.since) in self._told:  # that it was could not be written down
                continue
            self._log.error("%s/%s is quarantined: %s", one.model, one.version, one.reason)
            await audit.record(
                who=_WHO, verb="quarantine", subject=f"{one.model}/{one.version}", result=one.reason
            )
            self._told.add((one.key, one.since))
        if new:
            keys = frozenset(one.key for one in new)
            await asyncio.to_thread(register.mark_reported, self._data, keys)

    async def forget_all_but(self, configured: frozenset[Key], audit: AuditLog) -> None:
        """Drop entries of versions that are not configured any more. Raises OSError."""
        if all(one.key in configured for one in self.entries):
            return
        for one in await asyncio.to_thread(register.keep_only, self._data, configured):
            await audit.record(
                who=_WHO,
                verb="lift",
                subject=f"{one.model}/{one.version}",
                result="ok: it is not configured any more",
            )
