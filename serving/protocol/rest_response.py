"""An `InferResponse` to an HTTP body.

Formats: Open Inference Protocol V2 "Inference Response JSON Object" and the binary tensor data
extension: the JSON first, then the binary outputs in their order.
"""

from typing import Any

import orjson

from serving.protocol.tensors import to_json, to_raw
from serving.types import InferRequest, InferResponse

__all__ = ["encode_infer"]


def encode_infer(request: InferRequest, response: InferResponse) -> tuple[bytes, int | None]:
    """Write an answer; each output as the request wants it, JSON or binary.

    Returns:
        The body, and the bytes of JSON in it (for `Inference-Header-Content-Length`), or None
        if all of it is JSON. NaN and infinities become `null` in JSON; binary keeps them.

    Raises:
        InvalidRequest: an output that JSON cannot carry was not asked for as binary.
    """
    wishes = {o.name: o.binary for o in request.outputs if o.binary is not None}
    tail: list[bytes | memoryview] = []
    outputs: list[dict[str, Any]] = []
    for tensor in response.outputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.data.shape,
        }
        if wishes.get(tensor.name, request.binary_output):
            raw = to_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            entry["data"] = to_json(tensor)
        outputs.append(entry)
    document: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "outputs": outputs,
    }
    if response.id:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = response.parameters
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return head, None
    return b"".join((head, *tail)), len(head)
