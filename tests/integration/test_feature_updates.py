"""Rows that are pushed or streamed into a running gateway's store."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import gateway_kit
import onnx_models
import pytest
import redis
import yaml
from ray_kit import ON_RAY
from waiting_kit import until

from feature_cache.keys import KeySpace

STREAM = "person-updates"
SPACE = KeySpace("default", "profile", {"person_id": "int64"})
VIEW = {
    "view": "profile",
    "entity": {"person_id": "int64"},
    "fields": {
        "age": {"type": "float32", "default": 40},
        "city": {"type": "string", "default": "nowhere"},
    },
    "stream": STREAM,
}
FOREIGN = {
    "view": "theirs",
    "entity": {"person_id": "int64"},
    "fields": {"n": {"type": "int64", "default": 0}},
    "source": "feast",
    "feast": {"project": "p"},
}


@pytest.fixture(scope="module", params=["local", ON_RAY])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateway_kit.Running]:
    """A gateway with a view that has a stream; with each engine."""
    folder = tmp_path_factory.mktemp("updates") / "conf"
    gateway_kit.write_gateway(folder, engine={"kind": request.param, "worker_cpus": 0.5})
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.doubler()}, {})
    (folder / "features").mkdir()
    for view in (VIEW, FOREIGN):
        (folder / "features" / f"{view['view']}.yaml").write_text(yaml.safe_dump(view))
    with gateway_kit.running(folder) as running:
        yield running


@pytest.fixture
def store(gateway: gateway_kit.Running) -> Iterator[redis.Redis]:
    """The gateway's own store."""
    with redis.Redis(unix_socket_path=str(gateway.data / "store" / "store.sock")) as client:
        yield client


def push(gateway: gateway_kit.Running, rows: Any, view: str = "profile") -> tuple[int, Any]:
    """POST as an admin."""
    url = f"{gateway.admin}/api/v1/features/{view}"
    return gateway.ask(url, {"rows": rows}, token=gateway.token)


def row(person: int, **more: Any) -> dict[str, Any]:
    """A row that fits."""
    return {"person_id": person, "age": 30 + person, "city": None, **more}


