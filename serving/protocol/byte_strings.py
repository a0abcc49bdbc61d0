"""BYTES tensors: object arrays of `bytes`, and their one-buffer form.

Format: binary tensor data extension of the Open Inference Protocol; per element a little-endian
uint32 length and that many bytes.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest

__all__ = ["as_array", "as_bytes", "pack", "unpack"]

_LENGTH: Final = struct.Struct("<I")


def unpack(buffer: bytes | memoryview, count: int, name: str) -> list[bytes]:
    """Read exactly `count` elements that fill the buffer exactly.

    Raises:
        InvalidRequest: truncated, or bytes left over. The count is held against the buffer's
            size first, so a large declared count allocates nothing.
    """
    size = len(buffer)
    if count * _LENGTH.size > size:
        raise InvalidRequest(
            f"tensor '{name}' declares {count} BYTES elements, too many for {size} bytes"
            " (each takes a 4-byte length and its content)"
        )
    content = bytes(buffer)
    length_at = _LENGTH.unpack_from
    elements: list[bytes] = []
    end = 0
    for index in range(count):
        start = end + _LENGTH.size
        if start > size:
            raise InvalidRequest(f"tensor '{name}' ends before the length of element {index}")
        end = start + length_at(content, end)[0]
        if end > size:
            raise InvalidRequest(f"tensor '{name}' ends inside element {index}")
        elements.append(content[start:end])
    if end != size:
        raise InvalidRequest(
            f"tensor '{name}' has {size - end} bytes left over after its {count} elements"
        )
    return elements


def pack(elements: Iterable[bytes]) -> bytes:
    """Write elements one after the other, each behind its length."""
    length = _LENGTH.pack
    parts: list[bytes] = []
    for element in elements:
        parts += (length(len(element)), element)
    return b"".join(parts)


def as_array(elements: Sequence[bytes]) -> NDArray[Any]:
    """A flat object array; `np.array(elements)` would make fixed-width, zero-trimmed strings."""
    data = np.empty(len(elements), np.object_)
    data[:] = elements
    return data


def as_bytes(element: object) -> bytes:
    """An element as bytes; ONNX Runtime gives string tensors as `str`."""
    return element if type(element) is bytes else str(element).encode()
