"""The worker's private socket, spoken to over a real Unix socket, politely and otherwise."""

import asyncio
import contextlib
import json
import os
import select
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.worker import private
from serving.worker.private import PrivateSocket

BOUND = 30.0
LARGE = 8 << 20


def echo(query: dict[str, str]) -> tuple[int, Any]:
    """Answer with the query; `limit` must be a number."""
    int(query.get("limit", "0"))
    return 200, query


def broken(_: dict[str, str]) -> tuple[int, Any]:
    """Fail in a way nobody foresaw."""
    raise RuntimeError("boom in /srv/secret")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is."""
    return tmp_path / "worker-0.sock"


@pytest.fixture
async def served(path: Path) -> AsyncIterator[Path]:
    """A socket with a few endpoints."""
    endpoints = {
        "GET /echo": echo,
        "GET /unready": lambda _: (503, {"ready": False}),
        "GET /large": lambda _: (200, "x" * LARGE),
        "GET /broken": broken,
        "POST /drain": lambda _: (200, {"draining": True}),
    }
    listening = PrivateSocket(path, endpoints)
    await listening.start()
    yield path
    await listening.stop()


async def send(path: Path, data: bytes, *, end: bool = False) -> bytes:
    """Send bytes (and, if asked, the end); return all that comes back."""
    async with asyncio.timeout(BOUND):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(data)
            if end:
                writer.write_eof()
            return await reader.read()
        finally:
            writer.transport.abort()


async def ask(path: Path, line: str) -> tuple[int, Any]:
    """Ask as HTTP does: status and decoded body of an answer that is what its head says."""
    answer = await send(path, f"{line} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(one.lower().split(": ", 1) for one in lines)
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    return int(status.split(" ")[1]), json.loads(body)


def permissions(path: Path) -> int | None:
    """Who may do what with a file; None if it is not there."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        ("GET /echo", 200, {}),
        ("GET /echo?limit=5&model=m", 200, {"limit": "5", "model": "m"}),
        ("GET /echo?limit=5&limit=6", 200, {"limit": "6"}),
        ("GET /echo?model=%C3%A9%20%0A", 200, {"model": "é \n"}),
        ("GET http://worker/echo?limit=1", 200, {"limit": "1"}),
        ("POST /drain", 200, {"draining": True}),
        ("GET /unready", 503, {"ready": False}),
    ],
)
async def test_an_endpoint_is_answered(served: Path, line: str, status: int, body: Any) -> None:
    """Status and JSON are the endpoint's; of a name said twice the last value counts."""
    assert await ask(served, line) == (status, body)


@pytest.mark.parametrize("line", ["GET /", "GET /drain", "POST /echo", "get /echo", "GET //echo"])
async def test_what_is_not_offered_is_not_found(served: Path, line: str) -> None:
    """Another path, or another verb, is 404."""
    assert (await ask(served, line))[0] == 404


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /echo\r\n\r\n",
        b"GET /echo HTTP/1.1 twice\r\n\r\n",
        b"\xff\xfe\x00 \r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /echo?limit=many HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_is_a_bad_request(served: Path, data: bytes) -> None:
    """Whatever ends like a head gets an answer, and the next caller gets his."""
    answer = await send(served, data)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert await ask(served, "GET /echo") == (200, {})


@pytest.mark.parametrize("data", [b"", b"GET /echo HTTP/1.1\r\n", b"x" * (1 << 20)])
async def test_what_never_becomes_a_request_is_hung_up_on(served: Path, data: bytes) -> None:
    """A caller who leaves halfway, or whose head never ends, gets nothing and harms nobody."""
    with contextlib.suppress(ConnectionError):  # the rest of what it sent had no reader
        assert await send(served, data, end=True) == b""

    assert await ask(served, "GET /echo") == (200, {})


async def test_an_endpoint_that_fails_says_only_that(
    served: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours is a 500 without details, which are logged."""
    assert await ask(served, "GET /broken") == (500, {"error": "internal error"})
    assert "boom" in caplog.text


async def test_a_silent_caller_is_hung_up_on(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing is closed after a while; others are answered meanwhile."""
    monkeypatch.setattr(private, "_SECONDS", 0.1)
    silent, writer = await asyncio.open_unix_connection(served)
    slow, slow_writer = await asyncio.open_unix_connection(served)
    slow_writer.write(b"GET /echo HTTP/1.1\r\n")

    assert await ask(served, "GET /echo") == (200, {})
    async with asyncio.timeout(BOUND):
        assert await silent.read() == b""
        assert await slow.read() == b""
    writer.close()
    slow_writer.close()


async def test_a_caller_who_does_not_read_is_hung_up_on(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody takes is dropped after a while, with its connection."""
    monkeypatch.setattr(private, "_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(served))
        caller.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        hung_up = select.poll()
        hung_up.register(caller, select.POLLHUP)

        assert await asyncio.to_thread(hung_up.poll, BOUND * 1e3)


async def test_a_large_answer_arrives_whole(served: Path) -> None:
    """What does not fit into the socket's buffer is sent as it is read."""
    status, body = await ask(served, "GET /large")

    assert (status, len(body)) == (200, LARGE)


async def test_only_the_owner_may_connect(served: Path) -> None:
    """The socket is 0600 from its first moment, whatever the process's mask."""
    assert permissions(served) == 0o600


async def test_the_processs_mask_is_left_as_it_was(path: Path) -> None:
    """Files made later have the permissions they would have had."""
    before = os.umask(0o027)
    try:
        listening = PrivateSocket(path, {})
        await listening.start()
        await listening.stop()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


async def test_a_socket_left_behind_is_replaced(path: Path) -> None:
    """A worker that was killed leaves its socket; its successor takes the place."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listening = PrivateSocket(path, {"GET /echo": echo})

    await listening.start()

    assert await ask(path, "GET /echo") == (200, {})
    await listening.stop()


async def test_a_stopped_socket_is_gone(path: Path) -> None:
    """Nobody can connect any more, and stopping twice, or before the start, is harmless."""
    listening = PrivateSocket(path, {})
    await listening.stop()
    await listening.start()

    await listening.stop()
    await listening.stop()

    assert permissions(path) is None
