"""Engines over stand-in programs, and waiting for what they should come to."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from serving.engine.lifecycle import State
from serving.engine.local import LocalEngine, Options, Programs

PROCESS = (sys.executable, str(Path(__file__).with_name("process.py")))
ENGINE = (sys.executable, str(Path(__file__).with_name("engine.py")))
BOUND_SECONDS = 40.0
"""How long anything may take; a busy two-core machine is slow, and no duration is asserted."""

T = TypeVar("T")


def build(
    home: Path,
    *,
    lines: list[str],
    worker_flags: tuple[str, ...] = (),
    control_flags: tuple[str, ...] = (),
    programs: Programs | None = None,
    **options: Any,
) -> LocalEngine:
    """An engine on free ports with its data in `home/data`, not started."""
    given: dict[str, Any] = {
        "configuration": home,
        "data": home / "data",
        "http": "127.0.0.1:0",
        "grpc": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
    }
    return LocalEngine(
        Options(**(given | options)),
        lines=lambda name, line: lines.append(f"{name} | {line}"),
        programs=programs
        or Programs(worker=(*PROCESS, *worker_flags), control=(*PROCESS, *control_flags)),
    )


@asynccontextmanager
async def running(
    home: Path, *, wait: bool = True, lines: list[str] | None = None, **given: Any
) -> AsyncIterator[LocalEngine]:
    """An engine, ready if `wait`, and gone with all its processes at the end."""
    engine = build(home, lines=lines if lines is not None else [], **given)
    await engine.start()
    try:
        if wait:
            async with asyncio.timeout(BOUND_SECONDS):
                await engine.until_ready()
        yield engine
    except BaseException:
        engine.kill()
        raise
    finally:
        await engine.stop()


async def eventually(condition: Callable[[], T], *, bound: float = BOUND_SECONDS) -> T:
    """Poll until `condition()` is truthy; fail past the bound."""
    give_up = time.monotonic() + bound
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not within {bound} s"
        await asyncio.sleep(0.01)
    return value


async def replaced(process: Any, old_pid: int) -> int:
    """The pid of the next incarnation, once it is ready."""
    await eventually(lambda: process.state is State.READY and process.report.pid != old_pid)
    return int(process.report.pid)


def events(home: Path) -> list[str]:
    """What the stand-ins noted, in order of time, without the times."""
    lines = (home / "data" / "events").read_text().splitlines()
    ordered = sorted(lines, key=lambda line: int(line.split()[0]))
    return [line.split(maxsplit=1)[1] for line in ordered]


def who_answers(address: str) -> str:
    """Name of the stand-in that accepts a connection to `address`."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        return connection.makefile().readline().strip()
