"""Tensors as raw bytes, as JSON values, and as Python numbers.

Formats: Open Inference Protocol V2, "Tensor Data", and its binary tensor data extension:
row-major, little-endian, unpadded. BF16 travels as its 16 bits (the high half of an FP32).
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.protocol import byte_strings, elements
from serving.protocol.shapes import TensorLimits, check_datatype, element_count
from serving.types import NUMPY_OF, Tensor

__all__ = ["TensorLimits", "from_json", "from_raw", "to_json", "to_raw"]

_BINARY_ONLY: Final = frozenset({"FP16", "BF16"})
# The request, its inputs, one input: what is around data.
_LEVELS_AROUND_DATA: Final = 3


def from_raw(
    name: str,
    datatype: object,
    shape: Sequence[Any],
    buffer: bytes | memoryview,
    limits: TensorLimits,
) -> Tensor:
    """Read a tensor from its raw bytes.

    The array is read-only and shares them, unless they lie so that its elements would not be
    aligned (tensors behind a JSON header start anywhere), which not every kernel forgives.

    Raises:
        InvalidRequest: an unknown datatype, a bad shape, or a buffer of another size.
    """
    datatype = check_datatype(datatype, name)
    count = element_count(shape, name, limits)
    if datatype == "BYTES":
        strings = byte_strings.unpack(buffer, count, name)
        return Tensor(name, datatype, byte_strings.as_array(strings).reshape(shape))
    dtype = NUMPY_OF[datatype]
    if len(buffer) != count * dtype.itemsize:
        raise InvalidRequest(
            f"tensor '{name}' has {len(buffer)} bytes; {datatype} of shape {list(shape)}"
            f" takes {count * dtype.itemsize}"
        )
    data = np.frombuffer(buffer, dtype)
    if not data.flags.aligned:
        data = data.copy()
    if datatype == "BOOL" and count and data.view(np.uint8).max() > 1:
        raise InvalidRequest(f"tensor '{name}': every byte of a BOOL must be 0 or 1")
    return Tensor(name, datatype, data.reshape(shape))


def to_raw(tensor: Tensor) -> bytes | memoryview:
    """Write a tensor as raw bytes; a view of its memory where that is possible."""
    if tensor.datatype == "BYTES":
        return byte_strings.pack(map(byte_strings.as_bytes, tensor.data.flat))
    data = np.ascontiguousarray(tensor.data, NUMPY_OF[tensor.datatype])
    return data.reshape(-1).view(np.uint8).data


def from_json(
    name: str, datatype: object, shape: Sequence[Any], data: object, limits: TensorLimits
) -> Tensor:
    """Read a tensor from parsed JSON, row-major, flat or nested exactly like the shape.

    Raises:
        InvalidRequest: an unknown datatype, one that JSON cannot carry, a bad shape, a wrong
            number of elements, or an element of the wrong type or out of range (with its index).
    """
    datatype = check_datatype(datatype, name)
    if datatype in _BINARY_ONLY:
        raise InvalidRequest(
            f"tensor '{name}': JSON cannot carry {datatype}; send it as binary tensor data"
        )
    count = element_count(shape, name, limits)
    if type(data) is not list:
        raise InvalidRequest(f"tensor '{name}': data must be an array")
    if data and type(data[0]) is list:
        if len(shape) + _LEVELS_AROUND_DATA > limits.max_json_depth:
            raise InvalidRequest(
                f"tensor '{name}': data nests deeper than limits.max_json_depth; send it flat"
            )
        data = _flatten(data, shape, name)
    if len(data) != count:
        raise InvalidRequest(
            f"tensor '{name}' has {len(data)} elements; shape {shape} takes {count}"
        )
    return Tensor(name, datatype, elements.from_json(name, datatype, shape, data))


def to_json(tensor: Tensor) -> NDArray[Any] | list[str]:
    """Give the flat `data` of a tensor, for orjson with OPT_SERIALIZE_NUMPY.

    orjson writes the shortest digits that give the same FP32, and NaN and infinities as null.

    Raises:
        InvalidRequest: JSON cannot carry it (FP16, BF16, BYTES that are not UTF-8).
    """
    datatype = tensor.datatype
    if datatype == "BYTES":
        try:
            return [byte_strings.as_bytes(element).decode() for element in tensor.data.flat]
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"output '{tensor.name}' holds bytes that are not UTF-8, which JSON cannot"
                " carry; ask for it with binary_data"
            ) from None
    if datatype in _BINARY_ONLY:
        raise InvalidRequest(
            f"output '{tensor.name}' is {datatype}, which JSON cannot carry;"
            " ask for it with binary_data"
        )
    return np.ascontiguousarray(tensor.data, NUMPY_OF[datatype]).reshape(-1)


def _flatten(data: list[Any], shape: Sequence[int], name: str) -> list[Any]:
    """Undo the nesting of `data` level by level; each level must agree with the shape."""
    fits = bool(shape) and len(data) == shape[0]
    for dimension in shape[1:]:
        # Only lists are chained: strings and objects would fall apart into their parts.
        fits = fits and set(map(type, data)) <= {list} and set(map(len, data)) <= {dimension}
        if not fits:
            break
        data = data[0] if len(data) == 1 else list(chain.from_iterable(data))
    if not fits or (data and type(data[0]) is list):
        raise InvalidRequest(
            f"tensor '{name}': nested data does not have the shape {shape};"
            " nest it exactly like the shape, or send it flat"
        )
    return data
