"""Views that Feast writes: where their rows are, and how a row is read.

All views of one project and entity share a hash, so they are read together, by one HMGET of every
field that any of them declares.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from feature_cache.codec import Corrupt
from feature_cache.feast import FeastKeys, collisions, event_time_ms, field_name, timestamp_field
from feature_cache.keys import HashKey
from feature_cache.near_cache import HashRow
from feature_cache.plan import FeastPlace, Part, PlannedView, Row
from feature_cache.status import Status
from feature_cache.views import FeatureView

__all__ = ["feast_places", "read_hash"]

_SCHEMA, _OK = int(Status.SCHEMA), int(Status.OK)


def feast_places(views: Iterable[FeatureView]) -> dict[str, FeastPlace]:
    """Where each view of Feast's is.

    Raises:
        ValueError: two features would read each other's values: Feast's names for them collide.
    """
    groups: dict[tuple[str, tuple[Any, ...]], list[FeatureView]] = {}
    for view in views:
        if view.source == "feast" and view.feast is not None:
            group = (view.feast.project, tuple(sorted(view.entity.items())))
            groups.setdefault(group, []).append(view)
    places = {}
    for (project, _), members in groups.items():
        features = [(_name(view), field) for view in members for field in view.fields]
        for first, second in collisions(features):
            raise ValueError(
                f"Feast keeps '{':'.join(first)}' and '{':'.join(second)}' under one name, so one "
                "of them overwrites the other"
            )
        fields = {field_name(*feature) for feature in features}
        fields |= {timestamp_field(_name(view)) for view in members}
        kind = type("Key", (HashKey,), {"fields": tuple(sorted(fields))})
        for view in members:
            places[view.view] = FeastPlace(
                FeastKeys(project, view.entity, kind),
                {field: field_name(_name(view), field) for field in view.fields},
                timestamp_field(_name(view)),
            )
    return places


def _name(view: FeatureView) -> str:
    assert view.feast is not None
    return view.feast.feature_view or view.view


def read_hash(view: PlannedView, row: HashRow) -> tuple[Any, list[Row], int, int] | None:
    """A view's rows, status bits and event time; None where it was never written."""
    if view.key not in row.decoded:
        row.decoded[view.key] = _decoded(view, row.values)
    decoded: tuple[Any, list[Row], int, int] | None = row.decoded[view.key]
    return decoded


def _decoded(
    view: PlannedView, values: Mapping[bytes, bytes | None]
) -> tuple[Any, list[Row], int, int] | None:
    place = view.feast
    assert place is not None
    if place.time not in values:  # read for views of another configuration
        return view.key, view.empty, _SCHEMA | view.empty_bits, -1
    stamp = values[place.time]
    if stamp is None:
        return None
    try:
        event_ms = event_time_ms(stamp)
    except Corrupt:
        return view.key, view.empty, _SCHEMA | view.empty_bits, -1
    rows = [_row(part, place, values) for part in view.parts]
    bits = 0
    for row in rows:
        bits |= row.bits
    return view.key, rows, bits | _OK, event_ms


def _row(part: Part, place: FeastPlace, values: Mapping[bytes, bytes | None]) -> Row:
    return part.foreign_row([values.get(place.fields[field]) for field in part.fields])
