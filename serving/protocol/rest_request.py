"""An HTTP inference body to an `InferRequest`.

Formats: Open Inference Protocol V2, "Inference Request JSON Object", and its binary tensor data
extension, whose header length of 0 is Triton's raw binary request.
"""

import re
from math import prod
from typing import Any, Final

from serving.errors import InvalidRequest
from serving.protocol import byte_strings, json_body, rest_plain
from serving.protocol.parameters import check_request, check_values, requested_output
from serving.protocol.shapes import TensorLimits, check_name
from serving.protocol.tensors import from_json, from_raw
from serving.types import NUMPY_OF, InferRequest, RequestedOutput, Tensor, TensorMetadata

__all__ = ["decode_infer", "parse_header_length"]

_LENGTH: Final = re.compile(r"[0-9]{1,10}\Z")


def parse_header_length(text: str) -> int:
    """Read an `Inference-Header-Content-Length` header: bytes of JSON, uncompressed.

    Raises:
        InvalidRequest: not a non-negative decimal number.
    """
    if _LENGTH.match(text) is None:
        raise InvalidRequest("Inference-Header-Content-Length must be a whole number of bytes")
    return int(text)


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
            None: all is JSON. 0: the body is the content of the only input.
        model: name from the path.
        version: version from the path, or empty.
        limits: what one request may declare.
        raw_input: the model's only input, for a header length of 0.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    if header_length is None:
        if (request := rest_plain.decode(body, model, version, limits)) is not None:
            return request
        text = body
        tail = None
    elif header_length == 0:
        return _raw_request(body, model, version, limits, raw_input)
    elif 0 < header_length <= len(body):
        text = body[:header_length]
        tail = memoryview(body)[header_length:]
    else:
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {header_length}, but the body has"
            f" {len(body)} bytes"
        )
    document = json_body.parse(text, limits)
    # Some clients write null for what they leave out, so null counts as absent everywhere.
    id_ = document.get("id")
    if id_ is not None and type(id_) is not str:
        raise InvalidRequest("id must be a string")
    parameters: dict[str, Any] = {}
    if (given := document.get("parameters")) is not None:
        parameters = check_values(given, "the request")
        check_request(parameters)
    request = InferRequest(
        model,
        version,
        _inputs(document.get("inputs"), tail, limits),
        id_ or "",
        parameters,
        _outputs(outputs) if (outputs := document.get("outputs")) is not None else [],
        parameters.get("binary_data_output") is True,
    )
    json_body.check_keys(text, document, limits)
    return request


def _inputs(entries: Any, tail: memoryview | None, limits: TensorLimits) -> list[Tensor]:
    if type(entries) is not list or not entries:
        raise InvalidRequest("inputs must be a non-empty array of tensors")
    if len(entries) > limits.max_inputs:
        raise InvalidRequest(
            f"{len(entries)} inputs; at most {limits.max_inputs} are served (limits.max_inputs)"
        )
    inputs: list[Tensor] = []
    names: set[str] = set()
    offset = 0
    for index, entry in enumerate(entries):
        name = _name(entry, "inputs", index)
        if name in names:
            raise InvalidRequest(f"input '{name}' is given twice")
        names.add(name)
        shape = entry.get("shape")
        if type(shape) is not list:
            raise InvalidRequest(f"input '{name}' needs a shape: an array of integers")
        data = entry.get("data")
        given = entry.get("parameters")
        size = None if given is None else _binary_size(name, given, data)
        if size is not None:
            buffer = _slice(name, tail, offset, size)
            inputs.append(from_raw(name, entry.get("datatype"), shape, buffer, limits))
            offset += size
        elif data is not None:
            inputs.append(from_json(name, entry.get("datatype"), shape, data, limits))
        else:
            raise InvalidRequest(
                f"input '{name}' has neither data nor the parameter binary_data_size"
            )
    if tail is not None and offset != len(tail):
        raise InvalidRequest(
            f"{len(tail) - offset} bytes after the JSON belong to no input;"
            " the binary_data_size of the inputs must add up to the rest of the body"
        )
    return inputs


def _name(entry: Any, where: str, index: int) -> str:
    if type(entry) is not dict:
        raise InvalidRequest(f"{where}[{index}] must be an object")
    return check_name(entry.get("name"), where, index)


def _binary_size(name: str, given: object, data: object) -> int | None:
    """The `binary_data_size` of an input, or None if its data is to be in the JSON."""
    parameters = check_values(given, f"input '{name}'")
    if "shared_memory_region" in parameters:
        raise InvalidRequest(f"input '{name}': shared memory is not served; send the tensor")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if data is not None:
        raise InvalidRequest(f"input '{name}' has both data and binary_data_size; send one")
    if type(size) is not int or size < 0:
        raise InvalidRequest(
            f"input '{name}': binary_data_size must be a non-negative whole number of bytes"
        )
    return size


def _slice(name: str, tail: memoryview | None, offset: int, size: int) -> memoryview:
    if tail is None:
        raise InvalidRequest(
            f"input '{name}' has binary_data_size, but the request has no header"
            " Inference-Header-Content-Length"
        )
    if size > len(tail) - offset:
        raise InvalidRequest(
            f"input '{name}': binary_data_size is {size}, but only {len(tail) - offset} bytes"
            " of the body are left"
        )
    return tail[offset : offset + size]


def _outputs(entries: object) -> list[RequestedOutput]:
    if type(entries) is not list:
        raise InvalidRequest("outputs must be an array")
    outputs: list[RequestedOutput] = []
    names: set[str] = set()
    for index, entry in enumerate(entries):
        name = _name(entry, "outputs", index)
        if name in names:
            raise InvalidRequest(f"output '{name}' is asked for twice")
        names.add(name)
        given = entry.get("parameters")
        parameters = {} if given is None else check_values(given, f"output '{name}'")
        outputs.append(requested_output(name, parameters))
    return outputs


def _raw_request(
    body: bytes, model: str, version: str, limits: TensorLimits, declared: TensorMetadata | None
) -> InferRequest:
    """Read a body that is nothing but the model's only input; all outputs come back binary."""
    if declared is None:
        raise InvalidRequest(
            "Inference-Header-Content-Length 0 needs a model with exactly one input;"
            " name the inputs in a JSON header"
        )
    shape = list(declared.shape)
    if shape.count(-1) > 1:
        # Only one dimension can follow from the size, so a batch dimension means one row.
        shape[0] = 1
    if shape.count(-1) > 1:
        raise InvalidRequest(
            f"input '{declared.name}' has several variable dimensions; send a JSON header"
        )
    known = prod(dimension for dimension in shape if dimension != -1)
    if declared.datatype == "BYTES":
        if known != 1:
            raise InvalidRequest(
                f"input '{declared.name}' takes {known} strings; a raw body can be only one"
            )
        shape = [1] * len(shape)
        # The whole body is the element; the length that stands before it elsewhere is implied.
        data = byte_strings.as_array([body]).reshape(shape)
        return InferRequest(
            model, version, [Tensor(declared.name, "BYTES", data)], binary_output=True
        )
    if -1 in shape:
        row = known * NUMPY_OF[declared.datatype].itemsize
        # What does not divide evenly is refused by the size check below.
        shape[shape.index(-1)] = len(body) // row if row else 0
    tensor = from_raw(declared.name, declared.datatype, shape, body, limits)
    return InferRequest(model, version, [tensor], binary_output=True)
