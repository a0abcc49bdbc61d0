"""Checks of what a tensor declares, made before anything is allocated for it."""

import difflib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from serving.errors import InvalidRequest
from serving.types import DATATYPES, NUMPY_OF

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_NAME_BYTES",
    "TensorLimits",
    "check_datatype",
    "check_name",
    "element_count",
]

MAX_DIMENSIONS: Final = 8
MAX_NAME_BYTES: Final = 256
_SHOWN: Final = 32


class TensorLimits(msgspec.Struct, frozen=True, gc=False):
    """How much one request may declare; `serving.config.schema.Limits` holds the documented values.

    `max_elements` bounds each tensor, and so the memory that a short declaration can ask for.
    """

    max_elements: int = 4_194_304
    max_inputs: int = 256
    max_json_depth: int = 16


def check_name(name: object, where: str, index: int) -> str:
    """Give back a usable tensor name; `where` and `index` say which entry it is of.

    Raises:
        InvalidRequest: not a string, empty, or longer than `MAX_NAME_BYTES` in UTF-8.
    """
    if type(name) is not str or not name:
        raise InvalidRequest(f"{where}[{index}] needs a name: a non-empty string")
    # A character takes at most four bytes, so short names need no encoding to be measured.
    if len(name) > MAX_NAME_BYTES // 4 and len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidRequest(f"{where}[{index}] has a name longer than {MAX_NAME_BYTES} bytes")
    return name


def check_datatype(datatype: object, name: str) -> str:
    """Give back a known datatype. Raises InvalidRequest, with the nearest word there is."""
    if type(datatype) is not str:
        raise InvalidRequest(f"tensor '{name}' needs a datatype: a string such as FP32")
    if datatype not in NUMPY_OF:
        near = difflib.get_close_matches(datatype[:_SHOWN].upper(), DATATYPES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidRequest(f"tensor '{name}' has an unknown datatype '{datatype[:_SHOWN]}'{hint}")
    return datatype


def element_count(shape: Sequence[Any], name: str, limits: TensorLimits) -> int:
    """Count the elements a shape declares.

    Zero-sized dimensions are legal, but the others still count against the limit: numpy
    refuses `[0, 2**62, 2**62]` although it holds nothing.

    Raises:
        InvalidRequest: a dimension that is not a non-negative integer, more than
            `MAX_DIMENSIONS`, or more than `limits.max_elements` elements.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(
            f"tensor '{name}' has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are served"
        )
    count = 1
    empty = False
    for dimension in shape:
        if type(dimension) is not int:
            raise InvalidRequest(f"tensor '{name}': every dimension in shape must be an integer")
        if dimension <= 0:
            if dimension < 0:
                raise InvalidRequest(
                    f"tensor '{name}' has a negative dimension; send the actual size"
                )
            empty = True
        elif (count := count * dimension) > limits.max_elements:
            raise InvalidRequest(
                f"tensor '{name}' declares more than {limits.max_elements} elements"
                " (limits.max_elements)"
            )
    return 0 if empty else count
