"""What a gRPC call carries besides its message, and how a failure is answered.

Metadata keys arrive in lower case; values of keys that end in `-bin` are bytes and are not
ours. gRPC itself turns `grpc-timeout` into a deadline, so the time left is asked for, not read.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from serving.clock import Clock
from serving.errors import InvalidRequest, Overloaded, SluiceError, Unauthenticated
from serving.protocol import status
from serving.protocol.timeouts import parse_request_timeout
from serving.types import Call

__all__ = [
    "CallReader",
    "Context",
    "Edge",
    "InFlight",
    "Trailing",
    "echo_request_id",
    "failure_of",
    "log_unexpected",
    "parse",
    "tell_trace",
]

_M = TypeVar("_M", bound=Message)
_In = TypeVar("_In")
_Out = TypeVar("_Out")
Context = grpc.aio.ServicerContext[Any, Any]

# "No deadline" is None on grpc.aio and the largest integer on pygrpc_native.
_FOREVER: Final = 1e9
_READ: Final = frozenset(
    {"authorization", "x-request-id", "x-request-timeout", "traceparent", "tracestate"}
)
_MAX_ID: Final = 128
_PUSHBACK: Final = "grpc-retry-pushback-ms"

_log = logging.getLogger(__name__)


class Trailing(Protocol):
    """A call whose trailing metadata can still be set."""

    def trailing_metadata(self) -> Any:
        """What goes back with the status."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Replace it."""
        ...


class CallReader:
    """Turns a servicer context into a `Call`.

    `header_names` is asked on every call, because the metadata that routing wants changes
    with the configuration.
    """

    def __init__(self, header_names: Callable[[], frozenset[str]], clock: Clock) -> None:
        self.now = clock.monotonic
        self._header_names = header_names
        self._wanted: frozenset[str] = frozenset()
        self._read = _READ

    def read(self, context: Context) -> Call:
        """Read deadline, credential, trace context and wanted metadata.

        Raises:
            InvalidRequest: `x-request-timeout` is not a duration.
            Unauthenticated: more than one credential was sent.
        """
        call = Call("grpc", self.now())
        remaining = context.time_remaining()
        if remaining is not None and remaining < _FOREVER:
            call.timeout = remaining
        wanted = self._header_names()
        if wanted is not self._wanted:
            self._wanted, self._read = wanted, _READ | wanted
        read = self._read
        found: dict[str, str] = {}
        for key, value in context.invocation_metadata() or ():
            if key in read and isinstance(value, str):
                if key == "authorization" and key in found:
                    raise Unauthenticated("metadata 'authorization' was sent more than once")
                found[key] = value
        if found:
            _fill(call, found, wanted)
        return call


def echo_request_id(call: Call, context: Context) -> None:
    """Give a sane request id back with the status; a value no server would send is dropped."""
    identifier = call.request_id
    if identifier and len(identifier) <= _MAX_ID and identifier.isascii():
        context.set_trailing_metadata((("x-request-id", identifier),))


def tell_trace(traceresponse: str, context: Trailing) -> None:
    """Say with the status which span a sampled request became."""
    context.set_trailing_metadata((*context.trailing_metadata(), ("traceresponse", traceresponse)))


def _fill(call: Call, found: dict[str, str], wanted: frozenset[str]) -> None:
    call.authorization = found.get("authorization")
    call.request_id = found.get("x-request-id", "")
    call.traceparent = found.get("traceparent")
    call.tracestate = found.get("tracestate")
    call.headers = {key: value for key, value in found.items() if key in wanted}
    asked = found.get("x-request-timeout")
    if asked is not None:
        seconds = parse_request_timeout(asked)
        call.timeout = seconds if call.timeout is None else min(seconds, call.timeout)


class Edge:
    """Where our errors become statuses.

    `pushback` says whether the server lets us set gRPC's own retry metadata: pygrpc_native
    keeps every name that begins with `grpc-` to itself, and a call that tries is never answered.
    """

    def __init__(self) -> None:
        self.pushback = True

    def answering(
        self, answer: Callable[[_In, Context], Coroutine[Any, Any, _Out]]
    ) -> Callable[[_In, Context], Coroutine[Any, Any, _Out]]:
        """Make a method that may raise into one that ends its call with the error's status."""

        async def call(message: _In, context: Context) -> _Out:
            try:
                return await answer(message, context)
            except BaseException as error:  # noqa: BLE001 - the edge: every caller is answered
                return await self.refuse(context, failure_of(error))

        return call

    async def refuse(self, context: Context, error: Exception) -> NoReturn:
        """End a call with an error's status."""
        await context.abort(*self.refusal(context, error))

    def refusal(self, context: Trailing, error: Exception) -> tuple[grpc.StatusCode, str]:
        """Status and words that an error is answered with; its metadata is set."""
        log_unexpected(error)
        if isinstance(error, Overloaded):
            seconds = error.retry_after_seconds
            trailing = [*context.trailing_metadata(), ("retry-after", str(math.ceil(seconds)))]
            if self.pushback:
                # Clients with a retry policy wait this long instead of their own back-off.
                trailing.append((_PUSHBACK, str(math.ceil(seconds * 1e3))))
            context.set_trailing_metadata(tuple(trailing))
        return grpc.StatusCode[status.grpc_code(error)], status.public_message(error)


def failure_of(error: BaseException) -> Exception:
    """Give an error that is to be answered; let pass what ends the task.

    A cancellation that nobody asked for is a failure of ours: grpc.aio answers nothing to a
    method that ends so, and its client would wait for ever.
    """
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
        return RuntimeError("the work on a call cancelled itself")
    raise error


def log_unexpected(error: Exception) -> None:
    """Log an error that was not raised on purpose, with its traceback."""
    if not isinstance(error, SluiceError):
        _log.error("a gRPC call failed unexpectedly", exc_info=error)


def parse(kind: Callable[[], _M], message: bytes) -> _M:
    """Read a protobuf message. Raises InvalidRequest for bytes that are none of this kind."""
    parsed = kind()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        name = parsed.DESCRIPTOR.full_name
        raise InvalidRequest(f"the message is not a valid {name}") from None
    return parsed


class InFlight:
    """Counts calls being answered, so that a drain can wait for the last one."""

    def __init__(self) -> None:
        self.count = 0
        self._idle: asyncio.Event | None = None

    def enter(self) -> None:
        """One more."""
        self.count += 1

    def leave(self) -> None:
        """One less."""
        self.count -= 1
        if self._idle is not None and not self.count:
            self._idle.set()

    async def idle(self, seconds: float) -> bool:
        """Wait for an instant without any call, at most `seconds`; say if it came."""
        if not self.count:
            return True
        self._idle = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
