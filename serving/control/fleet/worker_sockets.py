"""Ask workers over their private Unix sockets; one that does not answer delays nobody for long."""

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from serving.unix_http import ask

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
    answer = await ask(socket, target, timeout_seconds=_SECONDS, largest_body=_LARGEST_ANSWER)
    if answer is None or answer.status != 200:
        return None
    try:
        return msgspec.json.decode(answer.body, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        return None
