"""Watches the traffic of every model that has a reference: takes counts, judges, remembers.

What it concludes is shown by `/api/v1/drift`, `/metrics` and the log; who acts on it is told by
`listen`. Everything it knows is in files, so a restart goes on where this process ended.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from serving.clock import Clock
from serving.config.frozen_bins import Reference, digest_of
from serving.config.monitoring import MonitoringConfig
from serving.config.snapshot import Snapshot
from serving.control.drift_parts import DriftParts
from serving.drift.options import tolerances
from serving.drift.standing import Standing, Watched, foreign_outputs, standing
from serving.drift.verdict import Evidence, judge
from serving.drift.windows import BLOCKS, Part, stretches

__all__ = ["DriftMonitor"]

_WINDOWS: Final = 48
"""Windows that a report looks back."""

_LEAST_SECONDS: Final = 1.0
_FRESH_SECONDS: Final = 1.0
_LOG = logging.getLogger("drift")


class DriftMonitor:
    """One per control process.

    Args:
        folder: where workers count.
        current: what is published; None before the first time.
        clock: the time.
    """

    def __init__(self, folder: Path, current: Callable[[], Snapshot | None], clock: Clock) -> None:
        self._folder = folder
        self._current = current
        self._clock = clock
        self._store: DriftParts | None = None
        self._parts: list[Part] = []
        self._judged = 0.0
        self._one_at_a_time = threading.Lock()
        self._digests: dict[int, tuple[Reference, str]] = {}
        self.watched: dict[tuple[str, str, str], Watched] = {}
        """By model, version and role."""

    async def keep(self) -> None:
        """Take counts and judge, for ever; an error costs a turn."""
        while True:
            try:
                await asyncio.to_thread(self.turn)
            except OSError as error:
                _LOG.warning("drift counts cannot be kept: %s", error)
            except Exception:  # noqa: BLE001 - figures are not worth the admin port
                _LOG.exception("drift cannot be judged")
            await asyncio.sleep(self._part_seconds())

    def turn(self) -> None:
        """Take what was counted and judge every model anew. Blocks on the disk."""
        snapshot = self._current()
        if snapshot is None or not _watched(snapshot):
            return
        now = self._clock.wall()
        longest = max(float(one.window) for one in _watched(snapshot).values())
        oldest = now - longest * _WINDOWS
        if self._store is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store = DriftParts(self._folder, keep=longest * _WINDOWS)
            self._parts = self._store.since(oldest)
        with self._one_at_a_time:
            part = self._store.take(now)
            if part is not None:
                self._parts.append(part)
            self._parts = [one for one in self._parts if one.end > oldest]
            self._judge(snapshot, self._parts, now)

    def look(self) -> None:
        """Judge with what was counted since the last part too: somebody is looking.

        Blocks on the disk; does nothing if it was done a moment ago. Raises OSError.
        """
        snapshot, store, now = self._current(), self._store, self._clock.wall()
        if snapshot is None or store is None or now - self._judged < _FRESH_SECONDS:
            return
        with self._one_at_a_time:
            part = store.peek(now)
            self._judge(snapshot, self._parts + ([part] if part is not None else []), now)

    def _judge(self, snapshot: Snapshot, parts: Sequence[Part], now: float) -> None:
        self._judged = now
        found: dict[tuple[str, str, str], Watched] = {}
        for name, monitoring in _watched(snapshot).items():
            reference = snapshot.references[name]
            digest = self._digest(reference)
            keys = {
                key
                for part in parts
                for key in part.counts
                if key.model == name and key.reference == digest
            }
            for key in keys:
                one = standing(
                    model=name,
                    version=key.version,
                    role=key.role,
                    reference=reference,
                    monitoring=monitoring,
                    found=stretches(parts, key, float(monitoring.window))[-_WINDOWS:],
                    at=now,
                    foreign=foreign_outputs(reference, snapshot.staged.get(name, {}), key.version),
                )
                found[name, key.version, key.role] = _weighed(monitoring, one)
        for place, watched in found.items():
            self._tell(place, watched)
        self.watched = found

    def _tell(self, place: tuple[str, str, str], watched: Watched) -> None:
        """Say it when the level changes, not every time."""
        before = self.watched.get(place)
        level = watched.verdict.level
        if level == (before.verdict.level if before is not None else "none"):
            return
        words = "; ".join(watched.verdict.reasons) or "nothing drifts any more"
        _LOG.log(
            logging.WARNING if level in {"alert", "trigger"} else logging.INFO,
            "%s %s (%s): %s: %s",
            *place,
            level,
            words,
        )

    def _digest(self, reference: Reference) -> str:
        known = self._digests.get(id(reference))
        if known is None:
            known = self._digests[id(reference)] = reference, digest_of(reference)
        return known[1]

    def _part_seconds(self) -> float:
        snapshot = self._current()
        windows = [
            float(monitoring.window)
            for monitoring in (_watched(snapshot).values() if snapshot is not None else ())
        ]
        return max(_LEAST_SECONDS, min(windows, default=_LEAST_SECONDS * BLOCKS) / BLOCKS)


def _weighed(monitoring: MonitoringConfig, one: Standing) -> Watched:
    verdict = judge(
        Evidence(drift=one.drift, quality=one.quality),
        tolerances(monitoring),
    )
    return Watched(standing=one, verdict=verdict)


def _watched(snapshot: Snapshot) -> Mapping[str, MonitoringConfig]:
    return {
        name: config.monitoring
        for name, config in snapshot.models.items()
        if name in snapshot.references and config.monitoring is not None
    }
