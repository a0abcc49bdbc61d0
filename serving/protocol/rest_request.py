"""An HTTP inference body to an `InferRequest`.

Formats: Open Inference Protocol V2 "Inference Request JSON Object" and the binary tensor data
extension; a header length of 0 is Triton's raw binary request.
"""

from typing import Any

from serving.errors import InvalidRequest
from serving.protocol import json_body
from serving.protocol.parameters import check_request, check_values, requested_output
from serving.protocol.shapes import TensorLimits, check_name
from serving.protocol.tensors import from_json, from_raw
from serving.types import InferRequest, NUMPY_OF, RequestedOutput, Tensor, TensorMetadata

__all__ = ["decode_infer"]


def decode_infer(
    body: bytes,
    header_length: int | None,
    *,
    model: str,
    version: str,
    limits: TensorLimits,
    raw_input: TensorMetadata | None = None,
) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body, already inflated.
        header_length: `Inference-Header-Content-Length`: bytes of JSON before the tensors.
            None: all JSON. 0: the body is the bytes of the only input.
        model: name from the path.
        version: version from the path, or empty.
        limits: what one request may declare.
        raw_input: the model's single input, for a header length of 0.

    Raises:
        InvalidRequest: with the field that is wrong.
    """
    if header_length is None:
        text: bytes | memoryview = body
        tail = memoryview(b"")
    elif header_length == 0:
        return _raw_request(body, model, version, limits, raw_input)
    else:
        if not 0 < header_length <= len(body):
            raise InvalidRequest(
                f"Inference-Header-Content-Length is {header_length}, but the body has"
                f" {len(body)} bytes"
            )
        view = memoryview(body)
        text, tail = view[:header_length], view[header_length:]
    document = json_body.parse(text)
    parameters = check_values(document.get("parameters", {}), "the request")
    check_request(parameters)
    id_ = document.get("id", "")
    if type(id_) is not str:
        raise InvalidRequest("id must be a string")
    return InferRequest(
        model,
        version,
        _inputs(document.get("inputs"), tail, limits),
        id_,
        parameters,
        _outputs(document.get("outputs", []), limits),
        parameters.get("binary_data_output", False) is True,
    )


def _inputs(entries: Any, tail: memoryview, limits: TensorLimits) -> list[Tensor]:
    if type(entries) is not list or not entries:
        raise InvalidRequest("inputs must be a non-empty array")
    if len(entries) > limits.max_inputs:
        raise InvalidRequest(f"more than {limits.max_inputs} inputs (limits.max_inputs)")
    inputs: list[Tensor] = []
    names: set[str] = set()
    offset = 0
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            raise InvalidRequest(f"inputs[{index}] must be an object")
        name = check_name(entry.get("name"), f"inputs[{index}]")
        if name in names:
            raise InvalidRequest(f"input '{name}' is given twice")
        names.add(name)
        shape = entry.get("shape")
        if type(shape) is not list:
            raise InvalidRequest(f"input '{name}' needs a shape: an array of integers")
        parameters = entry.get("parameters")
        size = None
        if parameters is not None:
            size = check_values(parameters, f"input '{name}'").get("binary_data_size")
        if size is None:
            if "data" not in entry:
                raise InvalidRequest(f"input '{name}' has neither data nor binary_data_size")
            inputs.append(from_json(name, entry.get("datatype"), shape, entry["data"], limits))
            continue
        if "data" in entry:
            raise InvalidRequest(f"input '{name}' has both data and binary_data_size")
        if type(size) is not int or size < 0:
            raise InvalidRequest(f"input '{name}': binary_data_size must be a whole number")
        if size > len(tail) - offset:
            raise InvalidRequest(f"input '{name}': binary_data_size is beyond the body")
        inputs.append(
            from_raw(name, entry.get("datatype"), shape, tail[offset : offset + size], limits)
        )
        offset += size
    if offset != len(tail):
        raise InvalidRequest(f"the body has {len(tail) - offset} bytes that belong to no input")
    return inputs


def _outputs(entries: Any, limits: TensorLimits) -> list[RequestedOutput]:
    if type(entries) is not list:
        raise InvalidRequest("outputs must be an array")
    outputs: list[RequestedOutput] = []
    names: set[str] = set()
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            raise InvalidRequest(f"outputs[{index}] must be an object")
        name = check_name(entry.get("name"), f"outputs[{index}]")
        if name in names:
            raise InvalidRequest(f"output '{name}' is asked for twice")
        names.add(name)
        parameters = check_values(entry.get("parameters", {}), f"output '{name}'")
        outputs.append(requested_output(name, parameters))
    return outputs


def _raw_request(
    body: bytes, model: str, version: str, limits: TensorLimits, declared: TensorMetadata | None
) -> InferRequest:
    if declared is None:
        raise InvalidRequest("a raw request (header length 0) needs a model with one input")
    shape = [1, *declared.shape[1:]] if declared.shape[:1] == (-1,) else list(declared.shape)
    if shape.count(-1) == 1:
        known = NUMPY_OF[declared.datatype].itemsize
        for dimension in shape:
            known *= dimension if dimension > 0 else 1
        shape[shape.index(-1)] = len(body) // known
    tensor = from_raw(declared.name, declared.datatype, shape, body, limits)
    return InferRequest(model, version, [tensor], binary_output=True)
