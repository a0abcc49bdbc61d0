import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.unix_http import Answer, ask

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Path]:
    """A Unix socket behind which `serve` meets each connection."""
    with tempfile.TemporaryDirectory(prefix="sl") as home:
        path = Path(home) / "s"
        server = await asyncio.start_unix_server(serve, str(path))
        try:
            yield path
        finally:
            server.close()


def replying(answer: bytes) -> Serve:
    """Read one request head, send `answer`, close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Answer(200, b"ok")),
        (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.1 503 No\r\n\r\nuntil close", Answer(503, b"until close")),
        (b"HTTP/1.0 204\r\nContent-Length: 0\r\n\r\n", Answer(204, b"")),
    ],
)
async def test_a_whole_answer_is_returned(raw: bytes, answer: Answer) -> None:
    """Both ways of ending a body are understood, whatever the status."""
    async with serving(replying(raw)) as path:
        assert await ask(path, "/healthz", timeout_seconds=20) == answer


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"SSH-2.0-x y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 400_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes((1 << 20) + 1),
    ],
)
async def test_half_an_answer_and_nonsense_are_no_answer(raw: bytes) -> None:
    """Anything else than one whole small HTTP answer counts as none."""
    async with serving(replying(raw)) as path:
        assert await ask(path, "/healthz", timeout_seconds=20) is None


@pytest.mark.parametrize("length", [b"Content-Length: 5\r\n", b""])
async def test_a_caller_that_expects_more_says_how_much(length: bytes) -> None:
    """The bound on a body is the caller's, however the body's end is told."""
    async with serving(replying(b"HTTP/1.1 200 OK\r\n" + length + b"\r\nlarge")) as path:
        assert await ask(path, "/recent", timeout_seconds=20, largest_body=4) is None
        assert await ask(path, "/recent", timeout_seconds=20, largest_body=5) == Answer(
            200, b"large"
        )


async def test_a_listener_that_never_answers_costs_only_the_timeout() -> None:
    """A stopped process accepts (the kernel does) and says nothing."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass
        writer.close()
        gone.set()

    async with serving(serve) as path:
        assert await ask(path, "/healthz", timeout_seconds=0.05) is None
        await asyncio.wait_for(gone.wait(), 20)


async def test_no_listener_is_no_answer(tmp_path: Path) -> None:
    """A missing socket is an ordinary state of a starting process."""
    assert await ask(tmp_path / "none", "/healthz", timeout_seconds=5) is None


async def test_method_target_and_headers_are_sent_as_given() -> None:
    """POST /drain arrives as that, with its credential."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend((await reader.readuntil(b"\r\n\r\n")).splitlines())
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with serving(serve) as path:
        await ask(path, "/drain", method="POST", headers={"X-A": "b"}, timeout_seconds=20)

    assert seen[0] == b"POST /drain HTTP/1.1"
    assert b"X-A: b" in seen
