"""The codecs' part of an inference over HTTP: body to request, response to body.

Small bodies are inflated and deflated on the loop; zlib lets go of the interpreter, so large
ones go to a thread and do not hold up anybody else.
"""

from typing import Final

from serving.errors import InvalidRequest
from serving.protocol import rest
from serving.protocol.rest_plain import Envelope
from serving.types import InferRequest, TensorMetadata
from serving.worker.http_request import Prepared
from serving.worker.http_state import ListenerState

__all__ = ["Bodies", "compressed", "inflated"]

# About a millisecond of zlib, to which an executor hop (55 µs) adds little.
_INFLATE_OFFLOAD_BYTES: Final = 8 << 10  # inflated it may be a hundred times that
_DEFLATE_OFFLOAD_BYTES: Final = 64 << 10
_COMPRESS_FROM_BYTES: Final = 1024
# A client whose bodies keep changing shape is not worth remembering.
_MAX_MISSES: Final = 8


async def inflated(shared: ListenerState, body: bytes, encoding: str) -> bytes:
    """The body without its Content-Encoding. Raises InvalidRequest, BodyTooLarge."""
    bounds = (body, encoding, shared.max_body, shared.max_inflate_ratio)
    if len(body) < _INFLATE_OFFLOAD_BYTES:
        return rest.inflate(*bounds)
    return await shared.loop.run_in_executor(None, rest.inflate, *bounds)


async def compressed(
    shared: ListenerState, payload: bytes, encoding: str
) -> tuple[bytes, str | None]:
    """The payload as the client may have it, and its encoding if that is worth it."""
    if len(payload) <= _COMPRESS_FROM_BYTES:
        return payload, None
    if len(payload) < _DEFLATE_OFFLOAD_BYTES:
        return rest.deflate(payload, encoding), encoding
    loop = shared.loop
    return await loop.run_in_executor(None, rest.deflate, payload, encoding), encoding


class Bodies:
    """Reads the bodies of one connection; remembers what the last was like but for its numbers."""

    __slots__ = ("_envelope", "_misses")

    def __init__(self) -> None:
        self._envelope: Envelope | None = None
        self._misses = 0

    def decode(self, shared: ListenerState, prepared: Prepared, body: bytes) -> InferRequest:
        """Read the tensors. Raises InvalidRequest; ModelNotFound for a raw request to nobody."""
        route = prepared.route
        assert route is not None
        known = self._envelope
        length = prepared.header_length
        if (
            known is not None
            and length is None
            and known.model == route.model
            and known.version == route.version
        ):
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
