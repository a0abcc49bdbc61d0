"""The workers of the local engine: how many there are, and by which settings they go.

They come and go one at a time. Each has the lowest number that is free when it starts; while
workers are replaced there is one more than was asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from serving.config.applied import (
    Failure,
    Orders,
    read_failure,
    read_orders,
    startable,
    write_failure,
)
from serving.config.schema import WorkersConfig
from serving.engine.rolling import LOOK_SECONDS, Member, retire, start_successor
from serving.engine.supervised import ProcessSpec, SupervisedProcess
from serving.errors import EngineError

__all__ = ["Crew", "lowest_free"]


class Launches(Protocol):
    """What a crew needs to start a worker."""

    def __call__(self, number: int, generation: int) -> ProcessSpec:
        """Build the specification of one worker."""
        ...


def lowest_free(taken: set[int]) -> int:
    """The lowest number that nobody has."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


class Crew:
    """Keeps as many workers as are wanted, replaced when orders say so.

    Args:
        data: where orders are.
        launch: makes the specification of a worker.
        supervise: makes its supervisor.
        socket: its private socket.
        refused: says why worker so-and-so will not serve what is published.
        say: takes a line for people.
        start_seconds: until a successor must serve.
    """

    def __init__(
        self,
        data: Path,
        *,
        launch: Launches,
        supervise: Callable[[ProcessSpec], SupervisedProcess],
        socket: Callable[[int], Path],
        refused: Callable[[str, int | None], Awaitable[str]],
        say: Callable[[str], None],
        start_seconds: float,
    ) -> None:
        self.members: Final[list[Member]] = []
        self._data = data
        self._launch = launch
        self._supervise = supervise
        self._socket = socket
        self._refused = refused
        self._say = say
        self._start_seconds = start_seconds
        self._wanted = 0

    def start(self, number: int) -> None:
        """Start this many, without waiting for any."""
        self._wanted = number
        for _ in range(number):
            self._add(0).start()

    async def follow(self, control: Callable[[int], Awaitable[None]]) -> None:
        """Do what is ordered, for ever. `control` replaces control by one of a generation."""
        seen = 0
        while True:
            orders = await asyncio.to_thread(read_orders, self._data)
            if orders is not None and orders.serial != seen:
                seen = orders.serial
                try:
                    await self._carry_out(orders)
                    await control(orders.control)
                except EngineError as error:
                    await self._give_up(orders, error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _carry_out(self, orders: Orders) -> None:
        if orders.number is not None:
            number = orders.number
            self._wanted = number.min if isinstance(number, WorkersConfig) else number
        while any(one.generation < orders.workers for one in self.members):
            self._say(f"replacing workers, {self._behind(orders)} to go")
            await self._come(orders.workers)
            old = next(one for one in self.members if one.generation < orders.workers)
            await self._go(old)
        while len(self.members) < self._wanted:
            await self._come(startable(orders, read_failure(self._data)))
        while len(self.members) > self._wanted:
            await self._go(self.members[-1])

    def _behind(self, orders: Orders) -> int:
        return sum(one.generation < orders.workers for one in self.members)

    async def _come(self, generation: int) -> None:
        member = self._add(generation)

        async def refused() -> str:
            return await self._refused(member.name, member.process.report.pid)

        try:
            await start_successor(member, seconds=self._start_seconds, refused=refused)
        except BaseException:
            self.members.remove(member)
            raise

    async def _go(self, member: Member) -> None:
        await retire(member)
        self.members.remove(member)

    def _add(self, generation: int) -> Member:
        number = lowest_free({one.number for one in self.members})
        process = self._supervise(self._launch(number, generation))
        member = Member(process, number, generation, self._socket(number))
        self.members.append(member)
        return member

    async def _give_up(self, orders: Orders, error: EngineError) -> None:
        kept = min((one.generation for one in self.members), default=0)
        self._say(f"stopped, what runs goes on: {error.message}")
        failure = Failure(serial=orders.serial, reason=error.message, kept=kept)
        await asyncio.to_thread(write_failure, self._data, failure)
