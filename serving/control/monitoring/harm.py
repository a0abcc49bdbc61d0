"""Watches what models lose, by their labels: asks the joiner, compares, remembers.

Predictions and labels are joined in a child process of its own, so that labels that come in never
wait for it. It is asked thirty times a window, and is at rest nine tenths of the time at least,
however large the log is.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from serving.clock import Clock
from serving.config.schema import GatewayConfig, MonitoringConfig, PredictionConfig, RetrainConfig
from serving.config.snapshot import Snapshot
from serving.control.labels.desk import taken
from serving.control.labels.joiner_orders import Losses, LossesTold
from serving.control.labels.joiner_process import Joiner
from serving.control.monitoring.harm_state import Harm, advance, read_known, terms_of, write_known
from serving.drift.windows import BLOCKS
from serving.errors import Overloaded, SluiceError
from serving.recording.joined import JoinPlan

__all__ = ["HarmMonitor"]

_LEAST_SECONDS: Final = 1.0
_REST: Final = 9
"""Seconds of rest after each second of joining."""

_QUICK_SECONDS: Final = 12.0
"""A tenth of what the joiner is given: twice the time would do as well."""

_WINDOWS: Final = 48
"""Windows before the horizon that are looked back."""

_STALE_WINDOWS: Final = 3
_MOST: Final = 50_000
"""Single losses of one answer; about half a megabyte."""

_KEEPER_SECONDS: Final = 10.0
"""From the end of a segment to its rows being Parquet, generously."""

_LOG = logging.getLogger("harm")


class HarmMonitor:
    """One per control process.

    Args:
        folder: where what is known is kept.
        current: what is published; None before the first time.
        gateway: `gateway.yaml` as it is gone by.
        data: the data directory.
        clock: the time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        current: Callable[[], Snapshot | None],
        gateway: Callable[[], GatewayConfig],
        data: Path,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._current = current
        self._gateway = gateway
        self._data = data
        self._clock = clock
        self._joiner = Joiner()
        self._due: dict[str, float] = {}
        self._shorter: dict[str, int] = {}
        self._said: dict[str, str] = {}
        self._found: dict[str, dict[str, Harm]] = {}
        self.problems: dict[str, str] = {}
        """By model, why its losses are not known."""

    def of(self, model: str) -> Mapping[str, Harm]:
        """By version, how it stands, as far as that is known and not too old."""
        snapshot = self._current()
        config = snapshot.models.get(model) if snapshot is not None else None
        if config is None or config.monitoring is None or config.monitoring.retrain is None:
            return {}
        oldest = self._clock.wall() - max(60.0, _STALE_WINDOWS * float(config.monitoring.window))
        return {
            version: harm
            for version, harm in self._found.get(model, {}).items()
            if version in config.versions and harm.at >= oldest
        }

    async def keep(self) -> None:
        """Look at every model when it is due, for ever; a failure costs a turn."""
        try:
            while True:
                for model in _watched(self._current()):
                    await self._turn(model)
                await asyncio.sleep(_LEAST_SECONDS)
        finally:
            await self._joiner.close()

    async def _turn(self, model: str) -> None:
        begun = self._clock.monotonic()
        if begun < self._due.get(model, 0.0):
            return
        problem, more = "", False
        try:
            more = await self.look(model)
        except SluiceError as error:
            problem = error.message
            if isinstance(error, Overloaded):
                self._shorter[model] = self._shorter.get(model, 0) + 1
        except OSError as error:
            problem = f"what is known of losses cannot be kept: {error.strerror}"
        except Exception:  # noqa: BLE001 - figures are not worth the admin port
            _LOG.exception("losses of %s cannot be judged", model)
            problem = "losses cannot be judged; control's log says why"
        if problem and self._said.get(model) != problem:
            _LOG.warning("%s: harm is not seen: %s", model, problem)
        self._said[model] = self.problems[model] = problem
        now = self._clock.monotonic()
        if not problem and now - begun < _QUICK_SECONDS and self._shorter.get(model):
            self._shorter[model] -= 1  # labels or rows have become fewer: look further back again
        watched = _watched(self._current()).get(model)
        pause = float(watched.window) / BLOCKS if watched is not None and not more else 0.0
        self._due[model] = now + max(_LEAST_SECONDS, pause, _REST * (now - begun))

    async def look(self, model: str) -> bool:
        """Look at one model now; whether more single losses wait to be taken.

        Raises:
            SluiceError: the joiner cannot do it. OSError: the disk does not keep it.
        """
        snapshot = self._current()
        monitoring = _watched(snapshot).get(model)
        log = self._gateway().log
        if snapshot is None or monitoring is None or log is None:
            return False
        retrain, prediction = monitoring.retrain, monitoring.prediction
        assert retrain is not None
        assert prediction is not None
        now = self._clock.wall()
        path = self._folder / f"{model}.json"
        terms = terms_of(monitoring, retrain)
        known = await asyncio.to_thread(read_known, path, terms)
        visible = now - float(log.segment_age) - _KEEPER_SECONDS
        order = Losses(
            plan=self._plan(snapshot, model, monitoring, prediction, now),
            metric=retrain.metric,
            window=float(monitoring.window),
            after=known.read,
            upto=known.settled(visible),
            most=_MOST,
        )
        told = await self._joiner.ask(self._data / log.path, order, LossesTold)
        files = {
            version: staged.sha256 for version, staged in snapshot.staged.get(model, {}).items()
        }
        known, found = advance(known, told, files, retrain, now)
        await asyncio.to_thread(write_known, path, known)
        self._found[model] = found
        return told.more

    def _plan(
        self,
        snapshot: Snapshot,
        model: str,
        monitoring: MonitoringConfig,
        prediction: PredictionConfig,
        now: float,
    ) -> JoinPlan:
        # A log too large to be joined in time is looked at over half the time, and so on.
        back = float(monitoring.labels.horizon) + _WINDOWS * float(monitoring.window)
        back = max(back / 2 ** self._shorter.get(model, 0), 2 * float(monitoring.window))
        return JoinPlan(
            model=model,
            task=prediction.task,
            decision=prediction.decision,
            score=prediction.score,
            threshold=prediction.threshold,
            entity=sorted(taken(snapshot.models[model]).entity),
            horizon=float(monitoring.labels.horizon),
            since=max(0.0, now - back),
            until=now + 60.0,  # a worker's clock may be ahead
            now=now,
        )


def _watched(snapshot: Snapshot | None) -> dict[str, MonitoringConfig]:
    """Models whose losses somebody wants to know."""
    if snapshot is None:
        return {}
    return {
        name: config.monitoring
        for name, config in snapshot.models.items()
        if config.monitoring is not None and _wants(config.monitoring)
    }


def _wants(monitoring: MonitoringConfig) -> bool:
    retrain: RetrainConfig | None = monitoring.retrain
    return retrain is not None and monitoring.prediction is not None
