"""How a replica follows what is applied: its process is replaced, the replica stays.

So Serve has nothing to roll. The replicas of a machine replace their workers one at a time (a
lock), as the local engine does; the first that cannot says so, and the others do not try.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from serving.config.applied import Failure, Orders, read_failure, read_orders, write_failure
from serving.config.schema import WorkersConfig
from serving.engine.ray_serve.kept import Kept
from serving.engine.rolling import LOOK_SECONDS, retire, start_successor
from serving.errors import EngineError
from serving.files import try_lock

__all__ = ["Succession"]

_TURN_SECONDS: Final = 0.1


class Succession:
    """Follows the orders for one replica.

    Args:
        data: where they are.
        engine: the engine's start that they must be for.
        make: makes a process of a generation; not started.
        refused: why worker so-and-so will not serve what is published.
        start_seconds: until a successor must serve.
    """

    def __init__(
        self,
        data: Path,
        engine: str,
        *,
        make: Callable[[int], Kept],
        refused: Callable[[Kept], Awaitable[str]],
        start_seconds: float,
    ) -> None:
        self._data = data
        self._engine = engine
        self._make = make
        self._refused = refused
        self._start_seconds = start_seconds
        self.scaling: dict[str, float] = {}
        """What the scaling policy is to go by, if somebody has applied it since the start."""

    def orders(self) -> Orders | None:
        """What is ordered; None if that was for another engine."""
        orders = read_orders(self._data)
        if orders is None or orders.engine != self._engine:
            return None
        if isinstance(orders.number, WorkersConfig):
            number = orders.number
            self.scaling = {
                "target_busy": number.target_busy,
                "target_in_flight": number.target_in_flight,
                "upscale_delay": float(number.upscale_delay),
                "downscale_delay": float(number.downscale_delay),
            }
        return orders

    async def worker(self, current: Callable[[], Kept], put: Callable[[Kept], None]) -> None:
        """Replace the worker whenever that is ordered, for ever; `put` makes one the current."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            orders = await asyncio.to_thread(self.orders)
            if orders is not None and self._due(orders, current()):
                async with self._turn():
                    orders = await asyncio.to_thread(self.orders)
                    if orders is not None and self._due(orders, current()):
                        await self._replace(orders, current(), put)

    async def control(self, current: Callable[[], Kept], put: Callable[[Kept], None]) -> None:
        """Start control again whenever that is ordered, for ever. There is never more than one."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            orders = await asyncio.to_thread(self.orders)
            if orders is not None and orders.control > current().member.generation:
                await current().process.stop()
                successor = self._make(orders.control)
                put(successor)
                successor.member.start()

    def _due(self, orders: Orders, kept: Kept) -> bool:
        failure = read_failure(self._data)
        failed = failure is not None and failure.serial == orders.serial
        return kept.member.generation < orders.workers and not failed

    async def _replace(self, orders: Orders, old: Kept, put: Callable[[Kept], None]) -> None:
        successor = self._make(orders.workers)
        try:
            await start_successor(
                successor.member,
                seconds=self._start_seconds,
                refused=lambda: self._refused(successor),
            )
        except BaseException as error:
            successor.forget()
            if not isinstance(error, EngineError):
                raise
            failure = Failure(
                serial=orders.serial, reason=error.message, kept=old.member.generation
            )
            await asyncio.to_thread(write_failure, self._data, failure)
            return
        put(successor)
        await retire(old.member)
        old.forget()

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        path = self._data / "run" / "roll.lock"
        while (lock := try_lock(path)) is None:  # noqa: ASYNC110 - another process has it
            await asyncio.sleep(_TURN_SECONDS)
        try:
            yield
        finally:
            os.close(lock)
