"""The numbers a batcher keeps in the process's metrics file."""

from serving.metrics import Counter, MetricsFile

__all__ = ["BatchMeter"]

_EXACT = 64


class BatchMeter:
    """Counts one version's runs.

    Children of `size` appear when that size first runs, so a version that only ever runs
    single rows exports one. Sizes above 64 are counted under the next power of two.
    """

    def __init__(self, metrics: MetricsFile, model: str, version: str) -> None:
        self._metrics = metrics
        self._labels = {"model": model, "version": version}
        self._rows = metrics.histogram("sluice_batch_rows", **self._labels)
        self._sizes: dict[int, tuple[Counter, Counter]] = {}
        self._queue = metrics.gauge("sluice_queue_requests", **self._labels)
        self._waiting = 0

    def waits(self, requests: int) -> None:
        """Note how many requests wait for the session."""
        if requests != self._waiting:
            self._waiting = requests
            self._queue.set(requests)

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run that answered."""
        self._rows.observe(rows)
        counters = self._sizes.get(rows)
        if counters is None:
            counters = self._first(rows)
        runs, total = counters
        runs.inc()
        total.inc(seconds)

    def _first(self, rows: int) -> tuple[Counter, Counter]:
        size = str(rows if rows <= _EXACT else 1 << (rows - 1).bit_length())
        counters = (
            self._metrics.counter("sluice_batches_total", size=size, **self._labels),
            self._metrics.counter("sluice_batch_seconds_total", size=size, **self._labels),
        )
        self._sizes[rows] = counters
        return counters
