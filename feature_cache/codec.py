"""One view's values for one entity as bytes, and back. No I/O.

    offset  bytes
         0      1  magic 0xFC
         1      1  flags: 1 erased (a tombstone, nothing follows the header), 2 holds nulls
         2      6  schema id: the first 48 bits of BLAKE2b over the field list
         8      8  event time, milliseconds since 1970, big-endian: bytes compare like times
        16      …  null bitmap, bit i of byte i // 8 is field i; padded to 8 bytes
         …      …  fixed-width fields, widest first, little-endian, grouped by type
         …      …  strings, in field order: u32 little-endian length, UTF-8 bytes

The schema id is derived from the field list, so two writers that agree on a view agree on the id
without talking, and bytes are never read by a layout they were not written with. A reader that
meets an id it does not know looks it up in the store (`keys.KeySpace.schemas`).
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HEADER_BYTES",
    "HOLDS_NULLS",
    "MAX_EVENT_MS",
    "MAX_STRING_BYTES",
    "TOMBSTONE",
    "Corrupt",
    "Extractor",
    "Layout",
    "event_time",
    "pack",
    "plain_start",
    "schema_of",
    "tombstone",
]

MAGIC: Final = 0xFC
TOMBSTONE: Final = 1
HOLDS_NULLS: Final = 2
HEADER_BYTES: Final = 16
MAX_EVENT_MS: Final = (1 << 63) - 1

_HEADER: Final = struct.Struct(">BB6sQ")
_TIME: Final = struct.Struct(">Q")
_LENGTH: Final = struct.Struct("<I")
MAX_STRING_BYTES: Final = 1 << 20
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "float64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
    "float32": np.dtype("<f4"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("<i1"),
    "bool": np.dtype("?"),
}
"""In storage order: widest first, so that every group is aligned."""


class Corrupt(ValueError):
    """The bytes are no blob of this format, or of another length than their layout says."""


class Layout:
    """Where each field of a view lies; made from its field list, and nothing else.

    Attributes:
        fields: name and type of each field, in the view's order.
        schema_id: 6 bytes that stand for exactly this list.
        size: bytes of a blob up to its strings.
    """

    __slots__ = ("_positions", "bitmap", "fields", "offsets", "row", "schema_id", "size", "strings")

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self.fields: tuple[tuple[str, str], ...] = tuple((name, kind) for name, kind in fields)
        self._positions = {name: at for at, (name, _) in enumerate(self.fields)}
        self.schema_id = hashlib.blake2b(self.describe(), digest_size=6).digest()
        self.bitmap = (len(self.fields) + 63) // 64 * 8
        offset = HEADER_BYTES + self.bitmap
        self.offsets: dict[str, int] = {}
        for kind, dtype in _DTYPES.items():
            for name, its in self.fields:
                if its == kind:
                    self.offsets[name] = offset
                    offset += dtype.itemsize
        self.size = offset
        self.strings = tuple(name for name, kind in self.fields if kind == "string")
        kinds = dict(self.fields)
        self.row: np.dtype[Any] = np.dtype(
            {
                "names": list(self.offsets),
                "formats": [_DTYPES[kinds[name]] for name in self.offsets],
                "offsets": list(self.offsets.values()),
                "itemsize": self.size,
            }
        )

    @classmethod
    def parse(cls, described: bytes) -> "Layout":
        """Read what `describe` wrote. Raises Corrupt."""
        try:
            fields = msgspec.json.decode(described, type=list[tuple[str, str]])
        except (ValueError, RecursionError) as error:
            raise Corrupt("this is no field list") from error
        if not all(kind == "string" or kind in _DTYPES for _, kind in fields):
            raise Corrupt("the field list holds a type that is not known here")
        return cls(fields)

    def describe(self) -> bytes:
        """The field list as JSON, which is what the schema id is the digest of."""
        return msgspec.json.encode(self.fields)

    def type_of(self, name: str) -> str | None:
        """The type of a field, None if there is no such field."""
        at = self._positions.get(name)
        return self.fields[at][1] if at is not None else None

    def position(self, name: str) -> int:
        """A field's place in the list, which is its bit in the null bitmap."""
        return self._positions[name]


