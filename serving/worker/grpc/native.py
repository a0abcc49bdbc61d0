"""The native front: pygrpc_native's HTTP/2 below, our own few steps on the event loop above.

The package's `aio.Server` would do, for half as much again: it builds a call object and a whole
servicer context for every request. This sits on its documented lower layer, `NativeGrpcFront`.
A thread of Rust does HTTP/2, framing, deadlines and cancellation, and queues calls. One thread
of ours waits for that queue and hands the loop all that has come, so that calls share wake-ups.
An inference is begun at once and answered by a call (`exchange`); every other method is a
task, which ends in `respond` or `fail`.

The front has no client streams. ModelStreamInfer is served by a grpc.aio server on a private
Unix socket, to which the front passes every method that it has not got, unknown ones too.
"""

import asyncio
import importlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from serving.config.schema import Limits
from serving.errors import EngineError
from serving.worker.grpc.call import InFlight, log_unexpected
from serving.worker.grpc.exchange import GOING, UNAVAILABLE, Exchanges
from serving.worker.grpc.goaway import Farewell
from serving.worker.grpc.inference import MODEL_INFER
from serving.worker.grpc.native_call import Details, NativeCall
from serving.worker.grpc.server import (
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
    MAX_STREAMS,
    Services,
    address_of,
    max_metadata,
    options_of,
    register,
)
from serving.worker.grpc.sockets import close_sockets, listening_sockets

__all__ = ["NativeServer", "native_module"]

# One serves several times what one loop can answer; two only pass work between them.
_IO_THREADS: Final = 1
_BATCH: Final = 64
_FLUSH_SECONDS: Final = 0.25
_QUIET_SECONDS: Final = 1.0
_FAREWELL_SECONDS: Final = 2.0
_JOIN_SECONDS: Final = 5.0

_RESOURCE_EXHAUSTED: Final[int] = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
_INTERNAL: Final[int] = grpc.StatusCode.INTERNAL.value[0]

_Held = tuple[int, int, bytes, Details]
"""The call's number, the method's, the message."""

_Event = tuple[int, int, int, bytes, object, Details]
"""0 for a call and 1 for its cancellation; the call's number; the method's; message; peer."""


def native_module() -> Any | None:
    """The optional package, or None where it is not installed."""
    try:
        return importlib.import_module("pygrpc_native")
    except ImportError:
        return None


_Answer = Callable[[bytes, NativeCall], Coroutine[Any, Any, None]]


