"""The worker's end of the prediction log, and the process that looks after it."""

import asyncio
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path
from typing import Final

import msgspec

from serving.config.keys import node_name
from serving.config.schema import LogConfig
from serving.config.snapshot_codec import enc_hook
from serving.files import try_lock
from serving.metrics import MetricsFile
from serving.recording.layout import LogFolder
from serving.recording.no_log import NoLog, PredictionSink

__all__ = ["Housekeeping", "prediction_log"]

_LOG = logging.getLogger("prediction-log")
_TURN_SECONDS: Final = 2.0
_GIVE_UP_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 10.0


def prediction_log(
    config: LogConfig | None, data: Path, worker: str, pid: int, metrics: MetricsFile
) -> PredictionSink:
    """Begin to write, under a name that nobody ever had; or keep nothing, if so configured."""
    if config is None:
        return NoLog()
    # Arrow costs 40 MB and 0.1 s, which only those pay who log.
    from serving.recording.prediction_log import PredictionLog  # noqa: PLC0415
    from serving.worker.drift_counts import DriftCounts  # noqa: PLC0415

    name = f"{worker}-{pid}-{time.time_ns():x}"
    return PredictionLog(
        config,
        LogFolder(data / config.path),
        node_name(),
        name,
        metrics,
        observe=DriftCounts(data / "drift" / f"{name}.counts"),
    )


class Housekeeping:
    """Has one keeper run on this node, as the child of one of its workers.

    Workers compete for a lock; the winner starts the keeper and starts it again if it ends. With
    the worker its keeper dies, and another worker takes over.
    """

    def __init__(self, config: LogConfig | None, data: Path) -> None:
        self._config = config
        self._data = data
        self._child: Process | None = None
        self._lock: int | None = None

    async def run(self) -> None:
        """Until cancelled; then `close`."""
        if self._config is None:
            return
        while True:
            try:
                await self._turn(self._config)
            except OSError as error:  # a full disk: later, perhaps
                _LOG.warning("the log keeper cannot be started yet: %s", error)
            await asyncio.sleep(_TURN_SECONDS)

    async def close(self) -> None:
        """Have the keeper finish what it is at, for some seconds at most, and make room."""
        child = self._child
        if child is not None and child.returncode is None:
            child.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_GIVE_UP_SECONDS):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _turn(self, config: LogConfig) -> None:
        if self._lock is None:
            folder = self._data / "run"
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = try_lock(folder / "log-keeper.lock")
            if self._lock is None:
                return
        if self._child is not None and self._child.returncode is not None:
            _LOG.error("the log keeper ended with %d; starting it again", self._child.returncode)
            await asyncio.sleep(_RETRY_SECONDS)
            self._child = None
        if self._child is None:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "serving.recording.keeper",
                *("--log", str(self._data / config.path)),
                *("--metrics", str(self._data / "metrics")),
                *("--node", node_name()),
                *("--config", msgspec.json.encode(config, enc_hook=enc_hook).decode()),
                *("--parent", str(os.getpid())),
            )
