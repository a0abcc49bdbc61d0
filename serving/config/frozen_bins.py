"""The file of a reference: bins frozen from one table or time, with the counts it had itself.

A model's YAML names it (`monitoring.reference`). `sluice drift freeze` writes it, `serving.drift`
counts into its bins. It holds counts and no row of anybody.

    numeric      missing, nonfinite, below, above, then up to 16 quantiles of the reference
    categorical  missing, nonfinite, new, then up to 50 values
    frequent     missing, nonfinite, other, then the most frequent of many values

A null and a NaN are `missing` (an array of floats cannot tell them apart); `nonfinite` is ±∞.
"""

import hashlib
import math
import re
from itertools import pairwise
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from serving.errors import InvalidConfig

__all__ = [
    "MAX_REFERENCE_BYTES",
    "SPECIAL",
    "ColumnKind",
    "FrozenColumn",
    "Reference",
    "ValueType",
    "decode_reference",
    "digest_of",
    "encode_reference",
]

ColumnKind = Literal["numeric", "categorical", "frequent"]
ValueType = Literal["float", "integer", "bool", "string"]

SPECIAL: Final[dict[ColumnKind, tuple[str, ...]]] = {
    "numeric": ("missing", "nonfinite", "below", "above"),
    "categorical": ("missing", "nonfinite", "new"),
    "frequent": ("missing", "nonfinite", "other"),
}
"""The first bins of each kind of column: what is no ordinary value."""

T = TypeVar("T")
MAX_REFERENCE_BYTES: Final = 16 << 20
"""Largest reference read; that of the demo's 18 columns has 4 kB."""

_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")


class FrozenColumn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column's bins with the reference's own counts, as the file keeps them."""

    type: ValueType
    """What the values were."""

    kind: ColumnKind
    """How they are cut."""

    edges: list[float] = []
    """`numeric`: ascending. Bin i holds `edges[i] ≤ value < edges[i + 1]`, the last its end too."""

    values: list[float | str] = []
    """`categorical` and `frequent`: one bin each. Booleans are 0 and 1."""

    counts: list[Annotated[int, Meta(ge=0)]]
    """Rows of the reference in each bin."""

    seen_once: Annotated[int, Meta(ge=0)] = 0
    """`categorical`: rows of the reference whose value no other row has. So many would have been
    new to a reference without them (Good and Turing), so many are no surprise."""

    overdispersion: Annotated[float, Meta(ge=1)] = 1.0
    """How many times more than with independent rows the shares vary from time to time."""

    def __post_init__(self) -> None:
        """Refuse what cannot be counted into: ValueError says which part is wrong."""
        if self.kind == "numeric":
            self._check_edges()
        else:
            self._check_values()
        if len(self.counts) != len(self.names):
            raise ValueError(f"`counts` has {len(self.counts)} numbers for {len(self.names)} bins")

    def _check_edges(self) -> None:
        if self.type == "string":
            raise ValueError("text cannot be `numeric`")
        if len(self.edges) < 2 or not all(map(math.isfinite, self.edges)):
            raise ValueError("`edges` must be two finite numbers or more")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("`edges` must ascend")

    def _check_values(self) -> None:
        if len(set(self.values)) != len(self.values):
            raise ValueError("`values` names one twice")
        for value in self.values:
            if isinstance(value, str) != (self.type == "string"):
                raise ValueError(f"`values` holds {value!r}, but `type` is `{self.type}`")
            if not isinstance(value, str) and not math.isfinite(value):
                raise ValueError("`values` must be finite")

    @property
    def special(self) -> tuple[str, ...]:
        """Names of the first bins, for what is no ordinary value."""
        return SPECIAL[self.kind]

    @property
    def rows(self) -> int:
        """Rows of the reference."""
        return sum(self.counts)

    @property
    def names(self) -> list[str]:
        """Every bin's name, as people read it."""
        if self.kind == "numeric":
            last = len(self.edges) - 2
            return list(self.special) + [
                f"{low:g} … {high:g}" if position == last else f"{low:g} … <{high:g}"
                for position, (low, high) in enumerate(pairwise(self.edges))
            ]
        return list(self.special) + [
            one if isinstance(one, str) else f"{one:.15g}" for one in self.values
        ]


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole reference."""

    format: Annotated[int, Meta(ge=1, le=1)] = 1
    """Version of this file's format."""

    model: str
    """Whose columns these are."""

    digests: dict[str, str] = {}
    """SHA-256 of the model files whose outputs are among the columns, by version."""

    rows: Annotated[int, Meta(ge=1)]
    """Rows that were counted."""

    created: str
    """When it was frozen, ISO 8601 in UTC."""

    source: str
    """What was counted, in words."""

    columns: dict[str, FrozenColumn]
    """By name: features by their field, outputs by theirs, with `[COLUMN]` if they have several."""

    statuses: dict[str, dict[str, Annotated[int, Meta(ge=0)]]] = {}
    """Rows by feature view and status, where that was known. Else every row counts as OK."""


class _Draft(Reference, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reference whose columns have not been looked at, so that one can be blamed by name."""

    columns: dict[str, msgspec.Raw]  # type: ignore[assignment]


def encode_reference(reference: Reference) -> bytes:
    """Write the file: JSON, one column a line, the same bytes for the same reference."""
    document = msgspec.to_builtins(reference)
    columns = document.pop("columns")
    head = msgspec.json.format(msgspec.json.encode(document), indent=2)[:-2]
    lines = b",\n".join(
        b"    " + msgspec.json.encode(name) + b": " + msgspec.json.encode(column)
        for name, column in columns.items()
    )
    return head + b',\n  "columns": {\n' + lines + b"\n  }\n}\n"


def digest_of(reference: Reference) -> str:
    """Tell references apart by their content, whatever way they came; 16 hex digits."""
    content = msgspec.json.encode(reference, order="deterministic")
    return hashlib.sha256(content).hexdigest()[:16]


def decode_reference(data: bytes) -> Reference:
    """Read the file.

    Raises:
        InvalidConfig: it is no reference; the message names the column and what is wrong with it.
    """
    draft = _decode(data, _Draft, "")
    columns = {
        name: _decode(bytes(raw), FrozenColumn, f"column `{name}`: ")
        for name, raw in draft.columns.items()
    }
    if not columns:
        raise InvalidConfig("it has no columns; freeze it again")
    for name, column in columns.items():
        if column.rows != draft.rows:
            message = f"column `{name}`: `counts` sums to {column.rows}, but `rows` is {draft.rows}"
            raise InvalidConfig(message)
    rest = {name: getattr(draft, name) for name in Reference.__struct_fields__ if name != "columns"}
    return Reference(**rest, columns=columns)


def _decode(data: bytes, kind: type[T], subject: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        where = f"`{place[1]}`: " if place and place[1] else ""
        raise InvalidConfig(f"{subject}{where}{_PLACE.sub('', text)}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidConfig(f"{subject}it is no JSON document: {error}") from error
