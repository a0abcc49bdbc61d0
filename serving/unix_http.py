"""The smallest HTTP client there is: one question over a Unix socket, answer to the end.

It is how the engine and control ask a process over its private listener. Probes run twice a
second per process and must cost nothing to import (httpx takes a third of a second), so this
is written by hand.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

__all__ = ["Answer", "ask"]

_LARGEST_ANSWER: Final = 1 << 20


class Answer(msgspec.Struct, frozen=True):
    """Status and body of one HTTP answer."""

    status: int
    body: bytes


async def ask(
    socket_path: Path,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] = MappingProxyType({}),
    timeout_seconds: float,
    largest_body: int = _LARGEST_ANSWER,
) -> Answer | None:
    """Send one request on a connection of its own; None if no whole answer came in time.

    Understands `Content-Length` and read-until-close, which is all that our own listeners send
    for small answers; `headers` must be printable. Bodies over `largest_body` bytes (1 MiB)
    count as no answer.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _ask(socket_path, f"{method} {target}", headers, largest_body)
    except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
        return None


async def _ask(
    socket_path: Path, request: str, headers: Mapping[str, str], largest_body: int
) -> Answer:
    reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=_LARGEST_ANSWER)
    try:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Length: 0\r\n{more}\r\n".encode()
        )
        head = await _until(reader, b"\r\n\r\n")
        status_line, *header_lines = head.decode("latin-1").split("\r\n")
        answered = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in header_lines)
        }
        version, status, *_ = status_line.split(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"not an HTTP answer: {status_line[:40]!r}")
        body = await _body(reader, answered.get("content-length"), largest_body)
        return Answer(int(status), body)
    finally:
        writer.transport.abort()  # nothing is left to flush, and closing must not wait


async def _until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    try:
        return (await reader.readuntil(end)).removesuffix(end)
    except asyncio.LimitOverrunError as error:
        raise ValueError("headers too long") from error


async def _body(reader: asyncio.StreamReader, length: str | None, largest: int) -> bytes:
    if length is None:
        body = await reader.read(largest + 1)
        while not reader.at_eof() and len(body) <= largest:
            body += await reader.read(largest + 1)
        if len(body) > largest:
            raise ValueError("answer too long")
        return body
    if not 0 <= int(length) <= largest:
        raise ValueError("answer too long")
    return await reader.readexactly(int(length))
