"""Tensors as bytes and as JSON values.

Formats: Open Inference Protocol V2, "Tensor Data", and its binary tensor data extension:
row-major, little-endian, unpadded. BF16 travels as its 16 bits (the high half of an FP32).
"""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.protocol import byte_strings
from serving.protocol.shapes import TensorLimits, check_datatype, element_count
from serving.types import NUMPY_OF, Tensor

__all__ = ["TensorLimits", "from_json", "from_raw", "from_values", "to_json", "to_raw"]

# struct checks types and ranges while it packs: "q" refuses floats and what does not fit,
# "f" refuses strings, null and what overflows FP32. np.array() would take all of them silently.
_CODES: Final = {
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
}
_BINARY_ONLY: Final = frozenset({"FP16", "BF16"})


def from_raw(
    name: str,
    datatype: str,
    shape: Sequence[object],
    buffer: bytes | memoryview,
    limits: TensorLimits,
) -> Tensor:
    """Read a tensor from its raw bytes; the array shares them and is read-only.

    Raises:
        InvalidRequest: an unknown datatype, a bad shape, or a buffer of another size.
    """
    dtype = NUMPY_OF.get(datatype)
    if dtype is None:
        check_datatype(datatype, name)
    count = element_count(shape, name, limits)
    if datatype == "BYTES":
        return Tensor(name, datatype, _objects(byte_strings.unpack(buffer, count, name), shape))
    assert dtype is not None
    if len(buffer) != count * dtype.itemsize:
        raise InvalidRequest(
            f"tensor '{name}' has {len(buffer)} bytes; {datatype} of shape {list(shape)}"
            f" takes {count * dtype.itemsize}"
        )
    data = np.frombuffer(buffer, dtype)
    if datatype == "BOOL" and count and data.view(np.uint8).max() > 1:
        raise InvalidRequest(f"tensor '{name}': a BOOL byte must be 0 or 1")
    return Tensor(name, datatype, data.reshape(shape))  # type: ignore[arg-type]


def to_raw(tensor: Tensor) -> bytes | memoryview:
    """Write a tensor as raw bytes; a view of its memory where that is possible."""
    data = tensor.data
    if tensor.datatype == "BYTES":
        return byte_strings.pack(map(_as_bytes, data.flat))
    return np.ascontiguousarray(data, NUMPY_OF[tensor.datatype]).reshape(-1).view(np.uint8).data


def from_json(
    name: str,
    datatype: str,
    shape: Sequence[object],
    data: object,
    limits: TensorLimits,
    *,
    booleans: bool = True,
) -> Tensor:
    """Read a tensor from parsed JSON, row-major, flat or nested exactly like the shape.

    `booleans` False promises that the text holds neither `true` nor `false`, which saves
    looking for them among the numbers.

    Raises:
        InvalidRequest: an unknown datatype, one that JSON cannot carry, a bad shape, a wrong
            number of elements, or an element of the wrong type or out of range (with its index).
    """
    check_datatype(datatype, name)
    if datatype in _BINARY_ONLY:
        raise InvalidRequest(
            f"tensor '{name}': JSON cannot carry {datatype}; send it as binary tensor data"
        )
    count = element_count(shape, name, limits)
    if type(data) is not list:
        raise InvalidRequest(f"tensor '{name}': data must be an array")
    if data and type(data[0]) is list:
        data = _flatten(data, shape, name)
    if len(data) != count:
        raise InvalidRequest(
            f"tensor '{name}' has {len(data)} elements; shape {list(shape)} takes {count}"
        )
    if booleans and datatype != "BOOL" and bool in set(map(type, data)):
        index = next(i for i, value in enumerate(data) if type(value) is bool)
        raise InvalidRequest(f"tensor '{name}': element {index} is a boolean, not {datatype}")
    return from_values(name, datatype, shape, data)


def from_values(name: str, datatype: str, shape: Sequence[object], values: Sequence[Any]) -> Tensor:
    """Build a tensor from exactly as many Python values as its checked shape takes.

    BYTES takes `str` (as UTF-8) and `bytes`.

    Raises:
        InvalidRequest: a value of the wrong type or out of range, with its index.
    """
    if datatype == "BOOL":
        if set(map(type, values)) - {bool}:
            _refuse(name, datatype, values)
        return Tensor(name, datatype, np.array(values, np.bool_).reshape(shape))  # type: ignore[arg-type]
    if datatype == "BYTES":
        try:
            elements = [v if type(v) is bytes else v.encode() for v in values]
        except AttributeError:
            _refuse(name, datatype, values)
        return Tensor(name, datatype, _objects(elements, shape))
    try:
        packed = struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)
    except (struct.error, OverflowError):
        _refuse(name, datatype, values)
    return Tensor(name, datatype, np.frombuffer(packed, NUMPY_OF[datatype]).reshape(shape))  # type: ignore[arg-type]


def to_json(tensor: Tensor) -> NDArray[Any] | list[str]:
    """The flat `data` of a tensor, for orjson with OPT_SERIALIZE_NUMPY.

    Raises:
        InvalidRequest: JSON cannot carry it (FP16, BF16, BYTES that are not UTF-8).
    """
    if tensor.datatype in _BINARY_ONLY:
        raise InvalidRequest(
            f"output '{tensor.name}' is {tensor.datatype}, which JSON cannot carry;"
            " ask for it with binary_data"
        )
    if tensor.datatype == "BYTES":
        try:
            return [_as_bytes(element).decode() for element in tensor.data.flat]
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"output '{tensor.name}' holds bytes that are not UTF-8, which JSON cannot"
                " carry; ask for it with binary_data"
            ) from None
    return np.ascontiguousarray(tensor.data).reshape(-1)


def _as_bytes(element: object) -> bytes:
    return element if type(element) is bytes else str(element).encode()


def _objects(elements: list[bytes], shape: Sequence[object]) -> NDArray[Any]:
    data = np.empty(len(elements), np.object_)
    data[:] = elements
    return data.reshape(shape)  # type: ignore[arg-type]


def _flatten(data: list[Any], shape: Sequence[object], name: str) -> list[Any]:
    """Undo the nesting of `data`, level by level; every level must agree with the shape."""
    for axis, dimension in enumerate(shape):
        if axis:
            if set(map(type, data)) - {list} or set(map(len, data)) - {dimension}:
                break
            data = list(chain.from_iterable(data))
        elif len(data) != dimension:
            break
    else:
        if not data or type(data[0]) is not list:
            return data
    raise InvalidRequest(
        f"tensor '{name}': nested data does not have the shape {list(shape)};"
        " nest it exactly like the shape, or send it flat"
    )


def _refuse(name: str, datatype: str, values: Sequence[Any]) -> None:
    """Find the first value that does not fit and say so."""
    raise InvalidRequest(f"tensor '{name}': data does not fit {datatype}")
