"""HTTP servers that do one thing wrong, for load tests to meet; each in a thread of its own."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import yaml

from serving.loadtest.scenario import Slo

Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

ANSWER = (
    b'{"model_name":"m","model_version":"v1",'
    b'"outputs":[{"name":"p","datatype":"FP32","shape":[1,2],"data":[0.1,0.9]}],'
    b'"parameters":{"model_role":"production","feature_status":"a=OK,b=DEFAULTED|NOT_FOUND"}}'
)


def answer(status: int, body: bytes) -> bytes:
    """A whole HTTP answer."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def fine(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer as a gateway does."""
    writer.write(answer(200, ANSWER))


async def busy(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Refuse everything."""
    writer.write(answer(503, b'{"error":"the queue is full"}'))


async def hung(_body: bytes, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def rude(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Hang up without a word."""
    writer.close()


async def parting(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer, and hang up each time."""
    writer.write(answer(200, ANSWER).replace(b" X\r\n", b" X\r\nConnection: close\r\n"))
    writer.close()


async def foreign(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer 200 with something else."""
    writer.write(answer(200, b"<html>welcome</html>"))


async def mistaken(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer for another model."""
    writer.write(answer(200, ANSWER.replace(b'"m"', b'"other"')))


async def slow(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer after 200 ms."""
    await asyncio.sleep(0.2)
    writer.write(answer(200, ANSWER))


def untimed(source: Path, to: Path, *, http: str, grpc: str) -> None:
    """Copy a scenario with all that a busy machine could fail taken out, and other targets."""
    document = yaml.safe_load(source.read_text())
    address = grpc if document["target"].startswith("grpc") else http
    document["target"] = f"{document['target'].partition(':')[0]}://{address}"
    document |= {"max_lag": "60s", "deadline": "20s", "timeout": "20s", "connections": 64}
    timed = {"p50", "p90", "p99", "p99.9", "max", "rejected_p99", "goodput_rps", "throughput"}
    timed |= {"feature_status"}  # a store that is late by milliseconds is TIMEOUT
    assert timed < {*Slo.__struct_encode_fields__}
    slos = [{k: v for k, v in slo.items() if k not in timed} for slo in document["slos"]]
    document["slos"] = [slo for slo in slos if slo.keys() != {"phase"}]
    to.write_text(yaml.safe_dump(document, sort_keys=False))


class Target:
    """A server that answers every request by `behave`; keeps what it was asked."""

    def __init__(self, behave: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.port = 0
        self._behave = behave
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def served(self) -> Iterator["Target"]:
        """Serve until the block ends."""
        started, ending = threading.Event(), asyncio.Event()

        async def main() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await ending.wait()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        thread = threading.Thread(target=self._loop.run_until_complete, args=(main(),))
        thread.start()
        assert started.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(ending.set)
            thread.join(10)
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                body = await reader.readexactly(length)
                self.heads.append(head)
                self.bodies.append(body)
                await self._behave(body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
