"""Watches the traffic of every model that has a reference: takes counts, judges, remembers.

Drift, data quality, harm by labels and lost records are weighed together, every part of a window.
What it concludes is shown by `/api/v1/drift`, `/metrics` and the log; `serving.control.training`
acts on it. Everything it knows is in files, so a restart goes on where this process ended.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from serving.clock import Clock
from serving.config.frozen_bins import Reference, digest_of
from serving.config.schema import MonitoringConfig
from serving.config.snapshot import Snapshot
from serving.control.monitoring.drift_parts import DriftParts
from serving.control.monitoring.events import MonitoringEvent, MonitoringEvents, Place
from serving.control.monitoring.harm_state import Harm
from serving.drift.options import tolerances
from serving.drift.standing import Standing, Watched, foreign_outputs, standing
from serving.drift.verdict import Evidence, Verdict, judge
from serving.drift.windows import BLOCKS, Part, stretches
from serving.traffic.rolled import effective

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
        harm: by version, how a model's losses stand.
        lost: records that the prediction log has dropped, ever. Reads files.
        events: where changes of level are kept.
        clock: the time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        current: Callable[[], Snapshot | None],
        harm: Callable[[str], Mapping[str, Harm]],
        lost: Callable[[], int],
        events: MonitoringEvents,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._current = current
        self._harm = harm
        self._lost = lost
        self._clock = clock
        self.events = events
        self._losses: deque[tuple[float, int]] = deque()
        """When, and how many records were lost by then."""
        self._store: DriftParts | None = None
        self._parts: list[Part] = []
        self._judged = 0.0
        self._one_at_a_time = threading.Lock()
        self._digests: dict[int, tuple[Reference, str]] = {}
        self.watched: dict[Place, Watched] = {}
        """By model, version and role."""
        self.verdicts: dict[Place, Verdict] = {}
        """Of those, and of production where a model has labels and no reference."""

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
        if snapshot is None or not (windows := _windows(snapshot)):
            return
        now = self._clock.wall()
        with self._one_at_a_time:
            self._losses.append((now, self._lost()))
            while len(self._losses) > 2 and self._losses[1][0] < now - max(windows):
                self._losses.popleft()
            if watched := _watched(snapshot):
                self._take(now, max(float(one.window) for one in watched.values()))
            self._judge(snapshot, self._parts, now)

    def _take(self, now: float, longest: float) -> None:
        oldest = now - longest * _WINDOWS
        if self._store is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store = DriftParts(self._folder, keep=longest * _WINDOWS)
            self._parts = self._store.since(oldest)
        part = self._store.take(now)
        if part is not None:
            self._parts.append(part)
        self._parts = [one for one in self._parts if one.end > oldest]

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
        found: dict[Place, Watched] = {}
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
                verdict = self._weighed(name, key.version, monitoring, one, now)
                found[name, key.version, key.role] = Watched(standing=one, verdict=verdict)
        verdicts = {place: watched.verdict for place, watched in found.items()}
        for name, config in effective(snapshot).items():
            version = config.traffic.production
            if config.monitoring is not None and config.monitoring.retrain is not None:
                verdicts.setdefault(
                    (name, version, "production"),
                    self._weighed(name, version, config.monitoring, None, now),
                )
        # First, or a disk that takes no event would stop what is concluded as well.
        self.watched, self.verdicts = found, verdicts
        for place, verdict in verdicts.items():
            self._tell(place, verdict, now)

    def _tell(self, place: Place, verdict: Verdict, now: float) -> None:
        """Say it when the level changes, not every time."""
        level = verdict.level
        if level == self.events.levels.get(place, "none"):
            return
        model, version, role = place
        event = MonitoringEvent(
            at=now, model=model, version=version, role=role, level=level, reasons=verdict.reasons
        )
        self.events.record(event)
        _LOG.log(
            logging.WARNING if level in {"alert", "trigger"} else logging.INFO,
            "%s %s (%s): %s: %s",
            *place,
            level,
            "; ".join(verdict.reasons) or "nothing is wrong any more",
        )

    def _weighed(
        self,
        model: str,
        version: str,
        monitoring: MonitoringConfig,
        one: Standing | None,
        now: float,
    ) -> Verdict:
        harm = self._harm(model).get(version)
        return judge(
            Evidence(
                drift=one.drift if one is not None else None,
                quality=one.quality if one is not None else None,
                realised=harm.realised if harm is not None else None,
                change_seen=harm.change_seen if harm is not None else None,
                coverage=harm.coverage if harm is not None else None,
                due=harm.due if harm is not None else 0,
                lost_records=self._lost_since(now - float(monitoring.window)),
            ),
            tolerances(monitoring),
        )

    def _lost_since(self, moment: float) -> int:
        if not self._losses:
            return 0
        before = [lost for at, lost in self._losses if at <= moment] or [self._losses[0][1]]
        return max(0, self._losses[-1][1] - before[-1])

    def _digest(self, reference: Reference) -> str:
        known = self._digests.get(id(reference))
        if known is None:
            known = self._digests[id(reference)] = reference, digest_of(reference)
        return known[1]

    def _part_seconds(self) -> float:
        snapshot = self._current()
        windows = _windows(snapshot) if snapshot is not None else []
        return max(_LEAST_SECONDS, min(windows, default=_LEAST_SECONDS * BLOCKS) / BLOCKS)


def _windows(snapshot: Snapshot) -> list[float]:
    """Lengths of the windows of every model that is watched in any way, in seconds."""
    return [
        float(config.monitoring.window)
        for config in snapshot.models.values()
        if config.monitoring is not None
    ]


def _watched(snapshot: Snapshot) -> Mapping[str, MonitoringConfig]:
    return {
        name: config.monitoring
        for name, config in snapshot.models.items()
        if name in snapshot.references and config.monitoring is not None
    }
