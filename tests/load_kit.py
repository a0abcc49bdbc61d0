"""An open-loop load: requests leave at their own times, whatever becomes of those before.

Runs in a thread beside the test. Each request takes the connection that has been free longest, or
makes one; a connection that fails is not used again. What a client may do about a reset connection
is not done here: every request that got no answer counts, so that tests see how many there are.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

BOUND_SECONDS = 10.0
CONNECTIONS = 16


class Outcome(msgspec.Struct, frozen=True):
    """One request: when it was due and when it ended (monotonic), and what came of it."""

    due: float
    ended: float
    status: int
    """HTTP status; 0 if the connection failed."""

    words: str
    fresh: bool
    """Whether the connection had carried no request before."""


class Load:
    """`rate` requests a second to `POST path` at `address`, until the `with` block ends."""

    def __init__(
        self, address: str, path: str, body: Any, *, rate: float = 100.0, fresh: bool = False
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        content = json.dumps(body).encode()
        self.message = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        self.rate = rate
        self.fresh = fresh
        self.most = 0
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._busy = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait for what is in flight."""
        self._ending.set()
        self._thread.join(BOUND_SECONDS * 2)
        assert not self._thread.is_alive()

    @property
    def failures(self) -> list[Outcome]:
        """Requests without a 200."""
        return [one for one in self.outcomes if one.status != 200]

    @property
    def resets(self) -> list[Outcome]:
        """Failures of connections that had carried no request: a client may simply try again."""
        return [one for one in self.failures if one.fresh and one.status == 0]

    @property
    def lost(self) -> list[Outcome]:
        """Failures that are not `resets`."""
        return [one for one in self.failures if not (one.fresh and one.status == 0)]

    @property
    def answered(self) -> int:
        """Requests with a 200."""
        return len(self.outcomes) - len(self.failures)

    @property
    def longest_gap(self) -> float:
        """The longest time in which no request succeeded, in seconds."""
        ends = sorted(one.ended for one in self.outcomes if one.status == 200)
        return max((b - a for a, b in pairwise(ends)), default=0.0)

    def summary(self) -> str:
        """Requests, failures and the longest gap, for people."""
        kinds = sorted({one.words for one in self.failures})
        fresh = sum(one.fresh for one in self.outcomes)
        return (
            f"{len(self.outcomes)} requests, {fresh} of them on fresh connections, "
            f"{len(self.failures)} failed"
            f"{' (' + '; '.join(kinds)[:200] + ')' if kinds else ''}, longest gap "
            f"{self.longest_gap * 1e3:.0f} ms, {self.most} connections, "
            f"{len(self.resets)} fresh ones reset"
        )

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        for _ in range(0 if self.fresh else CONNECTIONS):
            with contextlib.suppress(OSError):  # whoever needs it tries again, and is counted
                self._free.append(await asyncio.open_connection(self.host, self.port))
        due = time.monotonic()
        while not self._ending.is_set():
            delay = due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(self._one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 1 / self.rate
        await asyncio.gather(*tasks)
        for _, writer in self._free:
            writer.close()

    async def _one(self, due: float) -> None:
        status, words, fresh = 0, "", True
        self._busy += 1
        self.most = max(self.most, self._busy + len(self._free))
        connection = None
        try:
            async with asyncio.timeout(BOUND_SECONDS):
                connection = self._idle()
                fresh = connection is None
                if connection is None:
                    connection = await asyncio.open_connection(self.host, self.port)
                status, words, kept = await self._ask(*connection)
            if kept and not self.fresh:
                self._free.append(connection)
            else:
                connection[1].close()
        except (OSError, EOFError, TimeoutError) as error:
            words = type(error).__name__
            if connection is not None:
                connection[1].close()
        finally:
            self._busy -= 1
        self.outcomes.append(Outcome(due, time.monotonic(), status, words, fresh))

    def _idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._free:
            reader, writer = self._free.pop(0)
            # The server has closed it: no client would send on it.
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, str, bool]:
        writer.write(self.message)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        body = await reader.readexactly(length)
        status = int(head.split()[1])
        words = "" if status == 200 else f"{status} {body[:120].decode(errors='replace')}"
        return status, words, "connection: close" not in head


@contextlib.contextmanager
def load(
    address: str, path: str, body: Any, *, rate: float = 100.0, fresh: bool = False
) -> Iterator[Load]:
    """A load that runs while the block does; `fresh`: every request on a connection of its own."""
    one = Load(address, path, body, rate=rate, fresh=fresh)
    one.start()
    try:
        yield one
    finally:
        one.stop()