def metric(gateway: gateway_kit.Running, name: str, **labels: str) -> float:
    """One sample of `/metrics`, 0 if it is not there."""
    text = gateway.ask(f"{gateway.admin}/metrics")[1]
    words = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    for line in text.splitlines():
        if line.startswith(f"{name}{{{words}}} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_a_push_is_written_newest_wins(gateway: gateway_kit.Running, store: redis.Redis) -> None:
    """The answer tells written from not newer and expired."""
    now = int(time.time() * 1e3)
    rows = [row(1, event_time=now), row(2), row(1, event_time=now - 5), row(3, event_time=1000)]

    assert push(gateway, rows) == (200, {"written": 2, "not_newer": 1, "expired": 1})
    assert store.exists(SPACE.key([1]), SPACE.key([2]), SPACE.key([3])) == 2
    assert push(gateway, []) == (200, {"written": 0, "not_newer": 0, "expired": 0})


def test_a_push_with_one_unfit_row_writes_nothing(
    gateway: gateway_kit.Running, store: redis.Redis
) -> None:
    """And names every row that does not fit."""
    status, answer = push(gateway, [row(11), row(12, age="x"), {"person_id": 13}, row(14)])

    assert status == 400
    assert answer["error"] == (
        "nothing was written, because of row 1: age is float32, not a string; row 2: no age, city"
    )
    assert not store.exists(SPACE.key([11]))


@pytest.mark.parametrize(
    ("view", "rows", "status", "message"),
    [
        ("profil", [], 404, "no view 'profil'; there is profile, theirs"),
        ("theirs", [], 400, "the view 'theirs' is written by Feast"),
        ("profile", {}, 400, "Expected `array`, got `object` - at `$.rows`"),
        ("profile", [1], 400, "Expected `object`, got `int` - at `$.rows[0]`"),
        ("profile", [{"n": "x" * (1 << 20)}], 400, "the body is longer than 1048576 bytes"),
    ],
)
def test_a_push_that_cannot_be_is_explained(
    gateway: gateway_kit.Running, view: str, rows: Any, status: int, message: str
) -> None:
    """By name, and the next one works."""
    answered, body = push(gateway, rows, view)

    assert message in body["error"]
    assert answered == (413 if "longer" in message else status)


def test_a_push_needs_the_admin_token(gateway: gateway_kit.Running) -> None:
    """Values decide predictions; whoever writes them is somebody we know."""
    url = f"{gateway.admin}/api/v1/features/profile"

    assert gateway.ask(url, {"rows": [row(1)]})[0] == 401


def test_a_streams_entries_are_written_and_acknowledged(
    gateway: gateway_kit.Running, store: redis.Redis
) -> None:
    """Also those with a time of their own; unfit ones are put aside with the reason."""
    ids = [store.xadd(STREAM, {"row": json.dumps(row(100 + at))}) for at in range(3)]
    for fields in (
        {"row": json.dumps(row(110, age="old"))},
        {"row": "{"},
        {"data": "x"},
        {"row": "[1]"},
        {"row": json.dumps(row(111, event_time=1))},
    ):
        store.xadd(STREAM, fields)
    store.xadd(STREAM, {"row": json.dumps(row(112))})

    until(lambda: store.exists(SPACE.key([112])))
    until(lambda: store.xpending(STREAM, "sluice")["pending"] == 0)

    assert store.exists(*(SPACE.key([100 + at]) for at in range(3))) == 3
    assert not store.exists(SPACE.key([110]), SPACE.key([111]))
    blob = store.get(SPACE.key([100]))
    assert isinstance(blob, bytes)
    assert int.from_bytes(blob[8:16], "big") == int(ids[0].partition(b"-")[0])
    rejected = [fields for _, fields in store.xrange(f"{STREAM}.rejected")]
    # Rows that came together are judged together, so the order may be another.
    assert sorted(fields[b"reason"].decode().partition(":")[0] for fields in rejected) == [
        "`row` is no JSON",
        "a row is an object of names and values",
        "age is float32, not a string",
        "the entry has no field `row`",
    ]
    [unfit] = [fields for fields in rejected if fields[b"reason"].startswith(b"age")]
    assert json.loads(unfit[b"row"])["person_id"] == 110
    wanted = {"view": "profile", "source": "stream"}
    assert metric(gateway, "sluice_feature_writes_total", outcome="rejected", **wanted) == 4
    assert metric(gateway, "sluice_feature_writes_total", outcome="expired", **wanted) == 1
    until(lambda: metric(gateway, "sluice_feature_stream_lag", view="profile") == 0)


def test_control_that_is_killed_loses_no_entry(
    gateway: gateway_kit.Running, store: redis.Redis
) -> None:
    """What was handed out and not acknowledged is handed out again."""
    until(lambda: store.exists(STREAM))
    people = range(1000, 9000)
    [control] = gateway.pids("control")
    with store.pipeline(transaction=False) as pipeline:
        for person in people:
            pipeline.xadd(STREAM, {"row": json.dumps(row(person))})
        pipeline.execute()
    os.kill(control, signal.SIGKILL)
    for person in (9000, 9001):
        store.xadd(STREAM, {"row": json.dumps(row(person))})

    until(lambda: store.exists(SPACE.key([9001])))
    until(lambda: store.xpending(STREAM, "sluice")["pending"] == 0)

    assert store.exists(*(SPACE.key([person]) for person in (*people, 9000))) == len(people) + 1


def test_a_store_that_forgets_everything_is_read_from_the_start(
    gateway: gateway_kit.Running, store: redis.Redis
) -> None:
    """The group is made anew; entries that come then are written."""
    until(lambda: store.exists(STREAM))
    store.delete(STREAM)
    store.xadd(STREAM, {"row": json.dumps(row(7777))})

    until(lambda: store.exists(SPACE.key([7777])))

    assert push(gateway, [row(7778)])[0] == 200
