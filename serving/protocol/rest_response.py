"""An `InferResponse` to an HTTP body.

Formats: Open Inference Protocol V2, "Inference Response JSON Object", and its binary tensor data
extension: the JSON first, then the binary outputs in their order.
"""

from typing import Any, Final

import orjson

from serving.protocol.classification import top
from serving.protocol.elements import CODES
from serving.protocol.tensors import to_json, to_raw
from serving.types import NUMPY_OF, InferRequest, InferResponse

__all__ = ["encode_infer"]

_AS_IT_IS: Final = {datatype: NUMPY_OF[datatype] for datatype in CODES}
"""How an array of numbers is held that orjson can write without more ado."""


def encode_infer(request: InferRequest, response: InferResponse) -> tuple[bytes, int | None]:
    """Write an answer; each output as the request wants it, JSON or binary.

    Returns:
        The body, and the bytes of JSON in it (for `Inference-Header-Content-Length`), or None
        if all of it is JSON. NaN and infinities become `null` in JSON; binary keeps them.

    Raises:
        InvalidRequest: an output that JSON cannot carry was not asked for as binary, or a
            classification of one that holds no numbers.
    """
    if not request.outputs and not request.binary_output:
        return _plain(request, response), None
    asked = {output.name: output for output in request.outputs}
    tail: list[bytes | memoryview] = []
    outputs: list[dict[str, Any]] = []
    for answer in response.outputs:
        tensor = answer
        binary = request.binary_output
        if (wish := asked.get(tensor.name)) is not None:
            if wish.binary is not None:
                binary = wish.binary
            if wish.classification:
                tensor = top(tensor, wish.classification, response.labels)
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.data.shape,
        }
        if binary:
            raw = to_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            entry["data"] = to_json(tensor)
        outputs.append(entry)
    head = _document(request, response, outputs)
    if not tail:
        return head, None
    return b"".join((head, *tail)), len(head)


def _plain(request: InferRequest, response: InferResponse) -> bytes:
    """Write an answer whose request wishes nothing of its outputs: all of it is JSON."""
    outputs = []
    for tensor in response.outputs:
        datatype, data = tensor.datatype, tensor.data
        outputs.append(
            {
                "name": tensor.name,
                "datatype": datatype,
                "shape": data.shape,
                # What `to_json` comes to for an ordinary array of numbers.
                "data": data.ravel() if data.dtype is _AS_IT_IS.get(datatype) else to_json(tensor),
            }
        )
    return _document(request, response, outputs)


def _document(
    request: InferRequest, response: InferResponse, outputs: list[dict[str, Any]]
) -> bytes:
    document: dict[str, Any] = {"model_name": response.model}
    if response.version:
        document["model_version"] = response.version
    if id_ := response.id or request.id:
        document["id"] = id_
    if response.parameters:
        document["parameters"] = response.parameters
    document["outputs"] = outputs
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
