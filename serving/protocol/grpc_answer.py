"""An `InferResponse` to the bytes of its message, written by hand.

Messages: `_generated/inference.proto`. Answers always carry raw contents: clients read
`raw_output_contents` by position, and typed numbers break some of them. A small answer written
so takes a third of the time that building it with the protobuf library does, and a large one is
copied once less; the tests hold the bytes against that library.
"""

from functools import lru_cache
from typing import Final

from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.classification import top
from serving.protocol.grpc_wire import bytes_field, packed_field, text_field, varint, varint_field
from serving.protocol.tensors import to_raw
from serving.types import NUMPY_OF, InferRequest, InferResponse, ParameterValue, Tensor

__all__ = ["encode_infer", "encode_stream", "encode_stream_error"]

# ModelInferResponse; a map's entry has its key in field 1 and its value in field 2.
_MODEL, _VERSION, _ID, _PARAMETERS, _OUTPUTS = 1, 2, 3, 4, 5
_RAW_TAG: Final = b"\x32"  # field 6, bytes
_KEY, _VALUE = 1, 2
# InferParameter's choices that every client knows; KServe's and MLServer's have no other.
_BOOL, _INT64, _STRING = 1, 2, 3
# InferOutputTensor
_NAME, _DATATYPE, _SHAPE = 1, 2, 3
# ModelStreamInferResponse
_INFER_RESPONSE: Final = 2

_SHORT: Final = 120
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


def encode_infer(request: InferRequest, response: InferResponse) -> bytes:
    """Write an answer, every output raw.

    Raises:
        InvalidRequest: a classification of an output that holds no numbers.
    """
    parts: list[bytes | memoryview] = [_model(response.model, response.version)]
    identifier = response.id or request.id
    if identifier:
        parts.append(text_field(_ID, identifier))
    for key, value in response.parameters.items():
        parts.append(_constant(key, value) if key in _CONSTANT else _parameter(key, value))
    contents: list[bytes | memoryview] = []
    for tensor in _classified(request, response) if request.outputs else response.outputs:
        content = _raw(tensor)
        described, lead = _described(tensor.name, tensor.datatype, tensor.data.shape, len(content))
        parts.append(described)
        contents += (lead, content)
    return b"".join(parts + contents)


def _classified(request: InferRequest, response: InferResponse) -> list[Tensor]:
    tops = {o.name: o.classification for o in request.outputs if o.classification}
    return [
        top(tensor, tops[tensor.name], response.labels) if tensor.name in tops else tensor
        for tensor in response.outputs
    ]


@lru_cache(maxsize=256)
def _model(model: str, version: str) -> bytes:
    return text_field(_MODEL, model) + text_field(_VERSION, version)


@lru_cache(maxsize=1024)
def _described(name: str, datatype: str, shape: tuple[int, ...], size: int) -> tuple[bytes, bytes]:
    """An output without its `size` bytes of content, and what stands before those."""
    fields = text_field(_NAME, name) + text_field(_DATATYPE, datatype) + packed_field(_SHAPE, shape)
    return bytes_field(_OUTPUTS, fields), _RAW_TAG + varint(size)


def _raw(tensor: Tensor) -> bytes | memoryview:
    data = tensor.data
    if data.dtype == NUMPY_OF[tensor.datatype] and tensor.datatype != "BYTES":
        return data.tobytes()
    return to_raw(tensor)


def _parameter(key: str, value: ParameterValue) -> bytes:
    if type(value) is str:
        text = value.encode()
        start, size = _key(key), len(text)
        if len(start) + size < _SHORT:
            # Three nested fields of less than 128 bytes, in one step.
            return b"\x22%c%b\x12%c\x1a%c%b" % (len(start) + size + 4, start, size + 2, size, text)
    elif type(value) is int and 0 <= value <= _INT64_MAX:
        start, number = _key(key), varint(value)
        size = len(number) + 1
        if len(start) + size < _SHORT:
            return b"\x22%c%b\x12%c\x10%b" % (len(start) + size + 2, start, size, number)
    if isinstance(value, bool):
        choice = varint_field(_BOOL, value)
    elif isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX:
        choice = varint_field(_INT64, value)
    else:
        # A choice says which it is even where it is empty.
        choice = bytes_field(_STRING, str(value).encode())
    return bytes_field(_PARAMETERS, _key(key) + bytes_field(_VALUE, choice))


@lru_cache(maxsize=256)
def _key(key: str) -> bytes:
    return bytes_field(_KEY, key.encode())


_CONSTANT: Final = frozenset({"model_role", "feature_status", "fallback"})
"""Parameters that have few different values."""

_constant = lru_cache(maxsize=256, typed=True)(_parameter)

_FINAL: Final = _parameter("triton_final_response", value=True)


def encode_stream(request: InferRequest, response: InferResponse) -> bytes:
    """Write the only, hence final, answer to one request of a ModelStreamInfer stream."""
    return bytes_field(_INFER_RESPONSE, encode_infer(request, response) + _FINAL)


def encode_stream_error(message: str, request_id: str) -> bytes:
    """Write the failure of one request of a stream; the stream itself lives on."""
    answer = pb.ModelStreamInferResponse(error_message=message)
    answer.infer_response.id = request_id
    answer.infer_response.parameters["triton_final_response"].bool_param = True
    encoded: bytes = answer.SerializeToString()
    return encoded
