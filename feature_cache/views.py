"""Feature views: which fields belong to which entity, how old they may be, and what then.

The words are Feast's, except that its one `ttl` is two things here: `fresh_for`
(older is stale) and `keep_for` (older is gone).
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from feature_cache.keys import EntityType

__all__ = ["FIELD_TYPES", "FeastSource", "FeatureView", "Field"]

FieldType = Literal["float32", "float64", "int8", "int16", "int32", "int64", "bool", "string"]
FIELD_TYPES: tuple[str, ...] = FieldType.__args__  # type: ignore[attr-defined]


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feature of a view."""

    type: FieldType
    """How the value is stored and checked."""

    default: float | int | bool | str | None = None
    """What the model sees when the value is missing and the view says `on_missing: default`."""


class FeastSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a Feast online store in Redis keeps a view (key serialization version 3)."""

    project: Annotated[str, Meta(min_length=1)]
    """Feast's project, `project` in `feature_store.yaml`."""

    feature_view: str | None = None
    """Feast's name of the view, if it is not this one's."""


class FeatureView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that are written and read together under one entity key."""

    schema_version: Annotated[int, Meta(ge=1, le=1)] = 1
    """Version of this file's format."""

    view: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Name of the view, as models refer to it (`person_profile.*`)."""

    entity: dict[str, EntityType]
    """Name and type of each key the view is looked up by, one or several."""

    fields: dict[str, Field]
    """The features. Their order means nothing."""

    fresh_for: str = "7d"
    """Older values are stale; `on_stale` says what happens then."""

    keep_for: str = "90d"
    """Older values are gone, as if never written."""

    on_stale: Literal["serve", "default", "reject"] = "serve"
    """What a stale value costs: nothing but a mark, its default, or the request."""

    on_missing: Literal["default", "nan", "reject"] = "default"
    """What a missing value becomes: its default, NaN, or a refused request."""

    required: bool = False
    """Whether a request is refused when the store cannot be asked at all."""

    source: Literal["store", "feast"] = "store"
    """Who writes the values: `sluice features`, pushes and streams; or Feast, whose Redis online
    store is then read in place and never written."""

    feast: FeastSource | None = None
    """With `source: feast`, what the view is called there."""

    seed: str | None = None
    """Parquet or CSV file, relative to this one. `sluice up` loads it if the view has never been
    written, as if every row were true at that moment. For demos and tests."""

    stream: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    """Redis Stream on the features' store whose entries update the view; each has one field, `row`,
    with the JSON object that `POST /api/v1/features/VIEW` takes. What does not fit goes to the
    stream of this name with `.rejected` behind it."""
