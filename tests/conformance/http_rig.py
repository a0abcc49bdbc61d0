"""A real HTTP listener on a real socket in a thread of its own, and a client that sends bytes."""

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import uvloop
from echo_plane import EchoPlane

from serving.clock import Clock, SystemClock
from serving.config.schema import Limits
from serving.metrics import MetricsFile
from serving.protocol.tensors import TensorLimits
from serving.worker.http.listener import HttpListener
from serving.worker.spread import Spreading

__all__ = [
    "BOUND_SECONDS",
    "Client",
    "HttpRig",
    "Response",
    "busy",
    "eventually",
    "infer",
    "request",
    "swept",
]

BOUND_SECONDS = 20.0
"""No wait in these tests is longer; a wait that reaches it has failed."""


class Response(NamedTuple):
    """One response, its body by Content-Length, header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


def eventually(condition: Callable[[], bool]) -> bool:
    """Poll until it holds or the bound is reached."""
    end = time.monotonic() + BOUND_SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.005)
    return True


class HttpRig:
    """Starts on `with`, stops at its end; `plane` and `listener` may be looked at meanwhile.

    With a `worker` number it is one of several that even out their connections, as the workers of
    a node do that share a port; here each has its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits | None = None,
        plane: EchoPlane | None = None,
        header_names: frozenset[str] = frozenset(),
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
        family: int = socket.AF_INET,
        worker: int | None = None,
    ) -> None:
        self.plane = plane or EchoPlane()
        limits = limits or Limits()
        self.metrics = MetricsFile(folder / f"http-{id(self)}.metrics", capacity=1 << 16)
        self.header_names = header_names
        self.spread = (
            None
            if worker is None
            else Spreading(folder, worker, self.metrics, clock or SystemClock())
        )
        self._make = lambda: HttpListener(
            self.plane,
            limits,
            TensorLimits(
                max_elements=limits.max_elements,
                max_inputs=limits.max_inputs,
                max_json_depth=limits.max_json_depth,
            ),
            self.metrics,
            header_names=lambda: self.header_names,
            clock=clock or SystemClock(),
            spread=self.spread,
        )
        self._tls = tls
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.bind(
            ("127.0.0.1", 0) if family == socket.AF_INET else str(folder / "rig.sock")
        )
        self.address: Any = self._socket.getsockname()
        self.listener: HttpListener
        self.loop: asyncio.AbstractEventLoop
        self.problems: list[dict[str, Any]] = []
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="http-rig")

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self._stop = asyncio.Event()
        self.listener = self._make()
        await self.listener.start([self._socket], self._tls)
        self._up.set()
        await self._stop.wait()
        await self.listener.drain(0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(BOUND_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(BOUND_SECONDS)
        assert not self._thread.is_alive()
        self.metrics.close()
        assert self.problems == [] or error is not None, self.problems

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await something on the listener's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(BOUND_SECONDS)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call something on the listener's loop."""

        async def work() -> Any:
            return function()

        return self.run(work())

    def release(self) -> None:
        """Let the slow model answer."""
        self.call(self.plane.release)

    def connect(self) -> "Client":
        """Open a connection."""
        return Client(self.address, self._socket.family)


class Client:
    """One connection; reads whole responses or says that the server has closed."""

    def __init__(self, address: Any, family: int = socket.AF_INET) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(BOUND_SECONDS)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def end(self) -> None:
        """Half-close: send no more, go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close so that the server sees a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _more(self) -> bool:
        try:
            part = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._buffer += part
        return bool(part)

    def read(self, *, head_only: bool = False) -> Response | None:
        """The next response, None if the server closes before one has begun."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                assert self._buffer == b"", self._buffer
                return None
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        version, status = lines[0].split(" ")[:2]
        assert version == "HTTP/1.1"
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        length = 0 if head_only else int(headers.get("content-length", "0"))
        while len(rest) < length:
            self._buffer = b""
            assert self._more(), f"closed after {len(rest)} of {length} bytes"
            rest += self._buffer
        self._buffer = rest[length:]
        return Response(int(status), headers, rest[:length])

    def ask(self, data: bytes) -> Response:
        """Send and read one response that must come."""
        self.send(data)
        response = self.read()
        assert response is not None, "closed without an answer"
        return response

    def closed(self) -> bool:
        """Whether the server ends the connection without another byte."""
        if self._buffer:
            return False
        return not self._more()


def request(
    method: str = "GET",
    target: str = "/v2/health/live",
    body: bytes | None = None,
    headers: str = "",
    *,
    host: str = "Host: test\r\n",
    version: str = "HTTP/1.1",
) -> bytes:
    """A request; `headers` are whole lines, Content-Length is added if there is a body."""
    length = f"Content-Length: {len(body)}\r\n" if body is not None else ""
    head = f"{method} {target} {version}\r\n{host}{headers}{length}\r\n"
    return head.encode("latin-1") + (body or b"")


def infer(
    model: str = "echo",
    *,
    values: tuple[float, ...] = (1.0, 2.0, 3.0),
    headers: str = "",
    id_: str = "a",
) -> bytes:
    """A good inference request of one FP32 tensor."""
    body = {
        "id": id_,
        "inputs": [
            {"name": "X", "shape": [1, len(values)], "datatype": "FP32", "data": list(values)}
        ],
    }
    return request("POST", f"/v2/models/{model}/infer", json.dumps(body).encode(), headers)


def swept(rig: HttpRig) -> None:
    """Let two sweeps pass, so that what was due has happened."""

    async def two_sweeps() -> None:
        for _ in range(2):
            before = rig.listener._timer
            async with asyncio.timeout(BOUND_SECONDS):
                while rig.listener._timer is before:
                    await asyncio.sleep(0.01)

    rig.run(two_sweeps())


def busy(rig: HttpRig) -> int:
    """Connections in the middle of a request."""
    return sum(c.busy for c in list(rig.listener._shared.connections))
