"""Run with Feast's own environment: write rows into a Redis online store, and say what they are.

python feast_writes.py FOLDER HOST:PORT ANSWER.json
"""

import json
import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)
from feast.value_type import ValueType

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SCALARS = {
    "f32": Float32, "f64": Float64, "i32": Int32, "i64": Int64, "flag": Bool, "text": String,
    "raw": Bytes, "seen": UnixTimestamp,
}  # fmt: skip
LISTS = {
    "f32s": Array(Float32), "f64s": Array(Float64), "i32s": Array(Int32), "i64s": Array(Int64),
    "flags": Array(Bool), "texts": Array(String),
}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {
        "f32": 0.25, "f64": 0.1, "i32": -7, "i64": -(1 << 62), "flag": True, "text": "héllo",
        "raw": b"\x00\xff", "seen": WHEN, "f32s": [1.0, -3.5], "f64s": [0.1, 2.0],
        "i32s": [1, -1], "i64s": [1 << 60, -5], "flags": [True, False], "texts": ["", "é"],
    },
    {
        "f32": math.nan, "f64": -1.5, "i32": 0, "i64": 0, "flag": False, "text": "",
        "raw": b"", "seen": datetime(1970, 1, 2, tzinfo=UTC), "f32s": [], "f64s": [],
        "i32s": [], "i64s": [], "flags": [], "texts": [],
    },
]  # fmt: skip
ENTITIES: dict[str, tuple[dict[str, ValueType], list[dict[str, Any]]]] = {
    "by_number": ({"driver_id": ValueType.INT64}, [{"driver_id": 1001}, {"driver_id": -2}]),
    "by_small": ({"shop": ValueType.INT32}, [{"shop": 7}, {"shop": -8}]),
    "by_name": ({"name": ValueType.STRING}, [{"name": "zoë"}, {"name": "a:b"}]),
    "by_both": (
        {"driver_id": ValueType.INT64, "name": ValueType.STRING},
        [{"driver_id": 5, "name": "x"}, {"driver_id": 6, "name": "y"}],
    ),
}


def main(folder: str, address: str, answer: str) -> None:
    """Define, write, read back, and write down what Feast itself reads."""
    store = FeatureStore(
        config=RepoConfig(
            project="demo",
            provider="local",
            registry=f"{folder}/registry.db",
            online_store={"type": "redis", "connection_string": address},
            entity_key_serialization_version=3,
        )
    )
    entities: dict[str, Entity] = {}
    views = []
    for name, (keys, _) in ENTITIES.items():
        for key, kind in keys.items():
            entities.setdefault(key, Entity(name=key, join_keys=[key], value_type=kind))
        source = FileSource(
            name=f"{name}_source",
            path=f"{folder}/{name}.parquet",
            timestamp_field="event_timestamp",
        )
        kinds = {ValueType.INT64: Int64, ValueType.INT32: Int32, ValueType.STRING: String}
        views.append(
            FeatureView(
                name=name,
                entities=[entities[key] for key in keys],
                ttl=timedelta(days=36500),
                schema=[
                    *(Field(name=key, dtype=kinds[kind]) for key, kind in keys.items()),
                    *(Field(name=n, dtype=kind) for n, kind in {**SCALARS, **LISTS}.items()),
                ],
                source=source,
            )
        )
    store.apply([*entities.values(), *views])
    said = {}
    for view in views:
        keys = ENTITIES[view.name][1]
        table = pd.DataFrame(
            [{**key, **row, "event_timestamp": WHEN} for key, row in zip(keys, ROWS, strict=True)]
        )
        small = {
            key: "int32" for key, kind in ENTITIES[view.name][0].items() if kind == ValueType.INT32
        }
        store.write_to_online_store(
            view.name, table.astype({**small, "i32": "int32", "f32": "float32"})
        )
        read = store.get_online_features(
            features=[f"{view.name}:{name}" for name in (*SCALARS, *LISTS)], entity_rows=keys
        ).to_dict()
        said[view.name] = {"keys": keys, "read": read}
    Path(answer).write_text(json.dumps(said, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return int(value.timestamp())
    return str(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
