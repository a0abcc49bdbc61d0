"""A worker's features: one connection and near cache for all tables, and what is counted."""

from collections import Counter as Tally
from collections.abc import Mapping
from typing import Final

import numpy as np

from feature_cache.address import Address
from feature_cache.breaker import Breaker
from feature_cache.cache import Batch, FeatureCache
from feature_cache.near_cache import NearCache
from feature_cache.reader import Reader
from feature_cache.status import Status, describe
from feature_cache.store import RemoteStore
from feature_cache.views import FeatureView
from serving.clock import Clock
from serving.config.schema import FeaturesConfig
from serving.metrics import Counter, Histogram, MetricsFile

__all__ = ["FeatureTally", "Features", "summary"]

_FIRST_LOOK_SECONDS: Final = 0.2
_COUNTED_AT_ONCE: Final = 256
_FINE: Final = frozenset({int(Status.OK), int(Status.OK | Status.CACHED), 0})


class FeatureTally:
    """Counts rows by view and status, and the ages that requests saw; many requests at a time."""

    def __init__(self, metrics: MetricsFile) -> None:
        self._metrics = metrics
        self._rows: dict[tuple[str, int], Counter] = {}
        self._ages: dict[str, Histogram] = {}
        self._waiting: list[tuple[tuple[str, ...], list[list[int]], list[list[int]]]] = []
        self._fine: dict[tuple[tuple[str, ...], int], list[list[list[int]]]] = {}
        """By views and the bits that all of them had: the ages of `Batch.fine` ones."""

    def count(self, batch: Batch) -> None:
        """Take down what one request was given."""
        if batch.fine:
            alike = batch.views, batch.bits[0][0]
            seen = self._fine.get(alike)
            if seen is None:
                seen = self._fine[alike] = []
            seen.append(batch.ages)
            if len(seen) >= _COUNTED_AT_ONCE:
                self.publish()
            return
        self._waiting.append((batch.views, batch.bits, batch.ages))
        if len(self._waiting) >= _COUNTED_AT_ONCE:
            self.publish()

    def publish(self) -> None:
        """Bring the counters up to date; called from time to time."""
        fine, self._fine = self._fine, {}
        for (views, bit), all_of_one in fine.items():
            for at, view in enumerate(views):
                old = np.array([ages[at][0] for ages in all_of_one], np.float64)
                self._counter(view, bit).inc(len(old))
                self._histogram(view).observe_many(old[old >= 0] / 1e3)
        waiting, self._waiting = self._waiting, []
        seen: dict[str, tuple[list[int], list[int]]] = {}
        for views, all_bits, all_ages in waiting:
            for view, bits, ages in zip(views, all_bits, all_ages, strict=True):
                known_bits, known_ages = seen.setdefault(view, ([], []))
                known_bits += bits
                known_ages += ages
        for view, (bits, ages) in seen.items():
            for bit, count in Tally(bits).items():
                if bit:
                    self._counter(view, bit).inc(count)
            old = np.array(ages, np.float64)
            self._histogram(view).observe_many(old[old >= 0] / 1e3)

    def _counter(self, view: str, bit: int) -> Counter:
        counter = self._rows.get((view, bit))
        if counter is None:
            counter = self._rows[view, bit] = self._metrics.counter(
                "sluice_feature_rows_total", view=view, status=describe(bit)
            )
        return counter

    def _histogram(self, view: str) -> Histogram:
        histogram = self._ages.get(view)
        if histogram is None:
            histogram = self._ages[view] = self._metrics.histogram(
                "sluice_feature_age_seconds", view=view
            )
        return histogram


class Features:
    """Owns the store's connection; `cache` gives what one table's views need.

    Args:
        config: `features` of `gateway.yaml`.
        store: the gateway's store, for a configuration that names no other.
        metrics: this process's numbers.
        clock: whose wall clock ages are measured by.
    """

    def __init__(
        self, config: FeaturesConfig, store: str, metrics: MetricsFile, clock: Clock
    ) -> None:
        self._config = config
        self._metrics = metrics
        kept = int(config.near_cache)
        self._store = RemoteStore(Address.parse(config.store or store), tracking=kept > 0)
        self._reader = Reader(
            self._store,
            NearCache(kept, float(config.max_local_age)),
            timeout=float(config.timeout),
            breaker=Breaker(),
            wall=clock.wall,
        )
        self._store.link.start()
        self._cache: FeatureCache | None = None
        self._views: Mapping[str, FeatureView] = {}
        self._published: dict[str, int] = {}

    async def cache(self, views: Mapping[str, FeatureView]) -> FeatureCache:
        """A cache for these views: the one there is, if they have not changed."""
        if self._cache is None or views != self._views:
            self._views = dict(views)
            self._cache = FeatureCache(
                self._store, views, tenant=self._config.tenant, reader=self._reader
            )
            if await self._store.link.ready(_FIRST_LOOK_SECONDS):
                await self._cache.learn(list(views))
        return self._cache

    def publish(self) -> None:
        """Bring this process's numbers up to date; called from time to time."""
        reader, metrics = self._reader, self._metrics
        metrics.gauge("sluice_feature_cache_bytes").set(reader.near.bytes)
        metrics.gauge("sluice_feature_store_connected").set(self._store.link.connected)
        for outcome, value in (
            ("hit", reader.hits),
            ("miss", reader.misses),
            ("joined", reader.joined),
            ("refused", reader.refused),
        ):
            self._add(metrics.counter("sluice_feature_reads_total", outcome=outcome), value)
        for reason, value in (("timeout", reader.timeouts), ("error", reader.errors)):
            self._add(metrics.counter("sluice_feature_store_failures_total", reason=reason), value)

    @staticmethod
    def _add(counter: Counter, value: int) -> None:
        if value > counter.value:
            counter.inc(value - counter.value)

    async def close(self) -> None:
        """Drop the connection."""
        if self._cache is not None:
            await self._cache.close()
        await self._store.link.close()


def summary(batch: Batch) -> dict[str, str | int]:
    """Response parameters: `feature_status`, and `feature_age_ms` of the oldest value used.

    `feature_status` is `OK` where every view gave a fresh value, from the store or this process;
    else the words of each view, such as `person_profile=DEFAULTED|NOT_FOUND`.
    """
    if batch.fine:
        status, oldest = "OK", batch.oldest
    else:
        status = _status_words(batch)
        oldest = max([max(ages) for ages in batch.ages], default=-1)
    return (
        {"feature_status": status}
        if oldest < 0
        else {"feature_status": status, "feature_age_ms": oldest}
    )


def _status_words(batch: Batch) -> str:
    if all(bit in _FINE for bits in batch.bits for bit in bits):
        return "OK"
    words = []
    for view, bits in zip(batch.views, batch.bits, strict=True):
        every = 0
        for bit in bits:
            every |= bit
        words.append(f"{view}={describe(every) or 'SENT'}")
    return ",".join(words)
