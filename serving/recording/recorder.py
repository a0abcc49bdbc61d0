"""Record: append to a bounded ring; never waits, never fails the request."""

from collections import deque
from itertools import islice

from serving.metrics import MetricsFile
from serving.recording.record import MODEL, PredictionRecord

__all__ = ["Entry", "Recorder"]

Entry = tuple[float, str, str, str, str, str, str, float, int, str, int, int, float, float, float]
"""The fields of a `PredictionRecord`, in its order. A tuple costs a quarter of the struct."""


class Recorder:
    """Keep the newest `capacity` records in memory for whoever asks.

    Past that the oldest is replaced and counted (`sluice_records_total{outcome="replaced"}`);
    an answer is never delayed.
    """

    def __init__(self, metrics: MetricsFile, capacity: int = 1024) -> None:
        self._ring: deque[Entry] = deque(maxlen=capacity)
        self._capacity = capacity
        self._taken = 0
        self._kept = metrics.counter("sluice_records_total", outcome="kept")
        self._replaced = metrics.counter("sluice_records_total", outcome="replaced")

    def offer(self, entry: Entry) -> None:
        """Keep a record."""
        self._ring.append(entry)
        self._taken += 1

    def publish(self) -> None:
        """Bring the counters up to date; called from time to time, not per record."""
        self._kept.inc(self._taken - self._kept.value)
        self._replaced.inc(max(0, self._taken - self._capacity) - self._replaced.value)

    def recent(self, limit: int = 100, model: str = "") -> list[PredictionRecord]:
        """Return at most `limit` records, newest first."""
        wanted = (entry for entry in reversed(self._ring) if not model or entry[MODEL] == model)
        return [PredictionRecord(*entry) for entry in islice(wanted, limit)]
