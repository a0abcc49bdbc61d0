"""Makes what is sent when instructions are counted, beforehand and without valgrind."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import bench_workloads
import msgspec
import numpy as np
import orjson
import pyarrow.parquet as pq
import yaml
from bench_workloads import ROLLOUT, Workload
from budget_load import WALL_SECONDS, Case, Load

from feature_cache.cache import FeatureCache
from feature_cache.memory import MemoryStore
from feature_cache.store import Write
from feature_cache.views import FeatureView
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.control.publishing.compile import compile_configuration

__all__ = ["build"]

_MESSAGES: Final = 16

_ROLLOUT_MODEL: Final[dict[str, Any]] = {
    "entity": {"id": "INT64"},
    "traffic": {"production": "v1", "assignment": {"key": "id"}},
    "monitoring": {"prediction": {"score": "probabilities[1]"}},
    "rollout": {
        "canary": "v2",
        "aa_test": True,  # the same file twice, so that one floor serves for both
        "steps": [{"weight": 5}, {"weight": 100}],
        "guardrails": {
            "rules": [
                {"name": "errors", "metric": "error_rate", "tolerance": 1.5},
                {"name": "slow", "metric": "latency", "tolerance": 1.5},
                {"name": "scores", "metric": "prediction_shift", "tolerance": 1.5},
            ]
        },
    },
}


def build(folder: Path) -> list[Load]:
    """Everything that is counted; files go to `folder`."""
    return [_plain(folder / "plain"), _rollout(folder / "rollout"), _join(folder / "join")]


def _plain(folder: Path) -> Load:
    """One tensor, in three protocols."""
    load, workload = _load("1x30", folder)
    bodies = workload.http[:_MESSAGES]
    path = f"/v2/models/{workload.model}/infer"
    load.cases = [
        Case(name="http_json", protocol="http", messages=[_request(path, one) for one in bodies]),
        Case(name="http_binary", protocol="http", messages=[_binary(path, one) for one in bodies]),
        Case(name="grpc", protocol="grpc", messages=workload.grpc[:_MESSAGES]),
    ]
    return load


def _rollout(folder: Path) -> Load:
    """The same with a key, while a rollout counts evidence and everything is logged."""
    load, workload = _load("1x30", folder, _ROLLOUT_MODEL)
    snapshot = msgspec.structs.replace(decode_snapshot(load.snapshot), rollouts={"bench": ROLLOUT})
    load.name, load.snapshot, load.logged = "1x30, rollout", encode_snapshot(snapshot), True
    path = f"/v2/models/{workload.model}/infer"
    messages = [
        _request(path, _keyed(body, 1_000 + number))
        for number, body in enumerate(workload.http[:_MESSAGES])
    ]
    load.cases = [Case(name="http_rollout", protocol="http", messages=messages)]
    return load


def _join(folder: Path) -> Load:
    """The key alone; features come from the store, of every view in one command."""
    load, workload = _load("join3", folder)
    bodies, store = workload.http[:_MESSAGES], _Taken()
    people = [orjson.loads(body)["inputs"][0]["data"][0] for body in bodies]
    asyncio.run(_write_features(store, decode_snapshot(load.snapshot), people))
    load.rows, load.field_lists = store.rows, store.field_lists
    path = f"/v2/models/{workload.model}/infer"
    load.cases = [
        Case(name="http_join", protocol="http", messages=[_request(path, one) for one in bodies])
    ]
    return load


def _load(payload: str, folder: Path, more: dict[str, Any] | None = None) -> tuple[Load, Workload]:
    """A payload's model, compiled as control does; `more` goes into its YAML. No cases yet."""
    folder.mkdir()
    workload = bench_workloads.build(payload, folder)
    config = bench_workloads.gateway_directory(workload, folder / "config")
    if more is not None:
        file = config / "models" / "bench.yaml"
        model = yaml.safe_load(file.read_text())
        model["versions"]["v2"] = model["versions"]["v1"]
        file.write_text(yaml.safe_dump(model | more))
    compiled = compile_configuration(config, folder / "data")
    snapshot = compiled.snapshot(revision=1, author="budget", at=WALL_SECONDS)
    path = f"/v2/models/{workload.model}/infer"
    load = Load(
        name=payload,
        artifact=str(workload.artifact),
        config=str(config),
        snapshot=encode_snapshot(snapshot),
        cases=[],
        floor=[_request(path, body) for body in list(workload.floor or workload.http)[:_MESSAGES]],
        expected=workload.expected[:_MESSAGES],
        rows={},
        field_lists={},
    )
    return load, workload


def _keyed(body: bytes, key: int) -> bytes:
    """The body with the key that a rollout draws by."""
    document = orjson.loads(body)
    document["inputs"].append({"name": "id", "datatype": "INT64", "shape": [1], "data": [key]})
    return orjson.dumps(document)


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
