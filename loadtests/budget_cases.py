"""Makes what is sent when instructions are counted, beforehand and without valgrind."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import bench_workloads
import numpy as np
import orjson
import pyarrow.parquet as pq
from budget_load import WALL_SECONDS, Case, Load

from feature_cache.cache import FeatureCache
from feature_cache.memory import MemoryStore
from feature_cache.store import Write
from feature_cache.views import FeatureView
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import encode_snapshot
from serving.control.compile import compile_configuration

__all__ = ["build"]

_MESSAGES: Final = 16


def build(folder: Path) -> list[Load]:
    """Everything that is counted; files go to `folder`."""
    join = "join3" if "join3" in bench_workloads.PAYLOADS else "join"
    return [_load(name, folder / name) for name in ("1x30", join)]


def _load(payload: str, folder: Path) -> Load:
    folder.mkdir()
    workload = bench_workloads.build(payload, folder)
    config = bench_workloads.gateway_directory(workload, folder / "config")
    compiled = compile_configuration(config, folder / "data")
    snapshot = compiled.snapshot(revision=1, author="budget", at=WALL_SECONDS)
    path = f"/v2/models/{workload.model}/infer"
    http, grpc = workload.http[:_MESSAGES], workload.grpc[:_MESSAGES]
    plain = [_request(path, body) for body in http]
    if snapshot.views:
        cases = [Case(name="http_join", protocol="http", messages=plain)]
    else:
        cases = [
            Case(name="http_json", protocol="http", messages=plain),
            Case(
                name="http_binary",
                protocol="http",
                messages=[_binary(path, body) for body in http],
            ),
            Case(name="grpc", protocol="grpc", messages=list(grpc)),
        ]
    store = _Taken()
    if snapshot.views:
        asyncio.run(_write_features(store, snapshot, _keys(http)))
    return Load(
        name=payload,
        artifact=str(workload.artifact),
        config=str(config),
        snapshot=encode_snapshot(snapshot),
        cases=cases,
        floor=[_request(path, body) for body in list(workload.floor or http)[:_MESSAGES]],
        expected=workload.expected[:_MESSAGES],
        rows=store.rows,
        field_lists=store.field_lists,
    )


def _request(path: str, body: bytes, *headers: str) -> bytes:
    """A request as `bench_load.py` sends it."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1:8000", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _binary(path: str, body: bytes) -> bytes:
    """The same with its FP32 tensor as bytes behind the JSON, and the answer asked for so too."""
    [tensor] = orjson.loads(body)["inputs"]
    data = np.array(tensor.pop("data"), np.float32).tobytes()
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return _request(path, head + data, f"Inference-Header-Content-Length: {len(head)}")


def _keys(bodies: Sequence[bytes]) -> list[int]:
    """Who is asked for."""
    return [orjson.loads(body)["inputs"][0]["data"][0] for body in bodies]


class _Taken(MemoryStore):
    """Keeps what is written to it as a server would have it."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.rows: dict[bytes, bytes] = {}
        self.field_lists: dict[bytes, dict[bytes, bytes]] = {}

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Take rows."""
        self.rows |= {one.key: one.blob for one in writes}
        return [True] * len(writes)

    async def put_schema(self, key: bytes, schema_id: bytes, described: bytes) -> None:
        """Take a field list; hashes have it under the hexadecimal digits of its id."""
        self.field_lists.setdefault(key, {})[schema_id.hex().encode()] = described


async def _write_features(store: _Taken, snapshot: Snapshot, people: list[int]) -> None:
    """Write these people's rows of every view, as they were a minute ago."""
    views: dict[str, FeatureView] = dict(snapshot.views)
    cache = FeatureCache(store, views, wall=lambda: WALL_SECONDS)
    table: Any = pq.read_table(bench_workloads.DEMO / "data" / "people.parquet")
    places = {one: at for at, one in enumerate(table["person_id"].to_pylist())}
    table = table.take([places[one] for one in people])
    minute_ago = np.full(len(people), round((WALL_SECONDS - 60) * 1e3))
    for name, view in views.items():
        columns = {field: table[field].to_pylist() for field in view.fields}
        await cache.write(name, {"person_id": people}, columns, minute_ago)
    await cache.close()
