"""Record: append to a bounded ring; never waits, never fails the request."""

from collections import deque
from itertools import islice

from serving.metrics import MetricsFile
from serving.recording.record import PredictionRecord

__all__ = ["Recorder"]


class Recorder:
    """Keep the newest `capacity` records in memory for whoever asks.

    Past that the oldest is replaced and counted (`sluice_records_total{outcome="replaced"}`);
    an answer is never delayed.
    """

    def __init__(self, metrics: MetricsFile, capacity: int = 1024) -> None:
        self._ring: deque[PredictionRecord] = deque(maxlen=capacity)
        self._kept = metrics.counter("sluice_records_total", outcome="kept")
        self._replaced = metrics.counter("sluice_records_total", outcome="replaced")

    def offer(self, record: PredictionRecord) -> None:
        """Keep a record."""
        ring = self._ring
        if len(ring) == ring.maxlen:
            self._replaced.inc()
        ring.append(record)
        self._kept.inc()

    def recent(self, limit: int = 100, model: str = "") -> list[PredictionRecord]:
        """Return at most `limit` records, newest first."""
        wanted = (record for record in reversed(self._ring) if not model or record.model == model)
        return list(islice(wanted, limit))
