"""Control's hold of the joiner: started when something is asked, ended when nothing is."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from serving.control.labels.joiner_orders import Answer, Failed, Order
from serving.errors import InvalidRequest, Overloaded, ServingError
from serving.tasks import end

__all__ = ["Joiner", "TooLarge"]

_LONGEST_LINE: Final = 64 << 20
_SECONDS: Final = 120.0
_IDLE_SECONDS: Final = 60.0
_WAITING: Final = 16

T = TypeVar("T")


class TooLarge(InvalidRequest):
    """What is to be joined does not fit in the memory that the child may take."""


class Joiner:
    """One child that answers one order at a time; at most 16 wait, one more is refused.

    A child that dies, or takes longer than two minutes, costs the order it was at; the next one
    starts another.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._child: asyncio.subprocess.Process | None = None
        self._log: Path | None = None
        self._idle: asyncio.Task[None] | None = None
        self._decoder: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)

    async def ask(self, log: Path, order: Order, kind: type[T]) -> T:
        """Have something done over the log directory `log`.

        Raises:
            InvalidRequest: it asks for something that is not there; TooLarge: it needs too much
            memory. Overloaded: too many wait, or it takes too long. ServingError: the child failed.
        """
        if self._waiting >= _WAITING:
            raise Overloaded("too many reports and labels wait to be joined", reason="joiner")
        self._waiting += 1
        try:
            async with self._turn:
                answer = await self._ask(log, order)
        finally:
            self._waiting -= 1
        if isinstance(answer, Failed):
            if answer.large:
                raise TooLarge(answer.words)
            raise ServingError(answer.words) if answer.ours else InvalidRequest(answer.words)
        assert isinstance(answer, kind)
        return answer

    async def _ask(self, log: Path, order: Order) -> Answer:
        if self._idle is not None:
            await end(self._idle)
            self._idle = None
        try:
            async with asyncio.timeout(_SECONDS):
                child = await self._started(log)
                assert child.stdin
                assert child.stdout
                child.stdin.write(msgspec.json.encode(order) + b"\n")
                await child.stdin.drain()
                line = await child.stdout.readline()
            answer = self._decoded(line)
        except TimeoutError as error:
            await self._stop()
            raise Overloaded(
                f"joining took longer than {_SECONDS:g} s; ask for a shorter time", reason="joiner"
            ) from error
        except BaseException:
            # Also when the caller has gone: an answer that nobody took must not be the next one's.
            await self._stop()
            raise
        self._idle = asyncio.get_running_loop().create_task(self._stop_when_idle())
        return answer

    def _decoded(self, line: bytes) -> Answer:
        if not line:
            raise ServingError("the process that joins labels has died; control's log says why")
        return self._decoder.decode(line)

    async def _started(self, log: Path) -> asyncio.subprocess.Process:
        if self._child is not None and (self._child.returncode is not None or self._log != log):
            await self._stop()
        if self._child is None:
            self._log = log
            self._child = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "serving.control.labels.joiner",
                    str(log),
                    str(os.getpid()),
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE,
                # Arrow's own allocator reserves a gigabyte at once, which counts against the limit.
                env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
            )
        return self._child

    async def _stop_when_idle(self) -> None:
        await asyncio.sleep(_IDLE_SECONDS)
        self._idle = None
        await self._stop()

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.kill()  # it only reads
            await child.wait()

    async def close(self) -> None:
        """End the child."""
        if self._idle is not None:
            await end(self._idle)
        await self._stop()
