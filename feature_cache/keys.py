"""Where a view's values for one entity lie in the store.

    fc:{<tenant>|<entity>}:<view>        a row: one packed blob, see `codec`
    fc:{<tenant>|}:<view>                a hash: schema id to field list, see `codec`
    fc:{<tenant>|}:<view>:seed           `finished` or `unfinished`, if a seed was ever loaded

`<entity>` is `name=42` for a number and `name~text` for a string, several joined by `,` in the
order of their names. Whatever could be mistaken for a separator or for part of a glob pattern
is percent-escaped, so no two different (tenant, entity, view) share a key, a tenant's keys match
one ACL pattern (`~fc:{acme|*`), and a key can be searched for without escaping it again. The
braces put all views of an entity into one cluster slot.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal
from urllib.parse import quote_from_bytes

__all__ = [
    "ENTITY_RANGES",
    "MAX_TEXT_BYTES",
    "EntityType",
    "EntityValue",
    "HashKey",
    "InvalidEntity",
    "KeySpace",
]

EntityType = Literal["int32", "int64", "string"]
EntityValue = int | str | bytes

ENTITY_RANGES: Final[dict[str, tuple[int, int]]] = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
MAX_TEXT_BYTES: Final = 256
"""A longer string is keyed by its BLAKE2b-256 digest: keys stay short, and still differ."""

_PLAIN: Final = re.compile(rb"[A-Za-z0-9_.+-]*\Z")
_SAFE: Final = "+"  # letters, digits and `_.-~` are always kept by quote; `~` is escaped below


class HashKey(bytes):
    """The key of a hash, of which `fields` are read; made a type of its own for each list."""

    fields: tuple[bytes, ...] = ()


class InvalidEntity(ValueError):
    """A key value that the view cannot have: missing, of another type, or out of range."""


def _escape(value: bytes) -> bytes:
    if _PLAIN.match(value):
        return value
    return quote_from_bytes(value, safe=_SAFE).replace("~", "%7E").encode("ascii")


def _text(value: bytes) -> bytes:
    if len(value) > MAX_TEXT_BYTES:
        return b"~#" + hashlib.blake2b(value, digest_size=32).hexdigest().encode("ascii")
    return b"~" + _escape(value)


class KeySpace:
    """Makes the keys of one view.

    Args:
        tenant: whose data it is; any text.
        view: the view's name.
        entity: name and type of each key, one or several.
    """

    __slots__ = (
        "_first",
        "_prefix",
        "_single_number",
        "_suffix",
        "entity",
        "names",
        "number_affixes",
        "schemas",
        "seed",
        "view",
    )

    def __init__(self, tenant: str, view: str, entity: Mapping[str, EntityType]) -> None:
        if not entity:
            raise InvalidEntity(f"view '{view}' has no entity key")
        self.entity = dict(sorted(entity.items()))
        self.names: tuple[str, ...] = tuple(self.entity)
        owner = _escape(tenant.encode())
        self.view = view
        self._prefix = b"fc:{" + owner + b"|"
        self._suffix = b"}:" + _escape(view.encode())
        self.schemas: bytes = self._prefix + self._suffix
        """The hash that holds the field lists of this view's blobs."""
        self.seed: bytes = self.schemas + b":seed"
        """Says whether the view's seed was loaded."""
        only = self.names[0]
        self._single_number = len(self.names) == 1 and self.entity[only] != "string"
        self._first = self._prefix + _escape(only.encode()) + b"="
        self.number_affixes = (self._first, self._suffix) if self._single_number else None
        """What stands before and behind the digits, if the entity is one number."""

    def key(self, values: Sequence[EntityValue]) -> bytes:
        """The key of one entity; `values` in the order of `names`.

        Raises:
            InvalidEntity: naming the key whose value does not fit.
        """
        if self._single_number:
            return b"%b%d%b" % (self._first, self._number(self.names[0], values[0]), self._suffix)
        parts = [
            self._part(name, kind, value)
            for (name, kind), value in zip(self.entity.items(), values, strict=True)
        ]
        return self._prefix + b",".join(parts) + self._suffix

    def keys(self, columns: Sequence[Sequence[EntityValue]]) -> list[bytes]:
        """The keys of many entities; one column a name, in the order of `names`.

        Raises:
            InvalidEntity: as `key`.
        """
        if self._single_number:
            first, suffix, name = self._first, self._suffix, self.names[0]
            low, high = ENTITY_RANGES[self.entity[name]]
            keys = []
            for value in columns[0]:
                if type(value) is int and low <= value <= high:
                    keys.append(b"%b%d%b" % (first, value, suffix))
                else:
                    self._number(name, value)  # says what is wrong
            return keys
        return [self.key(values) for values in zip(*columns, strict=True)]

    def pattern(self, known: Mapping[str, EntityValue]) -> bytes:
        """A glob that matches the keys of every entity with these values, and some others.

        A star also crosses separators; `matches` tells which are meant.
        """
        parts = [
            self._part(name, kind, known[name])
            if name in known
            else _escape(name.encode()) + (b"~*" if kind == "string" else b"=*")
            for name, kind in self.entity.items()
        ]
        return self._prefix + b",".join(parts) + self._suffix

    def matches(self, key: bytes, known: Mapping[str, EntityValue]) -> bool:
        """Whether a key is one of this view's, of an entity with exactly these values."""
        if not (key.startswith(self._prefix) and key.endswith(self._suffix)):
            return False
        parts = key[len(self._prefix) : -len(self._suffix)].split(b",")
        return len(parts) == len(self.names) and all(
            self._part(name, self.entity[name], value) in parts for name, value in known.items()
        )

    def _part(self, name: str, kind: EntityType, value: EntityValue) -> bytes:
        label = _escape(name.encode())
        if kind != "string":
            return b"%b=%d" % (label, self._number(name, value))
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        if not isinstance(value, bytes):
            raise InvalidEntity(f"entity key '{name}' is a string, not {type(value).__name__}")
        return label + _text(value)

    def _number(self, name: str, value: EntityValue) -> int:
        kind = self.entity[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidEntity(f"entity key '{name}' is {kind}, not {type(value).__name__}")
        low, high = ENTITY_RANGES[kind]
        if not low <= value <= high:
            raise InvalidEntity(f"entity key '{name}' is {kind}, and {value} is out of its range")
        return value
