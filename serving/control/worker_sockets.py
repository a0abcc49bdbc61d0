"""Ask workers over their private Unix sockets; one that does not answer delays nobody for long.

Hand-written because importing an HTTP client for this one question would cost control a third
of a second at start.
"""

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

__all__ = ["recent"]

_SECONDS: Final = 1.0
_LARGEST_ANSWER: Final = 4 << 20


async def recent(folder: Path, *, model: str, limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Collect the newest predictions of every worker that has a socket in `folder`.

    Returns:
        At most `limit` records, newest first, and the workers that did not answer in time.
    """
    sockets = _sockets(folder)
    target = "/recent?" + urlencode({"limit": limit, "model": model})
    answers = await asyncio.gather(*(_ask(socket, target) for socket in sockets))
    records = [record for answer in answers for record in answer or ()]
    records.sort(key=lambda record: float(record.get("time", 0.0)), reverse=True)
    silent = [
        socket.stem for socket, answer in zip(sockets, answers, strict=True) if answer is None
    ]
    return records[:limit], silent


def _sockets(folder: Path) -> list[Path]:
    return sorted(folder.glob("worker-*.sock"))


async def _ask(socket: Path, target: str) -> list[dict[str, Any]] | None:
    try:
        async with asyncio.timeout(_SECONDS):
            return msgspec.json.decode(await _get(socket, target), type=list[dict[str, Any]])
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None  # TimeoutError is an OSError, msgspec's errors are ValueErrors


async def _get(socket: Path, target: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if head.split(" ", 2)[1] != "200":
            raise ValueError("not answered")
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        length = int(headers.get("content-length", "-1"))
        if not 0 <= length <= _LARGEST_ANSWER:
            raise ValueError("too much, or an unknown length")
        return await reader.readexactly(length)
    finally:
        writer.transport.abort()
