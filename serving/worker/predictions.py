"""The worker's end of the prediction log."""

import time
from pathlib import Path

from serving.config.keys import node_name
from serving.config.monitoring import LogConfig
from serving.metrics import MetricsFile
from serving.recording.layout import LogFolder
from serving.recording.no_log import NoLog, PredictionSink

__all__ = ["prediction_log"]


def prediction_log(
    config: LogConfig | None, data: Path, worker: str, pid: int, metrics: MetricsFile
) -> PredictionSink:
    """Begin to write, under a name that nobody ever had; or keep nothing, if so configured."""
    if config is None:
        return NoLog()
    # Arrow costs 40 MB and 0.1 s, which only those pay who log.
    from serving.recording.prediction_log import PredictionLog  # noqa: PLC0415

    name = f"{worker}-{pid}-{time.time_ns():x}"
    return PredictionLog(config, LogFolder(data / config.path), node_name(), name, metrics)
