"""The other side of `rest`: an inference asked of another server, and its answer read.

Formats: Open Inference Protocol V2, "Inference Request JSON Object" and "Inference Response JSON
Object", and its binary tensor data extension where the server offers it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from serving.errors import InferenceFailed, InvalidRequest
from serving.protocol.shapes import TensorLimits, check_datatype
from serving.protocol.tensors import from_json, from_raw, to_json, to_raw
from serving.types import ParameterValue, Tensor, TensorMetadata

__all__ = [
    "Answered",
    "decode_answer",
    "decode_error",
    "decode_metadata",
    "encode_question",
]

_ANY_SIZE: Final = TensorLimits(max_elements=1 << 31)
"""An answer is bounded by its bytes, which the connection counts."""

_SHOWN: Final = 200
_BINARY: Final = {"binary_data": True}


class Answered(msgspec.Struct, frozen=True, gc=False):
    """What a server answered: arrays in the order asked for, and the answer's parameters."""

    outputs: list[NDArray[Any]]
    parameters: dict[str, ParameterValue]


def encode_question(
    feed: Mapping[str, NDArray[Any]],
    inputs: Sequence[TensorMetadata],
    outputs: Sequence[str],
    *,
    parameters: Mapping[str, ParameterValue],
    binary: bool,
) -> tuple[list[bytes | memoryview], int | None]:
    """Write an inference request.

    Args:
        feed: every input by name, dtype `serving.types.NUMPY_OF[datatype]`.
        inputs: their declarations; only those in `feed` are sent.
        outputs: names wanted, not empty.
        parameters: of the request.
        binary: whether tensors travel as raw bytes; JSON otherwise.

    Returns:
        The body in pieces, and the bytes of JSON in it (`Inference-Header-Content-Length`), or
        None if all of it is JSON.

    Raises:
        InvalidRequest: JSON cannot carry an input (FP16, BF16, BYTES that are not UTF-8).
    """
    tail: list[bytes | memoryview] = []
    sent: list[dict[str, Any]] = []
    for declared in inputs:
        data = feed.get(declared.name)
        if data is None:
            continue
        tensor = Tensor(declared.name, declared.datatype, data)
        entry: dict[str, Any] = {
            "name": declared.name,
            "datatype": declared.datatype,
            "shape": data.shape,
        }
        if binary:
            raw = to_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            entry["data"] = to_json(tensor)
        sent.append(entry)
    document: dict[str, Any] = {"inputs": sent}
    if parameters:
        document["parameters"] = parameters
    document["outputs"] = [
        {"name": name, "parameters": _BINARY} if binary else {"name": name} for name in outputs
    ]
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return ([head, *tail], len(head)) if binary else ([head], None)


def decode_answer(body: bytes, header_length: int | None, outputs: Sequence[str]) -> Answered:
    """Read an inference answer.

    Args:
        body: the whole body.
        header_length: the answer's `Inference-Header-Content-Length`, None without one.
        outputs: names that must be there; others are left out.

    Raises:
        InferenceFailed: it is not an answer of this protocol, or lacks an output.
    """
    try:
        size = len(body) if header_length is None else header_length
        document = orjson.loads(body[:size])
        tail = memoryview(body)[size:]
        found: dict[str, NDArray[Any]] = {}
        offset = 0
        for entry in document["outputs"]:
            parameters = entry.get("parameters") or {}
            length = parameters.get("binary_data_size")
            if length is None:
                found[entry["name"]] = _from_json(entry)
            else:
                raw = tail[offset : offset + length]
                found[entry["name"]] = from_raw(
                    entry["name"], entry["datatype"], entry["shape"], raw, _ANY_SIZE
                ).data
                offset += length
        arrays = [found[name] for name in outputs]
        return Answered(arrays, document.get("parameters") or {})
    except (KeyError, TypeError, ValueError, AttributeError, InvalidRequest) as error:
        raise InferenceFailed(f"the answer cannot be read: {_words(error)}") from error


def _from_json(entry: dict[str, Any]) -> NDArray[Any]:
    data, datatype = entry["data"], entry["datatype"]
    if datatype in {"FP32", "FP64"}:
        # JSON has no NaN: servers write null for it, ours too.
        array = np.array(data, np.float64)  # None becomes NaN
        return array.astype(np.float32 if datatype == "FP32" else np.float64).reshape(
            entry["shape"]
        )
    return from_json(entry["name"], datatype, entry["shape"], data, _ANY_SIZE).data


def decode_error(body: bytes) -> str:
    """The text of an error answer, one short line; empty if it has none."""
    try:
        document = orjson.loads(body)
        text = document.get("error") or document.get("detail") or ""
    except (ValueError, AttributeError):
        return ""
    return " ".join(str(text).split())[:_SHOWN]


def decode_metadata(body: bytes) -> tuple[list[TensorMetadata], list[TensorMetadata]]:
    """Inputs and outputs of a model metadata answer.

    Raises:
        InvalidRequest: it is not one, or names a datatype that this protocol does not have.
    """
    try:
        document = orjson.loads(body)
        return _declared(document["inputs"]), _declared(document["outputs"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(f"this is no model metadata: {_words(error)}") from error


def _declared(entries: Any) -> list[TensorMetadata]:
    return [
        TensorMetadata(
            entry["name"],
            check_datatype(entry["datatype"], entry["name"]),
            tuple(int(size) for size in entry["shape"]),
        )
        for entry in entries
    ]


def _words(error: Exception) -> str:
    if isinstance(error, InvalidRequest):
        return error.message
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) or type(error).__name__
