"""Feast's online store in Redis, as bytes: keys, hash fields, values, times. No I/O, no Feast.

What Feast 0.67 writes, with key serialization version 3: one hash for each project and entity.

    key     u32 number of keys, then each name sorted: u32 2, u32 length, UTF-8; then each value in
            the same order: u32 type, u32 length, bytes; then the project, UTF-8, without a length.
            All little-endian; types as in `ValueType` (STRING 2, INT32 3, INT64 4).
    field   u32 MurmurHash3 (x86, 32 bits, seed 0) of `view:feature`, little-endian
    time    field `_ts:view`: a google.protobuf.Timestamp
    value   a feast.types.Value: one field of a protobuf message; no bytes at all mean null

Protobuf's wire format: https://protobuf.dev/programming-guides/encoding/.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_cache.codec import Corrupt
from feature_cache.keys import ENTITY_RANGES, EntityType, EntityValue, InvalidEntity

__all__ = [
    "FeastKeys",
    "collisions",
    "decode_value",
    "event_time_ms",
    "field_name",
    "floats",
    "murmur3_32",
    "scalar",
    "timestamp_field",
]

_WORD: Final = 0xFFFFFFFF
_U32: Final = struct.Struct("<I")
_F4: Final = struct.Struct("<f")
_F8: Final = struct.Struct("<d")
_KEY_TYPES: Final = {"string": 2, "int32": 3, "int64": 4}
_KEY_FORMATS: Final = {"int32": struct.Struct("<IIi"), "int64": struct.Struct("<IIq")}

_KINDS: Final = {
    1: "bytes", 2: "string", 3: "int32", 4: "int64", 5: "double", 6: "float", 7: "bool",
    8: "unix_timestamp", 11: "bytes_list", 12: "string_list", 13: "int32_list", 14: "int64_list",
    15: "double_list", 16: "float_list", 17: "bool_list", 18: "unix_timestamp_list",
}  # fmt: skip
"""Field numbers of feast.types.Value."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE: Final = {
    "bytes": _BYTES, "string": _BYTES, "int32": _VARINT, "int64": _VARINT, "double": _FIXED64,
    "float": _FIXED32, "bool": _VARINT, "unix_timestamp": _VARINT,
}  # fmt: skip


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """MurmurHash3 x86 32-bit, as Austin Appleby published it (public domain)."""
    state = seed
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        state ^= _scrambled(int.from_bytes(data[at : at + 4], "little"))
        state = (state << 13 | state >> 19) & _WORD
        state = (state * 5 + 0xE6546B64) & _WORD
    if len(data) > whole:
        state ^= _scrambled(int.from_bytes(data[whole:], "little"))
    state ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = ((state ^ state >> shift) * factor) & _WORD
    return state ^ state >> 16


def _scrambled(block: int) -> int:
    block = (block * 0xCC9E2D51) & _WORD
    block = (block << 15 | block >> 17) & _WORD
    return (block * 0x1B873593) & _WORD


def field_name(view: str, feature: str) -> bytes:
    """The hash field of one feature, 4 bytes."""
    return _U32.pack(murmur3_32(f"{view}:{feature}".encode()))


def timestamp_field(view: str) -> bytes:
    """The hash field of a view's event time."""
    return f"_ts:{view}".encode()


def collisions(
    features: Iterable[tuple[str, str]],
) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Pairs of (view, feature) that would read each other's values. Feast does not look."""
    first: dict[bytes, tuple[str, str]] = {}
    return [
        (known, feature)
        for feature in features
        if (known := first.setdefault(field_name(*feature), feature)) != feature
    ]


class FeastKeys:
    """Makes the keys of one project's entities.

    Args:
        project: Feast's.
        entity: name and type of each join key.
        make: what a key is made to be; its bytes are given to it.
    """

    def __init__(self, project: str, entity: Mapping[str, EntityType], make: Any = bytes) -> None:
        self.entity = dict(sorted(entity.items()))
        self.names: tuple[str, ...] = tuple(self.entity)
        self._make = make
        self._project = project.encode()
        self._head = _U32.pack(len(self.names)) + b"".join(
            _U32.pack(2) + _U32.pack(len(name.encode())) + name.encode() for name in self.names
        )

    def key(self, values: Sequence[EntityValue]) -> bytes:
        """The key of one entity; `values` in the order of `names`. Raises InvalidEntity."""
        parts = [
            _key_value(name, kind, value)
            for (name, kind), value in zip(self.entity.items(), values, strict=True)
        ]
        made: bytes = self._make(self._head + b"".join(parts) + self._project)
        return made

    def keys(self, columns: Sequence[Sequence[EntityValue]]) -> list[bytes]:
        """The keys of many entities, one column a name. Raises InvalidEntity."""
        return [self.key(values) for values in zip(*columns, strict=True)]


def _key_value(name: str, kind: EntityType, value: EntityValue) -> bytes:
    if kind == "string":
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        if not isinstance(value, bytes):
            raise InvalidEntity(f"entity key '{name}' is a string, not {type(value).__name__}")
        return _U32.pack(_KEY_TYPES[kind]) + _U32.pack(len(value)) + value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidEntity(f"entity key '{name}' is {kind}, not {type(value).__name__}")
    low, high = ENTITY_RANGES[kind]
    if not low <= value <= high:
        raise InvalidEntity(f"entity key '{name}' is {kind}, and {value} is out of its range")
    form = _KEY_FORMATS[kind]
    return form.pack(_KEY_TYPES[kind], form.size - 8, value)


# --- values ---------------------------------------------------------------------------------


