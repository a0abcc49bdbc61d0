"""Control's way to the feature store: rows that are pushed, checked and written."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from feature_cache.address import Address
from feature_cache.cache import FeatureCache
from feature_cache.durations import milliseconds
from feature_cache.errors import StoreRefused, Unavailable
from feature_cache.ingest import Reject, Rows, objects
from feature_cache.store import RemoteStore
from feature_cache.views import FeatureView
from serving.clock import Clock
from serving.config.schema import FeaturesConfig
from serving.errors import InvalidRequest, NotFound, StoreUnavailable

__all__ = ["FeatureWriter", "Written"]

_SHOWN_REJECTS: Final = 20


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What became of rows that fit.

    `not_newer`: the store has one that is as new; `expired`: older than the view's keep_for.
    """

    written: int = 0
    not_newer: int = 0
    expired: int = 0


class FeatureWriter:
    """One connection, over the views that are being served.

    Args:
        config: `features` of `gateway.yaml`.
        store: the gateway's store, for a configuration that names no other.
        views: those of the configuration served now.
        clock: wall-clock time of rows that state none.
    """

    def __init__(
        self,
        config: FeaturesConfig,
        store: str,
        views: Callable[[], Mapping[str, FeatureView]],
        clock: Clock,
    ) -> None:
        self.address: Final = Address.parse(config.store or store)
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """Rows by view, source (push, stream) and outcome."""
        self.lag: dict[str, int] = {}
        """Entries of each view's stream that wait to be read."""
        self._tenant = config.tenant
        self._views = views
        self._clock = clock
        self._store = RemoteStore(self.address, tracking=False)
        self._cache: FeatureCache | None = None

    @property
    def views(self) -> Mapping[str, FeatureView]:
        """Those of the configuration served now."""
        return self._views()

    def start(self) -> None:
        """Begin to connect. Needs a running loop."""
        self._store.link.start()

    async def close(self) -> None:
        """Drop the connection."""
        await self._store.link.close()

    async def push(self, name: str, rows: Sequence[Any]) -> Written:
        """Write all of these rows, or, if one does not fit, none.

        Raises:
            NotFound: no such view. InvalidRequest: naming the rows that do not fit.
            StoreUnavailable: some may be written; sending them again is safe.
        """
        view = self.views.get(name)
        if view is None:
            raise NotFound(f"no view '{name}'; there is {', '.join(sorted(self.views)) or 'none'}")
        if view.source != "store":
            raise InvalidRequest(f"the view '{name}' is written by Feast; it is only read here")
        fit, _, rejects = self.check(view, rows)
        if rejects:
            self.counts[name, "push", "rejected"] += len(rejects)
            said = "; ".join(f"row {one.row}: {one.reason}" for one in rejects[:_SHOWN_REJECTS])
            more = len(rejects) - _SHOWN_REJECTS
            said += f"; and {more} more" if more > 0 else ""
            raise InvalidRequest(f"nothing was written, because of {said}")
        return await self.write(view, fit, "push")

    def check(self, view: FeatureView, rows: Sequence[Any]) -> tuple[Rows, list[int], list[Reject]]:
        """See `feature_cache.ingest.objects`."""
        return objects(view, rows, int(self._clock.wall() * 1e3))

    async def write(self, view: FeatureView, rows: Rows, source: str) -> Written:
        """Write rows that fit. Raises StoreUnavailable; writing them again is safe."""
        oldest_ms = int(self._clock.wall() * 1e3) - milliseconds(view.keep_for)
        expired = int((rows.event_ms <= oldest_ms).sum())
        try:
            taken = await self._over(view).write(
                view.view, rows.entities, rows.columns, rows.event_ms, rows.nulls
            )
        except StoreRefused as error:
            raise StoreUnavailable(f"the feature store refuses to write: {error}") from error
        except Unavailable as error:
            raise StoreUnavailable(f"the feature store does not answer: {error}") from error
        written = sum(taken)
        answer = Written(written=written, not_newer=len(rows) - written - expired, expired=expired)
        for outcome in ("written", "not_newer", "expired"):
            self.counts[view.view, source, outcome] += getattr(answer, outcome)
        return answer

    def _over(self, view: FeatureView) -> FeatureCache:
        """A cache that knows the view as it is now."""
        if self._cache is None or self._cache.views.get(view.view) != view:
            self._cache = FeatureCache(
                self._store, self.views, tenant=self._tenant, near_cache_bytes=0
            )
        return self._cache
