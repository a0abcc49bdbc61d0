"""One view's values of one entity, field by field, as a model would be given them."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from feature_cache.cache import FeatureCache
from feature_cache.errors import Unavailable
from feature_cache.keys import EntityValue
from feature_cache.plan import InputSpec
from feature_cache.status import Status

__all__ = ["Explained", "FieldValue", "explain"]


class FieldValue(msgspec.Struct, frozen=True):
    """What a model is given for a field. `stored` is false where a default stands in."""

    field: str
    value: Any
    stored: bool


class Explained(msgspec.Struct, frozen=True):
    """A view's row: `status` bits as in `Batch`, `age_ms` -1 where there is no row."""

    view: str
    status: int
    age_ms: int
    fields: tuple[FieldValue, ...]


async def explain(
    cache: FeatureCache, view: str, entity: Mapping[str, EntityValue], deadline: float
) -> Explained:
    """Read one row.

    Args:
        cache: over the store.
        view: by name.
        entity: every key of the view, by name.
        deadline: loop seconds.

    Raises:
        InvalidEntity: a key is missing or cannot be one.
        Unavailable: the store did not answer in time.
    """
    specs = {
        name: InputSpec(((view, name),), _DTYPES[field.type])
        for name, field in cache.views[view].fields.items()
    }
    await cache.learn([view], deadline)
    whole = cache.compile(specs)
    reading = await cache.read(whole, {name: [one] for name, one in entity.items()}, {}, deadline)
    together = cache.assemble(whole, reading, {})
    status = together.bits[0][0]
    if status & Status.TIMEOUT:
        raise Unavailable("the store did not answer in time")
    fields = []
    for name, spec in specs.items():
        # One reading serves any plan over the view, so a field can be judged by itself.
        alone = cache.assemble(cache.compile({name: spec}), reading, {})
        stored = not alone.bits[0][0] & _ABSENT
        fields.append(FieldValue(name, _plain(alone.values[name][0, 0]), stored))
    return Explained(view, status, together.ages[0][0], tuple(fields))


_ABSENT: Final = Status.NOT_FOUND | Status.NULLS | Status.DEFAULTED | Status.SCHEMA
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int8": np.dtype("<i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "bool": np.dtype("?"),
    "string": np.dtype(object),
}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.item()