def decode_value(raw: bytes) -> tuple[str, Any]:
    """Kind and Python value of any feast.types.Value; `("null", None)` for no bytes.

    Raises:
        Corrupt: another kind, cut off, bytes left over, a string that is no UTF-8.
    """
    if not raw:
        return "null", None
    number, wire, at = _tag(raw, 0)
    kind = _KINDS.get(number)
    if kind is None:
        raise Corrupt(f"field {number} is no kind of value that is known here")
    element, is_list = kind.removesuffix("_list"), kind.endswith("_list")
    if is_list:
        content, at = _delimited(raw, at, wire)
        value: Any = _list(content, element)
    else:
        if wire != _WIRE[element]:
            raise Corrupt(f"a {kind} with the wire type {wire}")
        value, at = _element(raw, at, element)
    if at != len(raw):
        raise Corrupt(f"bytes are left over behind a {kind}")
    return kind, value


def _list(content: bytes, element: str) -> list[Any]:
    """A repeated field 1, packed or not."""
    values: list[Any] = []
    at = 0
    while at < len(content):
        number, wire, at = _tag(content, at)
        if number != 1:
            raise Corrupt(f"field {number} in a list")
        if wire == _WIRE[element]:
            value, at = _element(content, at, element)
            values.append(value)
        else:
            packed, at = _delimited(content, at, wire)
            inner = 0
            while inner < len(packed):
                value, inner = _element(packed, inner, element)
                values.append(value)
    return values


def _element(raw: bytes, at: int, kind: str) -> tuple[Any, int]:
    if kind in ("float", "double"):
        form = _F4 if kind == "float" else _F8
        if at + form.size > len(raw):
            raise Corrupt(f"a {kind} is cut off")
        return form.unpack_from(raw, at)[0], at + form.size
    if kind in ("string", "bytes"):
        text, at = _delimited(raw, at, _BYTES)
        if kind == "bytes":
            return text, at
        try:
            return text.decode(), at
        except UnicodeDecodeError:
            raise Corrupt("a string is no UTF-8") from None
    number, at = _varint(raw, at)
    if kind == "bool":
        if number > 1:
            raise Corrupt("a bool is neither 0 nor 1")
        return bool(number), at
    signed = number - (1 << 64) if number >> 63 else number
    low, high = ENTITY_RANGES["int32" if kind == "int32" else "int64"]
    if not low <= signed <= high:
        raise Corrupt(f"{signed} is no {kind}")
    return signed, at


def _tag(raw: bytes, at: int) -> tuple[int, int, int]:
    """Field number, wire type, and where the field's content begins."""
    tag, at = _varint(raw, at)
    return tag >> 3, tag & 7, at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for at_byte in range(at, min(at + 10, len(raw))):
        byte = raw[at_byte]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            if value >> 64:
                raise Corrupt("a varint has more than 64 bits")
            return value, at_byte + 1
        shift += 7
    raise Corrupt("a varint is cut off or longer than ten bytes")


def _delimited(raw: bytes, at: int, wire: int) -> tuple[bytes, int]:
    if wire != _BYTES:
        raise Corrupt(f"wire type {wire} where a length belongs")
    size, at = _varint(raw, at)
    if at + size > len(raw):
        raise Corrupt("a length points behind the end")
    return raw[at : at + size], at + size


_ACCEPTED: Final[dict[str, tuple[str, ...]]] = {
    "float32": ("float",), "float64": ("double",), "int8": ("int32",), "int16": ("int32",),
    "int32": ("int32",), "int64": ("int64", "unix_timestamp"), "bool": ("bool",),
    "string": ("string",),
}  # fmt: skip
_NARROW: Final = {"int8": 7, "int16": 15}


def scalar(raw: bytes, declared: str) -> Any:
    """The value of a feature that a view declares; strings as UTF-8 bytes.

    Args:
        raw: not empty: no bytes are a null, which has no value.
        declared: the view's type. `int64` also takes a Unix timestamp, in seconds.

    Raises:
        Corrupt: another kind than declared, or as `decode_value`.
    """
    if declared == "float32" and len(raw) == 5 and raw[0] == 0x35:
        return _F4.unpack_from(raw, 1)[0]
    kind, value = decode_value(raw)
    if kind not in _ACCEPTED[declared]:
        raise Corrupt(f"it is {kind} there, and {declared} here")
    bits = _NARROW.get(declared)
    if bits is not None and not -(1 << bits) <= value < 1 << bits:
        raise Corrupt(f"{value} is no {declared}")
    return value.encode() if kind == "string" else value


def floats(values: Sequence[bytes | None]) -> NDArray[np.float32] | None:
    """All values at once, shape [n], if each is a float that is there; else None."""
    for one in values:
        if one is None or len(one) != 5 or one[0] != 0x35:
            return None
    table = np.frombuffer(b"".join(values), [("tag", "u1"), ("value", "<f4")])  # type: ignore[arg-type]
    return table["value"].copy()


def event_time_ms(raw: bytes) -> int:
    """A google.protobuf.Timestamp as milliseconds since 1970. Raises Corrupt."""
    found = {1: 0, 2: 0}
    at = 0
    while at < len(raw):
        number, wire, at = _tag(raw, at)
        if number not in found or wire != _VARINT:
            raise Corrupt("this is no Timestamp")
        found[number], at = _varint(raw, at)
    seconds, nanos = found[1], found[2]
    if seconds >= 1 << 50 or nanos >= 1_000_000_000:
        raise Corrupt("a Timestamp before 1970 or beyond all time")
    return seconds * 1000 + nanos // 1_000_000
