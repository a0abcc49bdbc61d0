"""Online features from Redis: usable without the gateway, see README.md.

cache = FeatureCache(store, views)          # over RemoteStore(Address.parse(url))
plan = cache.compile({"X": InputSpec((("profile", "age"),), np.dtype("<f4"))})
batch = await cache.fetch(plan, {"person_id": [42]})
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from feature_cache.address import Address
    from feature_cache.cache import Batch, FeatureCache
    from feature_cache.errors import InvalidAddress, ReadOnly, StoreRefused, Unavailable
    from feature_cache.ingest import objects
    from feature_cache.inspection import explain
    from feature_cache.keys import InvalidEntity
    from feature_cache.memory import MemoryStore
    from feature_cache.plan import InputSpec, Plan
    from feature_cache.reading import Reading
    from feature_cache.status import Status
    from feature_cache.store import RemoteStore
    from feature_cache.tables import TableFile
    from feature_cache.views import FeatureView, Field
    from feature_cache.writing import Receipt

__all__ = [
    "Address",
    "Batch",
    "FeatureCache",
    "FeatureView",
    "Field",
    "InputSpec",
    "InvalidAddress",
    "InvalidEntity",
    "MemoryStore",
    "Plan",
    "ReadOnly",
    "Reading",
    "Receipt",
    "RemoteStore",
    "Status",
    "StoreRefused",
    "TableFile",
    "Unavailable",
    "explain",
    "objects",
]

_HOME: Final = {
    "Address": "address",
    "Batch": "assembly",
    "FeatureCache": "cache",
    "FeatureView": "views",
    "Field": "views",
    "InputSpec": "plan",
    "InvalidAddress": "errors",
    "InvalidEntity": "keys",
    "MemoryStore": "memory",
    "Plan": "plan",
    "ReadOnly": "errors",
    "Reading": "reading",
    "Receipt": "writing",
    "RemoteStore": "store",
    "Status": "status",
    "StoreRefused": "errors",
    "TableFile": "tables",
    "Unavailable": "errors",
    "explain": "inspection",
    "objects": "ingest",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a reader of YAML needs no numpy."""
    if name not in _HOME:
        raise AttributeError(f"module 'feature_cache' has no attribute '{name}'")
    return getattr(importlib.import_module(f"feature_cache.{_HOME[name]}"), name)