def schema_of(blob: bytes) -> tuple[int, bytes]:
    """Flags and schema id. Raises Corrupt: too short, or another magic."""
    if len(blob) < HEADER_BYTES or blob[0] != MAGIC:
        raise Corrupt("these bytes are no feature blob")
    return blob[1], blob[2:8]


def plain_start(layout: Layout) -> bytes:
    """The first 8 bytes of every blob of this layout that is no tombstone and holds no null."""
    return bytes((MAGIC, 0)) + layout.schema_id


def event_time(blob: bytes) -> int:
    """Event time in milliseconds since 1970."""
    return int.from_bytes(blob[8:16], "big")


def tombstone(event_ms: int) -> bytes:
    """What an erased entity leaves: nothing but a time that older writes lose against."""
    return _HEADER.pack(MAGIC, TOMBSTONE, bytes(6), event_ms)


def pack(
    layout: Layout,
    columns: Mapping[str, Sequence[Any] | NDArray[Any]],
    event_ms: NDArray[np.int64],
    nulls: Mapping[str, NDArray[np.bool_]] | None = None,
) -> list[bytes]:
    """Pack many rows.

    Args:
        layout: the view's.
        columns: one of every field, n values each. Strings as `str` or `bytes`; what stands
            at a null does not matter.
        event_ms: shape [n], milliseconds since 1970, none negative.
        nulls: by field, shape [n], true where there is no value.

    Raises:
        ValueError: columns of different lengths, a negative time, or a string over 1 MiB.
    """
    rows = len(event_ms)
    if rows and int(event_ms.min()) < 0:
        raise ValueError("an event time is before 1970")
    fixed = np.zeros((rows, layout.size), np.uint8)
    fixed[:, 0] = MAGIC
    fixed[:, 2:8] = np.frombuffer(layout.schema_id, np.uint8)
    fixed[:, 8:16] = event_ms.astype(">u8").view(np.uint8).reshape(rows, 8)
    for name in nulls or ():
        mask = (nulls or {})[name]
        if mask.any():
            bit = layout.position(name)
            fixed[:, HEADER_BYTES + bit // 8] |= mask.astype(np.uint8) << (bit % 8)
            fixed[:, 1] |= mask * np.uint8(HOLDS_NULLS)
    table = fixed.reshape(-1).view(layout.row) if rows and layout.offsets else None
    if table is not None:
        for name in layout.offsets:
            table[name] = columns[name]
    whole = fixed.tobytes()
    blobs = [whole[at : at + layout.size] for at in range(0, len(whole), layout.size)]
    if not layout.strings:
        return blobs
    texts = [[_counted(value) for value in columns[name]] for name in layout.strings]
    return [b"".join(parts) for parts in zip(blobs, *texts, strict=True)]


def _counted(value: str | bytes | None) -> bytes:
    text = value.encode() if isinstance(value, str) else value or b""
    if len(text) > MAX_STRING_BYTES:
        raise ValueError("a string is longer than 1 MiB")
    return _LENGTH.pack(len(text)) + text


class _Group:
    """Adjacent fields of one type, and where they go."""

    __slots__ = ("count", "destination", "dtype", "offset", "source")

    def __init__(self, layout: Layout, kind: str, wanted: list[tuple[str, int]]) -> None:
        stored = [name for name, its in layout.fields if its == kind]
        self.dtype = _DTYPES[kind]
        self.offset = layout.offsets[stored[0]]
        self.count = len(stored)
        self.source = _index([stored.index(name) for name, _ in wanted])
        self.destination = _index([at for _, at in wanted])


def _index(positions: list[int]) -> Any:
    """A slice where the positions are a run, which numpy copies several times faster."""
    first, count = positions[0], len(positions)
    if positions == list(range(first, first + count)):
        return slice(first, first + count)
    return np.array(positions)


class Extractor:
    """Takes chosen fields of blobs of one layout into a row of one dtype.

    Args:
        layout: what the blobs were written with.
        wanted: name and type of each field, in the order of the result.
        dtype: of the result; `object` for strings (as `bytes`).

    `absent` are the places whose field the layout does not have, or has with another type;
    their values are zero here and the caller fills them in.
    """

    __slots__ = (
        "_bits",
        "_dtype",
        "_groups",
        "_layout",
        "_text_places",
        "_wanted",
        "absent",
        "plain",
    )

    def __init__(
        self, layout: Layout, wanted: Sequence[tuple[str, str]], dtype: np.dtype[Any]
    ) -> None:
        self._layout = layout
        self._dtype = dtype
        self._wanted = len(wanted)
        present = [
            (name, kind, at)
            for at, (name, kind) in enumerate(wanted)
            if layout.type_of(name) == kind
        ]
        self.absent = tuple(sorted(set(range(len(wanted))) - {at for _, _, at in present}))
        by_kind: dict[str, list[tuple[str, int]]] = {}
        for name, kind, at in present:
            by_kind.setdefault(kind, []).append((name, at))
        texts = dict(by_kind.pop("string", []))
        self._text_places = tuple(
            (order, texts[name]) for order, name in enumerate(layout.strings) if name in texts
        )
        self._groups = tuple(_Group(layout, kind, found) for kind, found in by_kind.items())
        self._bits = np.array([layout.position(name) for name, _, _ in present], np.intp)
        self.plain: tuple[int, int] | None = None
        """Offset and count, if the blob's own bytes are the result."""
        if len(self._groups) == 1 and not texts and not self.absent:
            group = self._groups[0]
            if (
                isinstance(group.source, slice)
                and group.destination == slice(0, len(wanted))
                and group.dtype == dtype
            ):
                shift = group.source.start * group.dtype.itemsize
                self.plain = group.offset + shift, len(wanted)

    def one(self, blob: bytes) -> NDArray[Any]:
        """Read one row, shape [k]; read-only where no byte had to be moved. Raises Corrupt."""
        layout = self._layout
        if len(blob) != layout.size and (not layout.strings or len(blob) < layout.size):
            raise Corrupt(f"{len(blob)} bytes, where the layout has {layout.size}")
        if self.plain is not None:
            offset, count = self.plain
            return np.frombuffer(blob, self._dtype, count, offset)
        row = np.zeros(self._wanted, self._dtype)
        for group in self._groups:
            stored = np.frombuffer(blob, group.dtype, group.count, group.offset)
            row[group.destination] = stored[group.source]
        if layout.strings:
            texts = self._strings(blob)
            for order, at in self._text_places:
                row[at] = texts[order]
        return row

    def many(self, blobs: Sequence[bytes]) -> NDArray[Any]:
        """Read many rows at once, shape [n, k]. Raises Corrupt if any of them is."""
        layout = self._layout
        if layout.strings or self._dtype.hasobject:
            return np.stack([self.one(blob) for blob in blobs])
        if any(len(blob) != layout.size for blob in blobs):
            raise Corrupt(f"a blob has not the {layout.size} bytes of its layout")
        whole, rows = b"".join(blobs), len(blobs)
        table = np.zeros((rows, self._wanted), self._dtype)
        for group in self._groups:
            step = group.dtype.itemsize
            stored: NDArray[Any] = np.ndarray(
                (rows, group.count), group.dtype, whole, group.offset, (layout.size, step)
            )
            table[:, group.destination] = stored[:, group.source]
        return table

    def nulls(self, blob: bytes) -> tuple[int, ...]:
        """Places of the result whose field was written as null."""
        if not blob[1] & HOLDS_NULLS:
            return ()
        bits = int.from_bytes(blob[HEADER_BYTES : HEADER_BYTES + self._layout.bitmap], "little")
        places = [at for at in range(self._wanted) if at not in self.absent]
        found = zip(places, self._bits.tolist(), strict=True)
        return tuple(at for at, bit in found if bits >> bit & 1)

    def _strings(self, blob: bytes) -> list[bytes]:
        texts, at = [], self._layout.size
        for _ in self._layout.strings:
            end = at + _LENGTH.size
            if end > len(blob):
                raise Corrupt("a string's length is cut off")
            (size,) = _LENGTH.unpack_from(blob, at)
            at = end + size
            if at > len(blob):
                raise Corrupt("a string is cut off")
            texts.append(blob[end:at])
        if at != len(blob):
            raise Corrupt("bytes are left over behind the last string")
        return texts
