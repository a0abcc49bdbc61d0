"""A node does what control on another node says, through the store, and says what happens here.

Every replica catches up once, before it starts its process. Then one of a data directory, whoever
holds a lock, follows; where control writes the files itself, nobody has to. When the store is away
the node goes by what is on its disk.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from serving.clock import Clock
from serving.config.directions import (
    Directions,
    begin_anew,
    decode_directions,
    encode_report,
    node_report,
    read_taken,
    take_over,
)
from serving.config.keys import (
    DIRECTIONS_CHANNEL,
    DIRECTIONS_KEY,
    NODES_KEY,
    REPORT_SECONDS,
    node_name,
)
from serving.files import stamp, try_lock
from serving.quarantine import register
from serving.worker.snapshots import connect

if TYPE_CHECKING:
    import redis.asyncio as redis
    from redis.asyncio.client import PubSub

__all__ = ["NodeFollower"]

_LOOK_SECONDS: Final = 0.25
"""How often the disk is looked at for something to tell."""

_READ_AGAIN_SECONDS: Final = 5.0
"""A push can be lost; the key is read again this often."""

_RECONNECT_SECONDS: Final = 0.5
_CATCH_UP_SECONDS: Final = 3.0


class NodeFollower:
    """Keeps one data directory as control wants it.

    Args:
        data: it.
        engine: names the start of the gateway.
        url: the store's address; empty: there is no other node.
        clock: wall-clock seconds of reports.
        say: takes a line for people.
    """

    def __init__(
        self, data: Path, engine: str, url: str, *, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self._data = data
        self._engine = engine
        self._url = url
        self._clock = clock
        self._say = say
        self._told: tuple[object, ...] = ()
        self._said = ""

    async def catch_up(self) -> None:
        """Take over what holds now, if the store answers in time. Raises OSError."""
        await asyncio.to_thread(begin_anew, self._data, self._engine)
        client = connect(self._url)
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                await self._fetch(client)
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()

    async def run(self) -> None:
        """Follow, once it is our turn, for ever, until cancelled."""
        held: int | None = None
        try:
            while True:
                try:
                    if held is None:
                        held = await asyncio.to_thread(try_lock, self._data / "run" / "node.lock")
                    if held is not None and not await asyncio.to_thread(self._control_is_here):
                        await self._follow()
                except RedisError:
                    pass  # the worker's feed says that the store is away
                except Exception as error:  # noqa: BLE001 - a node must not stop following
                    self._tell_people(error)
                await asyncio.sleep(_RECONNECT_SECONDS)
        finally:
            if held is not None:
                os.close(held)

    def _control_is_here(self) -> bool:
        taken = read_taken(self._data)
        return taken.own and taken.engine == self._engine

    async def _follow(self) -> None:
        """Until the store is away, or control is here."""
        client = connect(self._url)
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(DIRECTIONS_CHANNEL)
                while not await asyncio.to_thread(self._control_is_here):
                    await self._fetch(client)
                    await self._until_pushed(client, pubsub)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    async def _until_pushed(self, client: "redis.Redis", pubsub: "PubSub") -> None:
        """Report until control has something new, or it is time to look by ourselves."""
        until = time.monotonic() + _READ_AGAIN_SECONDS
        reported = 0.0
        while time.monotonic() < until:
            news = await asyncio.to_thread(self._what_may_be_told)
            if news != self._told or time.monotonic() - reported >= REPORT_SECONDS:
                await self._report(client)
                self._told, reported = news, time.monotonic()
            message = await pubsub.get_message(
                ignore_subscribe_messages=True, timeout=_LOOK_SECONDS
            )
            if message is not None:
                return

    async def _fetch(self, client: "redis.Redis") -> None:
        content = await client.hget(DIRECTIONS_KEY, self._engine)
        directions = decode_directions(content)
        if directions is not None and await asyncio.to_thread(self._take_over, directions):
            self._said = ""

    def _take_over(self, directions: Directions) -> bool:
        return take_over(self._data, directions, engine=self._engine, store=self._url)

    async def _report(self, client: "redis.Redis") -> None:
        node = node_name()
        report = await asyncio.to_thread(
            node_report, self._data, node=node, engine=self._engine, at=self._clock.wall()
        )
        await client.hset(NODES_KEY, node, encode_report(report))

    def _what_may_be_told(self) -> tuple[object, ...]:
        files = (self._data / register.FILE, self._data / "run" / "roll.json")
        return (*map(stamp, files), read_taken(self._data).revision)

    def _tell_people(self, error: Exception) -> None:
        words = str(error)
        if words != self._said:
            self._said = words
            self._say(f"what control says cannot be followed: {words}")