class NativeServer:
    """pygrpc_native's front: plaintext, a fifth of grpc.aio's CPU; see `server`'s table."""

    kind = "pygrpc_native"

    def __init__(
        self, services: Services, limits: Limits, in_flight: InFlight, exchanges: Exchanges
    ) -> None:
        module = native_module()
        if module is None:
            raise EngineError(
                "pygrpc-native is not installed; install sluice-gateway[native-grpc] or allow "
                "grpc.aio"
            )
        self._front_of = module.NativeGrpcFront
        self._limits = limits
        self._max_message = int(limits.max_body)
        self._in_flight = in_flight
        self._exchanges = exchanges
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._paths: list[tuple[str, bool]] = []
        self._answers: list[_Answer] = []
        for service, methods in services.items():
            for name, method in methods.items():
                if not method.request_streaming:
                    streams = method.response_streaming
                    self._paths.append((f"/{service}/{name}", streams))
                    self._answers.append(
                        self._stream(method.unary_stream)
                        if streams
                        else self._unary(method.unary_unary)
                    )
        paths = [path for path, _ in self._paths]
        self._direct = paths.index(MODEL_INFER) if MODEL_INFER in paths else -1
        """The method that is answered without a task."""
        self._client_streams = _ClientStreams(services, limits)
        self._front: Any = None
        self._receiver: threading.Thread | None = None
        self._listening: set[int] = set()
        self._stopping = False
        self._port = 0
        self._held: dict[str, list[_Held]] = {}
        """Calls that wait until their connection has been sent away, by peer."""

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen and serve; give the port taken. Raises EngineError if it cannot be had."""
        assert credentials is None, "the native front has no TLS"
        address = address_of(host, port)
        before = set(listening_sockets())
        try:
            self._front = front = self._front_of(
                address,
                self._paths,
                io_threads=_IO_THREADS,
                call_details=True,
                delay_stream_headers=True,
                keepalive_time_ms=KEEPALIVE_MS,
                keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
                keepalive_permit_without_calls=True,
                max_concurrent_streams=MAX_STREAMS,
                max_metadata_size=max_metadata(self._limits),
                reuse_port=True,
            )
        except OSError as error:
            raise EngineError(f"cannot listen for gRPC on {address}: {error}") from error
        self._listening = set(listening_sockets()) - before
        front.set_fallback(await self._client_streams.start())
        front.start()
        loop = asyncio.get_running_loop()
        self._receiver = threading.Thread(
            target=self._receive, args=(loop,), name="grpc-calls", daemon=True
        )
        self._receiver.start()
        bound: int = front.bound_port
        self._port = bound
        return bound

    def stop_accepting(self) -> None:
        """Close the listening socket, which the package keeps open until its very end.

        A worker that drains shares its port with others; while its socket listens the kernel
        goes on giving it connections.
        """
        close_sockets(self._listening)
        self._listening = set()

    async def stop(self, seconds: float) -> int:
        """Finish what is in flight, at most `seconds`, close; say how many were cut."""
        self.stop_accepting()
        began = time.monotonic()
        left = self._front is None or await self._farewell().say(
            min(_FAREWELL_SECONDS, seconds / 2)
        )
        # Requests on connections that stayed are refused from here on, so a quiet instant is
        # waited for first: then nobody is refused.
        quiet = 0.0 if left else min(_QUIET_SECONDS, seconds / 4)
        await self._in_flight.idle(quiet)
        seconds = max(0.0, seconds - (time.monotonic() - began))
        self._stopping = True
        grace = seconds
        streams = asyncio.create_task(self._client_streams.stop(grace))
        # Counted a moment before what is left is cancelled. A task that has not begun is not
        # in flight yet, so tasks are waited for too.
        idle = asyncio.create_task(self._in_flight.idle(grace * 0.99))
        await asyncio.wait([idle, *self._tasks.values()], timeout=grace * 0.99)
        cut = 0 if await idle else self._in_flight.count
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._exchanges.cut()
        await streams
        # Closing drops what the front's own thread has not written yet, and nothing tells when
        # it has: without this pause the very last answer is sometimes lost on a busy machine.
        await asyncio.sleep(_FLUSH_SECONDS)
        await asyncio.to_thread(self._close)
        return cut

    def _farewell(self) -> Farewell:
        return Farewell(
            self._port,
            hold=lambda peer: self._held.update({peer: self._held.get(peer, [])}),
            release=self._release,
            busy=lambda: (
                self._exchanges.peers() | {task.get_name() for task in self._tasks.values()}
            ),
        )

    def _release(self, peer: str) -> None:
        """Begin the calls that were held back."""
        loop = asyncio.get_running_loop()
        for held in self._held.pop(peer, []):
            self._begin(loop, *held)

    def _begin(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        method: int,
        message: bytes,
        details: Details,
    ) -> None:
        if method == self._direct:
            self._exchanges.start(self._front, number, message, details)
            return
        answer = self._answers[method](message, NativeCall(self._front, number, details))
        # Named after its peer, which costs less than the name it would be given.
        self._tasks[number] = loop.create_task(answer, name=details[1])

    def _close(self) -> None:
        if self._front is not None:
            self._front.close()
        if self._receiver is not None:
            self._receiver.join(_JOIN_SECONDS)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the loop what has come, all of it at a time, until the front is closed."""
        front = self._front
        while (events := front.recv_batch_details(_BATCH)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, loop, events)
            except RuntimeError:  # the loop was closed without stop()
                front.close()
                return

    def _take(self, loop: asyncio.AbstractEventLoop, events: Sequence[_Event]) -> None:
        """Begin calls and cancel those whose client left or whose deadline passed."""
        front, tasks, held = self._front, self._tasks, self._held
        for cancelled, number, method, message, _, details in events:
            if cancelled:
                # Forgotten here as well: a task that has not begun never gets to do it.
                task = tasks.pop(number, None)
                if task is not None:
                    task.cancel()
                else:
                    self._exchanges.cancel(number)
            elif len(message) > self._max_message or self._stopping:
                self._refuse(NativeCall(front, number, details), message)
            elif held and details[1] in held:
                held[details[1]].append((number, method, message, details))
            else:
                self._begin(loop, number, method, message, details)

    def _refuse(self, call: NativeCall, message: bytes) -> None:
        if self._stopping:
            call.fail(UNAVAILABLE, GOING)
        else:
            call.fail(
                _RESOURCE_EXHAUSTED,
                f"the message has {len(message)} bytes; at most {self._max_message} are taken"
                " (limits.max_body)",
            )

    def _unary(self, method: Any) -> _Answer:
        tasks = self._tasks

        async def answer(message: bytes, call: NativeCall) -> None:
            try:
                call.respond(await method(message, call))
            except BaseException as error:  # noqa: BLE001 - the edge: every caller is answered
                _failed(call, error)
            finally:
                tasks.pop(call.number, None)

        return answer

    def _stream(self, method: Any) -> _Answer:
        tasks = self._tasks

        async def answer(message: bytes, call: NativeCall) -> None:
            try:
                await method(message, call)
                call.end()
            except BaseException as error:  # noqa: BLE001 - the edge: every caller is answered
                _failed(call, error)
            finally:
                tasks.pop(call.number, None)

        return answer


def _failed(call: NativeCall, error: BaseException) -> None:
    """End a call whose method raised; let pass what ends the task."""
    if isinstance(error, grpc.aio.AbortError):
        return  # by `abort`, which has said why
    if isinstance(error, Exception):
        log_unexpected(error)
        call.fail(_INTERNAL, "internal error")
        return
    # A client that left hears nothing; one that is cut off because time is up does.
    call.fail(UNAVAILABLE, GOING)
    raise error


class _ClientStreams:
    """The grpc.aio server behind the front, for methods whose requests are streams."""

    def __init__(self, services: Services, limits: Limits) -> None:
        self._server = grpc.aio.server(options=options_of(limits))
        register(
            self._server,
            {
                service: {name: one for name, one in methods.items() if one.request_streaming}
                for service, methods in services.items()
            },
        )
        self._folder: Path | None = None

    async def start(self) -> str:
        """Serve on a new Unix socket in a folder of our own; give its path."""
        # Not under the data directory: the name of a socket has room for 100 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-grpc-"))
        path = str(self._folder / "streams.sock")
        self._server.add_insecure_port(f"unix:{path}")
        await self._server.start()
        return path

    async def stop(self, seconds: float) -> None:
        """End streams, those that have not ended after `seconds` by force."""
        await self._server.stop(seconds)
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
