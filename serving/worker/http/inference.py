"""An inference over HTTP between connection and plane: body to request, response to body.

Small bodies are inflated and deflated on the loop; zlib lets go of the interpreter, so large
ones go to a thread and do not hold up anybody else.
"""

import asyncio
from typing import Final, Protocol

from serving.errors import InvalidRequest
from serving.protocol import rest
from serving.protocol.rest_plain import Envelope
from serving.types import Call, InferRequest, InferResponse, Principal, TensorMetadata
from serving.worker.http.request import Prepared
from serving.worker.http.routes import Route
from serving.worker.http.state import ListenerState
from serving.worker.reply import Pending

__all__ = ["Client", "Exchange"]

# About a millisecond of zlib, to which an executor hop (55 µs) adds little.
_INFLATE_OFFLOAD_BYTES: Final = 8 << 10  # inflated it may be a hundred times that
_DEFLATE_OFFLOAD_BYTES: Final = 64 << 10
_COMPRESS_FROM_BYTES: Final = 1024
# A client whose bodies keep changing shape is not worth remembering.
_MAX_MISSES: Final = 8


class Client(Protocol):
    """Who an exchange is for: the connection."""

    def answer(
        self,
        prepared: Prepared,
        payload: bytes,
        json_length: int | None,
        encoding: str | None,
        trace: str | None,
    ) -> None:
        """Send a successful inference."""
        ...

    def fail(self, error: Exception, prepared: Prepared, *, count: bool = True) -> None:
        """Send an error; `count` those that the plane has not counted."""
        ...

    def turn(self) -> None:
        """Go on: called after the two above, unless they were called from `Exchange.ask`."""
        ...


class Exchange:
    """The inferences of one connection, one at a time."""

    __slots__ = ("_bodies", "_client", "_pending", "_prepared", "_shared")

    def __init__(self, shared: ListenerState, client: Client) -> None:
        self._shared = shared
        self._client = client
        self._bodies = Bodies()
        self._prepared: Prepared
        self._pending: Pending | asyncio.Task[None] | None = None
        """What the client waits for."""

    def inflate(
        self, prepared: Prepared, body: bytes, arrived: float, principal: Principal | None
    ) -> None:
        """`ask` once the body has been inflated."""
        self._prepared = prepared
        inflating = self._inflate(prepared, body, arrived, principal)
        self._pending = self._shared.loop.create_task(inflating)

    async def _inflate(
        self, prepared: Prepared, body: bytes, arrived: float, principal: Principal | None
    ) -> None:
        shared = self._shared
        assert prepared.encoding is not None
        bounds = (prepared.encoding, shared.max_body, shared.max_inflate_ratio)
        try:
            if len(body) < _INFLATE_OFFLOAD_BYTES:
                body = rest.inflate(body, *bounds)
            else:
                body = await shared.loop.run_in_executor(None, rest.inflate, body, *bounds)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            self._pending = None
            self._client.fail(error, prepared)
        else:
            self.ask(prepared, body, arrived, principal)
        self._client.turn()

    def ask(
        self, prepared: Prepared, body: bytes, arrived: float, principal: Principal | None
    ) -> None:
        """Hand a request that is whole and allowed to the plane, which tells us what came of it.

        Args:
            prepared: its head.
            body: not compressed.
            arrived: the monotonic second of its first byte.
            principal: who is calling.
        """
        shared = self._shared
        self._prepared = prepared
        reached = False
        try:
            request = self._bodies.decode(shared, prepared, body)
            call = prepared.call(arrived, shared.now())
            call.principal = principal
            reached = True
            self._pending = shared.begin(request, call, self)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            self._pending = None
            self._client.fail(error, prepared, count=not reached)

    def answered(self, request: InferRequest, call: Call, response: InferResponse) -> None:
        """Encode what the plane says (`Reply`)."""
        self._pending = None
        prepared = self._prepared
        try:
            payload, json_length = rest.encode_infer(request, response)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            self._client.fail(error, prepared, count=False)
        else:
            encoding = prepared.accept_encoding
            if encoding is not None and len(payload) > _COMPRESS_FROM_BYTES:
                deflating = self._deflate(encoding, payload, json_length, call.traceresponse)
                self._pending = self._shared.loop.create_task(deflating)
                return
            self._client.answer(prepared, payload, json_length, None, call.traceresponse)
        self._client.turn()

    async def _deflate(
        self, encoding: str, payload: bytes, json_length: int | None, trace: str | None
    ) -> None:
        prepared = self._prepared
        try:
            if len(payload) < _DEFLATE_OFFLOAD_BYTES:
                payload = rest.deflate(payload, encoding)
            else:
                loop = self._shared.loop
                payload = await loop.run_in_executor(None, rest.deflate, payload, encoding)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            self._pending = None
            self._client.fail(error, prepared, count=False)
        else:
            self._pending = None
            self._client.answer(prepared, payload, json_length, encoding, trace)
        self._client.turn()

    def failed(self, error: Exception) -> None:
        """Pass on why the plane has no answer (`Reply`)."""
        self._pending = None
        self._client.fail(error, self._prepared, count=False)
        self._client.turn()

    def give_up(self) -> "asyncio.Task[None] | None":
        """The client is gone. Returns what still has to end with its request, if anything has."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        self._shared.disconnected += 1
        if isinstance(pending, asyncio.Task):
            pending.cancel()
            return pending
        return pending.cancel()


class Bodies:
    """Reads the bodies of one connection; remembers what the last was like but for its numbers."""

    __slots__ = ("_envelope", "_misses", "_route")

    def __init__(self) -> None:
        self._envelope: Envelope | None = None
        self._route: Route | None = None
        """Whom that envelope was sent to."""
        self._misses = 0

    def decode(self, shared: ListenerState, prepared: Prepared, body: bytes) -> InferRequest:
        """Read the tensors. Raises InvalidRequest; ModelNotFound for a raw request to nobody."""
        route = prepared.route
        assert route is not None
        known = self._envelope
        length = prepared.header_length
        if known is not None and length is None and self._route is route:
            request = known.decode(body)
            if request is not None:
                self._misses = 0
                return request
        request = rest.decode_infer(
            body,
            length,
            model=route.model,
            version=route.version,
            limits=shared.tensor_limits,
            raw_input=None if length != 0 else _only_input(shared, route.model, route.version),
        )
        if length is None and self._misses <= _MAX_MISSES:
            self._misses += 1
            self._route = route
            self._envelope = Envelope.of(body, route.model, route.version, shared.tensor_limits)
        return request


def _only_input(shared: ListenerState, model: str, version: str) -> TensorMetadata:
    """The input a raw request fills: the only one, or the only one that must be sent."""
    inputs = shared.plane.model_metadata(model, version).inputs
    if len(inputs) > 1:
        inputs = [tensor for tensor in inputs if not tensor.optional]
    if len(inputs) != 1:
        raise InvalidRequest(
            "a raw request (Inference-Header-Content-Length: 0) needs a model with one input"
        )
    return inputs[0]
