"""BYTES tensors as one buffer: per element a little-endian uint32 length and the bytes.

Format: binary tensor data extension of the Open Inference Protocol.
"""

import struct
from collections.abc import Iterable
from typing import Final

from serving.errors import InvalidRequest

__all__ = ["pack", "unpack"]

_LENGTH: Final = struct.Struct("<I")


def unpack(buffer: bytes | memoryview, count: int, name: str) -> list[bytes]:
    """Read exactly `count` elements that fill the buffer exactly.

    Raises:
        InvalidRequest: truncated, or bytes left over. The count is held against the buffer's
            size first, so a large declared count allocates nothing.
    """
    size = len(buffer)
    if count * 4 > size:
        raise InvalidRequest(
            f"tensor '{name}' declares {count} BYTES elements, too many for {size} bytes"
            " (each takes a 4-byte length and its content)"
        )
    content = bytes(buffer)
    length_at = _LENGTH.unpack_from
    elements: list[bytes] = []
    offset = 0
    for index in range(count):
        start = offset + 4
        if start > size:
            raise InvalidRequest(f"tensor '{name}' ends before the length of element {index}")
        offset = start + length_at(content, start - 4)[0]
        if offset > size:
            raise InvalidRequest(f"tensor '{name}' ends inside element {index}")
        elements.append(content[start:offset])
    if offset != size:
        raise InvalidRequest(
            f"tensor '{name}' has {size - offset} bytes left over after its {count} elements"
        )
    return elements


def pack(elements: Iterable[bytes]) -> bytes:
    """Write elements one after the other, each behind its length."""
    length = _LENGTH.pack
    parts: list[bytes] = []
    for element in elements:
        parts += (length(len(element)), element)
    return b"".join(parts)
