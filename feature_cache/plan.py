"""What one model version needs, resolved once: keys, layouts, places, defaults.

A `Part` is the fields of one view that go into one input. It is the same object for every plan
of a cache that wants the same, so what was decoded for production serves canary and shadow too.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.codec import Corrupt, Extractor, Layout, plain_start
from feature_cache.durations import milliseconds
from feature_cache.feast import FeastKeys, floats, scalar
from feature_cache.keys import ENTITY_RANGES, KeySpace
from feature_cache.single import Single
from feature_cache.status import Status
from feature_cache.straight import Straight
from feature_cache.views import FeatureView

__all__ = [
    "FeastPlace",
    "InputSpec",
    "Part",
    "Plan",
    "PlannedInput",
    "PlannedView",
    "Row",
    "compile_plan",
    "read_row",
]


_F4: Final = np.dtype("<f4")
_OK, _CACHED = int(Status.OK), int(Status.CACHED)


class InputSpec(msgspec.Struct, frozen=True):
    """One model input: its columns as (view, field), in the model's order, and its dtype."""

    columns: tuple[tuple[str, str], ...]
    dtype: np.dtype[Any]


class Row(msgspec.Struct, frozen=True, gc=False):
    """A part's values of one entity, shape [k], and what had to be done to get them.

    `lacking`: places without a stored value, which hold the default (or NaN) here.
    """

    values: NDArray[Any]
    bits: int
    lacking: tuple[int, ...] = ()


class Part:
    """Fields of one view in the view's order, read into one dtype."""

    def __init__(self, view: FeatureView, fields: Sequence[str], dtype: np.dtype[Any]) -> None:
        self.view = view
        self.fields = tuple(fields)
        self.dtype = dtype
        self._wanted = tuple((name, view.fields[name].type) for name in self.fields)
        self._extractors: dict[bytes, Extractor] = {}
        self._nan = view.on_missing == "nan"
        fill = [_fill(view, name, dtype) for name in self.fields]
        self._fill = np.empty(len(fill), dtype)
        self._fill[:] = fill
        self._fill.flags.writeable = False
        everything = tuple(range(len(self.fields)))
        self._missing = 0 if self._nan else int(Status.DEFAULTED)
        self.empty = Row(self._fill, self._missing, everything)
        """What stands in for an entity of which nothing is known."""

    def lies(self, layout: Layout) -> tuple[int, int] | None:
        """Offset and count of the values in a blob, if they lie there as they are wanted."""
        return Extractor(layout, self._wanted, self.dtype).plain

    def row(self, blob: bytes, layout: Layout) -> Row:
        """Read one blob of that layout. Raises Corrupt."""
        extractor = self._extractors.get(layout.schema_id)
        if extractor is None:
            extractor = Extractor(layout, self._wanted, self.dtype)
            self._extractors[layout.schema_id] = extractor
        values, bits = extractor.one(blob), 0
        lacking = extractor.nulls(blob)
        if lacking:
            bits |= Status.NULLS
        if extractor.absent:
            lacking = tuple(sorted((*lacking, *extractor.absent)))
            if any(layout.type_of(self.fields[at]) is not None for at in extractor.absent):
                bits |= Status.SCHEMA
        if lacking:
            values = values.copy()
            values[list(lacking)] = self._fill[list(lacking)]
            bits |= self._missing
        return Row(values, bits, lacking)

    def foreign_row(self, raw: Sequence[bytes | None]) -> Row:
        """Read Feast's values of each field: None was never written, no bytes are a null."""
        if self.dtype == _F4 and (whole := floats(raw)) is not None:
            return Row(whole, 0)
        values, bits, lacking = self._fill.copy(), 0, []
        for at, ((_, kind), one) in enumerate(zip(self._wanted, raw, strict=True)):
            if not one:
                bits |= 0 if one is None else Status.NULLS
                lacking.append(at)
                continue
            try:
                values[at] = scalar(one, kind)
            except Corrupt:
                bits |= Status.SCHEMA
                lacking.append(at)
        if lacking:
            bits |= self._missing
        return Row(values, int(bits), tuple(lacking))


def _fill(view: FeatureView, name: str, dtype: np.dtype[Any]) -> Any:
    if view.on_missing == "nan" and dtype.kind == "f":
        return np.nan
    default = view.fields[name].default
    if dtype.hasobject:
        return default.encode() if isinstance(default, str) else default or b""
    return default if default is not None else 0


class FeastPlace(msgspec.Struct, frozen=True):
    """Where Feast keeps a view: its keys, and the hash fields of its features and event time."""

    keys: FeastKeys
    fields: dict[str, bytes]
    time: bytes


class PlannedView:
    """One view of a plan: where its rows are and how old they may be."""

    def __init__(self, view: FeatureView, tenant: str, feast: FeastPlace | None = None) -> None:
        self.view = view
        self.name = view.view
        self.feast = feast
        self.space = KeySpace(tenant, view.view, view.entity)
        self.keys: KeySpace | FeastKeys = self.space if feast is None else feast.keys
        """Makes the keys of its rows."""
        # By name: how somebody orders a YAML file must not change what bytes mean.
        self.layout = Layout([(name, field.type) for name, field in sorted(view.fields.items())])
        self.fresh_ms = milliseconds(view.fresh_for)
        self.keep_ms = milliseconds(view.keep_for)
        self.defaults_stale = view.on_stale == "default"
        self.parts: list[Part] = []
        self.fields: frozenset[str] = frozenset()
        """Fields that the plan wants of it."""
        self.key: tuple[Part, ...] = ()
        """Under which what was decoded for this plan is kept with a row."""
        self.empty: list[Row] = []
        self.empty_bits = 0
        self.plain: tuple[bytes, int, int, int] | None = None
        """Of blobs whose own bytes are the only part: first 8 bytes, length, offset, count."""

    def wanting(self, key: tuple[Part, ...]) -> "PlannedView":
        """This view with the parts that one plan wants."""
        own = copy(self)
        parts = list(key)
        own.parts, own.key = parts, key
        own.fields = frozenset(field for part in parts for field in part.fields)
        own.empty = [part.empty for part in parts]
        own.empty_bits = parts[0].empty.bits
        if (
            self.feast is None
            and len(parts) == 1
            and (lies := parts[0].lies(self.layout)) is not None
        ):
            own.plain = (plain_start(self.layout), self.layout.size, *lies)
        return own


