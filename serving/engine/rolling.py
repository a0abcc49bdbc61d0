"""Replacing a worker by its successor without losing a request; for every engine.

The successor is a process of its own number on the same ports (SO_REUSEPORT). It is started and
serves before its predecessor is asked to leave, so that the ports are never without anybody. The
predecessor leads new connections to its siblings, answers what it has, and ends. A successor that
does not come to serve is ended instead, and nothing has changed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from serving.engine.lifecycle import State
from serving.engine.supervised import SupervisedProcess
from serving.errors import EngineError
from serving.unix_http import ask

__all__ = ["LOOK_SECONDS", "Member", "retire", "start_successor"]

LOOK_SECONDS: Final = 0.25
"""How often engines look for orders."""

_PATIENCE_SECONDS: Final = 5.0
"""How long a worker that leaves waits for the next request of a silent keep-alive connection."""

_POLL_SECONDS: Final = 0.03
_ASK_SECONDS: Final = 1.0
_GIVE_UP_FAILURES: Final = 3
_JUDGE_SECONDS: Final = 0.5
_LAST_LINES: Final = 3


class Member(msgspec.Struct, eq=False):
    """One worker of a gateway: its process, its number, and what it was started with."""

    process: SupervisedProcess
    number: int
    generation: int
    socket: Path
    task: "asyncio.Task[None] | None" = None

    @property
    def name(self) -> str:
        """`worker-3`."""
        return self.process.spec.name

    def start(self) -> None:
        """Begin to supervise it."""
        self.task = self.process.start()


async def _nothing_refused() -> str:
    return ""


async def start_successor(
    member: Member,
    *,
    seconds: float,
    refused: Callable[[], Awaitable[str]] = _nothing_refused,
) -> None:
    """Start it and wait until it serves.

    Args:
        member: not started yet.
        seconds: how long that may take.
        refused: asked now and then why it will not serve what is published; empty if it will.

    Raises:
        EngineError: It does not come to serve, with its last words. It is gone then.
    """
    member.start()
    try:
        await _until_serving(member, seconds, refused)
    except BaseException:
        # Asked to stop it still could be slow; nobody is connected to it.
        member.process.kill()
        if member.task is not None:
            await asyncio.wait({member.task})
        raise


async def _until_serving(
    member: Member, seconds: float, refused: Callable[[], Awaitable[str]]
) -> None:
    began = judged = time.monotonic()
    while not await _serves(member.socket):
        now = time.monotonic()
        _raise_if_hopeless(member.process)
        if now - judged > _JUDGE_SECONDS:
            judged = now
            if reason := await refused():
                raise EngineError(f"{member.name} refuses what is published: {reason}")
        if now - began > seconds:
            raise EngineError(f"{member.name} was not ready after {seconds:g} s")
        await asyncio.sleep(_POLL_SECONDS)


async def retire(member: Member) -> None:
    """Have a worker leave: siblings take new connections, it finishes what it has, and ends."""

    async def politely() -> bool:
        target = f"/drain?patience={_PATIENCE_SECONDS:g}"
        answer = await ask(member.socket, target, method="POST", timeout_seconds=_ASK_SECONDS)
        return answer is not None and answer.status == 200

    await member.process.stop(politely=politely)


async def _serves(socket: Path) -> bool:
    answer = await ask(socket, "/readyz", timeout_seconds=_ASK_SECONDS)
    return answer is not None and answer.status == 200


def _raise_if_hopeless(process: SupervisedProcess) -> None:
    report = process.report
    if process.explanation:
        raise EngineError(f"{report.name} does not start: {process.explanation}")
    if report.failures >= _GIVE_UP_FAILURES and report.state is not State.READY:
        words = "; ".join(list(process.last_lines)[-_LAST_LINES:]) or "no last words"
        raise EngineError(
            f"{report.name} failed {report.failures} times in a row, last with "
            f"{report.last_exit}: {words}"
        )
