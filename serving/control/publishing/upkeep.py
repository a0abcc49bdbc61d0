"""What goes on between the verbs: the store is kept as the journal says, old files are let go."""

import asyncio
import contextlib
import logging
from typing import Final

from serving.control.publishing.publication import Publication
from serving.control.publishing.stock import Stock
from serving.control.stores.store import Store, Subscription
from serving.errors import StoreUnavailable

__all__ = ["Upkeep"]

_RETRY_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 1.0
"""How often the store is compared with what should be in it."""


class Upkeep:
    """Knows whether the store answers, and repairs what it has lost.

    Args:
        store: where workers read.
        publication: what should be there.
        stock: staged model files.
        one_at_a_time: held by whoever changes what is served.
    """

    def __init__(
        self,
        store: Store,
        publication: Publication,
        stock: Stock,
        *,
        one_at_a_time: asyncio.Lock,
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._publication = publication
        self._stock = stock
        self._one_at_a_time = one_at_a_time
        self._log = log
        self.store_name = ""
        self.store_up = False

    async def until_store_answers(self) -> None:
        """Wait for the store. Raises InvalidConfig if it is unfit."""
        told = False
        while True:
            try:
                self.store_name = await self._store.check()
            except StoreUnavailable as error:
                if not told:
                    self._log.warning("waiting for the store: %s", error.message)
                    told = True
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.store_up = True
                return

    async def keep(self) -> None:
        """Compare the store with the journal for ever, and repair it; never returns.

        It looks every second, and at once when somebody announces a revision.
        """
        subscription: Subscription | None = None
        while True:
            try:
                if subscription is None:
                    subscription = await self._store.subscribe()
                await subscription.next(_LOOK_SECONDS)
                async with self._one_at_a_time:
                    await self._publication.reconcile()
                    await self._tidy_up()
                if not self.store_up:
                    self._log.warning("the store answers again")
                self.store_up = True
            except StoreUnavailable as error:
                if self.store_up:
                    self._log.warning("predictions go on, changes wait: %s", error.message)
                self.store_up = False
                if subscription is not None:
                    with contextlib.suppress(StoreUnavailable):
                        await subscription.close()
                    subscription = None
                await asyncio.sleep(_LOOK_SECONDS)

    async def _tidy_up(self) -> None:
        """Let go of what only older revisions needed, once no worker serves one."""
        current = self._publication.current
        unsettled = current is not None and not self._publication.hosts.is_settled(current)
        if not (unsettled or self._stock.may_hold_leftovers):
            return
        reports = await self._store.workers()
        if self._stock.may_hold_leftovers:
            await self._stock.clear(reports)
        if current is not None:
            await self._publication.hosts.settle(current, reports)