class PlannedInput:
    """One input of a plan: parts side by side, then put in the model's order."""

    def __init__(self, name: str, spec: InputSpec, parts: list[Part]) -> None:
        self.name = name
        self.dtype = spec.dtype
        self.parts = parts
        self.fields = tuple(field for _, field in spec.columns)
        laid = [(part.view.view, field) for part in parts for field in part.fields]
        order = [laid.index(column) for column in spec.columns]
        self.order = None if order == list(range(len(order))) else np.array(order)
        self.place = {field: at for at, (_, field) in enumerate(spec.columns)}


class Plan:
    """Everything one model version asks of the store."""

    def __init__(self, views: tuple[PlannedView, ...], inputs: tuple[PlannedInput, ...]) -> None:
        self.views = views
        self.inputs = inputs
        self.names = tuple(view.name for view in views)
        self.first_of_one = {view.name: at for at, view in enumerate(views)}
        """Where each view's row is when one entity is asked for in all of them."""
        self.side_by_side = len(inputs) == 1 and [[part] for part in inputs[0].parts] == [
            v.parts for v in views
        ]
        """One input, and one part of each view in it, in order: the common case."""
        spaces = [view.space for view in views]
        alike = {(space.names, tuple(space.entity.values())) for space in spaces}
        self.single: Single | None = None
        """The one numeric key of all views, if that is how it is."""
        native = all(view.feast is None for view in views)
        if native and len(alike) == 1 and spaces[0].number_affixes is not None:
            name = spaces[0].names[0]
            span = ENTITY_RANGES[spaces[0].entity[name]]
            affixes = [s.number_affixes or (b"", b"") for s in spaces]
            self.single = Single(name, span, affixes, self.first_of_one)
        self.shape: Any = (
            tuple(view.key for view in views),
            tuple(
                (one.name, one.dtype.str, None if one.order is None else one.order.tobytes())
                for one in inputs
            ),
        )
        """Equal for plans that make the same of the same rows."""
        self.straight = Straight.of(views, inputs[0]) if self.side_by_side else None
        """How to cut the values out of all views' rows at once, if they lie there as wanted."""
        count = len(views)
        self.fine: Final = ([[_OK]] * count, [[_OK | _CACHED]] * count)
        """Status bits of an entity whose rows are all fine: read just now, or cached."""
        self.entity: Final = {
            name: kind for view in views for name, kind in view.view.entity.items()
        }
        self.fields: Final = {
            field: (planned, planned.place[field]) for planned in inputs for field in planned.fields
        }


def compile_plan(
    inputs: Mapping[str, InputSpec],
    views: Mapping[str, PlannedView],
    parts: dict[tuple[Any, ...], Part],
    keys: dict[tuple[Part, ...], tuple[Part, ...]],
) -> Plan:
    """Resolve the inputs of one version against the views of a cache.

    Args:
        inputs: by name.
        views: every view the cache knows.
        parts: those made so far; new ones are added.
        keys: which of them one view gives together, so far; new ones are added.

    Raises:
        ValueError: a view or field that is not there, or one field name twice.
    """
    seen: set[str] = set()
    used: dict[str, PlannedView] = {}
    planned = []
    for name, spec in inputs.items():
        wanted: dict[str, set[str]] = {}
        for view, field in spec.columns:
            if view not in views:
                raise ValueError(f"input '{name}' wants the view '{view}', which is not there")
            if field not in views[view].view.fields:
                raise ValueError(f"the view '{view}' has no field '{field}'")
            if field in seen:
                raise ValueError(f"two columns are called '{field}'")
            seen.add(field)
            wanted.setdefault(view, set()).add(field)
        chosen = []
        for view, fields in wanted.items():
            known = views[view].view
            names = tuple(field for field in known.fields if field in fields)
            wish = (view, names, spec.dtype.str)
            if wish not in parts:
                parts[wish] = Part(known, names, spec.dtype)
            chosen.append(parts[wish])
            used.setdefault(view, views[view])
        planned.append(PlannedInput(name, spec, chosen))
    mine = []
    for shared in used.values():
        key = tuple(part for one in planned for part in one.parts if part.view is shared.view)
        # The same tuple for every plan that wants the same: rows are kept decoded under it.
        mine.append(shared.wanting(keys.setdefault(key, key)))
    return Plan(tuple(mine), tuple(planned))


def read_row(part: Part, blob: bytes, layout: Layout) -> Row:
    """A part's row, or its empty one marked SCHEMA where the bytes are not what they say."""
    try:
        return part.row(blob, layout)
    except Corrupt:
        empty = part.empty
        return Row(empty.values, empty.bits | Status.SCHEMA, empty.lacking)
