"""Field lists of rows that other processes wrote: looked up in the store when one is met."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from feature_cache.codec import Corrupt, Layout
from feature_cache.errors import StoreRefused, Unavailable
from feature_cache.plan import PlannedView
from feature_cache.store import Store

__all__ = ["Schemas"]

_REFRESH_SECONDS: Final = 1.0
"""A field list that was looked for in vain is not looked for again before this."""


class Schemas:
    """What is known of each view's layouts; `layouts` grows in place, by view and schema id."""

    def __init__(self, store: Store, views: Mapping[str, PlannedView]) -> None:
        self._store = store
        self._views = views
        self.layouts = {name: {view.layout.schema_id: view.layout} for name, view in views.items()}
        self._looked: dict[str, float] = {}
        self._searches: dict[str, asyncio.Task[None]] = {}

    async def learn(self, views: Sequence[str], deadline: float, patience: float) -> bool:
        """Look for field lists that are not known here; true if any was found.

        Waits until `deadline` (loop seconds), and not longer than `patience` seconds.

        One search a view at a time, and a second between two in vain.
        """
        now = asyncio.get_running_loop().time()
        before = sum(len(layouts) for layouts in self.layouts.values())
        searches = self.look(views)
        if searches:
            wait = max(0.0, min(deadline - now, patience))
            await asyncio.wait(searches, timeout=wait)
        return sum(len(layouts) for layouts in self.layouts.values()) > before

    def look(self, views: Sequence[str]) -> list["asyncio.Task[None]"]:
        """Begin to look for field lists, unless that was in vain a moment ago; no waiting."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for name in views:
            if name not in self._searches and now >= self._looked.get(name, 0.0):
                self._looked[name] = now + _REFRESH_SECONDS
                task = loop.create_task(self._search(name))
                self._searches[name] = task
                task.add_done_callback(lambda _, name=name: self._searches.pop(name, None))  # type: ignore[misc]
        return [self._searches[name] for name in views if name in self._searches]

    async def _search(self, name: str) -> None:
        known = self.layouts[name]
        try:
            found = await self._store.schemas(self._views[name].space.schemas)
        except (Unavailable, StoreRefused):
            return
        for schema_id, described in found.items():
            try:
                layout = Layout.parse(described)
            except Corrupt:
                continue
            if layout.schema_id == schema_id:  # else somebody wrote a list under another's id
                known.setdefault(schema_id, layout)

    async def close(self) -> None:
        """End the searches under way."""
        searches = tuple(self._searches.values())
        for task in searches:
            task.cancel()
        await asyncio.gather(*searches, return_exceptions=True)
