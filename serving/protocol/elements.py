"""Single values to arrays, each value checked for its type and range.

numpy alone is too kind: `np.array([1.9, None, "3", True], ...)` raises for few of these and
rounds, wraps or saturates the rest. Types are checked in C by msgspec (0.4 µs for the call, then
3 ns per element) or, in short lists, by a set of types (15 ns per element); ranges by
`struct.pack`, which refuses what does not fit while it packs.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.protocol import byte_strings
from serving.types import NUMPY_OF

__all__ = ["CODES", "from_json", "from_typed"]

CODES: Final = {
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
"""`struct` format of each datatype that it knows."""
_TYPES: Final[dict[str, frozenset[type]]] = {
    **dict.fromkeys(CODES, frozenset({int})),
    "FP32": frozenset({int, float}),
    "FP64": frozenset({int, float}),
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
}
_LISTS: Final[dict[str, Any]] = {
    **dict.fromkeys(CODES, list[int]),
    "FP32": list[float],
    "FP64": list[float],
    "BOOL": list[bool],
    "BYTES": list[str],
}
_MSGSPEC_PAYS: Final = 24
_WANTED: Final = {
    **dict.fromkeys(CODES, "an integer"),
    "FP32": "a number",
    "FP64": "a number",
    "BOOL": "true or false",
    "BYTES": "a string",
}


def from_json(name: str, datatype: str, shape: Sequence[int], values: list[Any]) -> NDArray[Any]:
    """Turn as many parsed JSON values as the shape takes into an array.

    Integers take no floats, not even whole ones, and no booleans; BOOL takes only booleans;
    floats take integers; BYTES takes strings, as UTF-8.

    Raises:
        InvalidRequest: naming the tensor and the index of the value.
    """
    if len(values) < _MSGSPEC_PAYS:
        fits = _TYPES[datatype].issuperset(map(type, values))
    else:
        try:
            msgspec.convert(values, _LISTS[datatype])
            fits = True
        except msgspec.ValidationError:
            fits = False
    if not fits:
        for index, value in enumerate(values):
            if type(value) not in _TYPES[datatype]:
                _refuse(name, datatype, index, values)
    if datatype == "BYTES":
        values = [value.encode() for value in values]
    return from_typed(name, datatype, shape, values)


def from_typed(
    name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]
) -> NDArray[Any]:
    """Turn as many values of the right type as the shape takes into an array.

    Arrays of numbers are read-only.

    Raises:
        InvalidRequest: a number out of range, naming the tensor and the number's index.
    """
    if datatype == "BYTES":
        return byte_strings.as_array(values).reshape(shape)
    if datatype == "BOOL":
        return np.array(values, np.bool_).reshape(shape)
    code = CODES[datatype]
    try:
        packed = struct.pack(f"<{len(values)}{code}", *values)
    except (struct.error, OverflowError):
        _refuse(name, datatype, _first_misfit(code, values), values)
    # One call where np.frombuffer and reshape are two.
    return np.ndarray(shape, NUMPY_OF[datatype], packed)


def _first_misfit(code: str, values: Sequence[Any]) -> int:
    one = struct.Struct(f"<{code}")
    for index, value in enumerate(values):
        try:
            one.pack(value)
        except (struct.error, OverflowError):
            return index
    raise AssertionError("struct refused the values together but takes each alone")


def _refuse(name: str, datatype: str, index: int, values: Sequence[Any]) -> NoReturn:
    value = values[index]
    dtype = NUMPY_OF[datatype]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # Integers beyond 64 bits arrive from the parser as floats of at least 2**63.
        if type(value) is int or (type(value) is float and abs(value) >= 2.0**63):
            raise InvalidRequest(
                f"tensor '{name}': element {index} is out of range;"
                f" {datatype} takes {limits.min} to {limits.max}"
            )
    elif dtype.kind == "f" and type(value) in (int, float):
        raise InvalidRequest(f"tensor '{name}': element {index} is too large for {datatype}")
    raise InvalidRequest(
        f"tensor '{name}': element {index} is {_described(value)};"
        f" {datatype} takes {_WANTED[datatype]}"
    )


def _described(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}.get(
        type(value), "a number"
    )
