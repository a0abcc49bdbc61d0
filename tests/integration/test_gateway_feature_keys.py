"""Views with several keys, keys of every type, and Feast's views, through a whole gateway."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import feature_models
import gateway_kit
import pytest
import ray_kit
import redis

from feature_cache.feast import FeastKeys, field_name, timestamp_field


@pytest.fixture(scope="module", params=["local", ray_kit.ON_RAY])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateway_kit.Running]:
    """That model, its views filled by command and by Feast's own bytes; with each engine."""
    with contextlib.ExitStack() as stack:
        if request.param == "ray":
            running = ray_kit.shared_gateway(tmp_path_factory)
        else:
            folder = tmp_path_factory.mktemp("keys") / "conf"
            gateway_kit.write_gateway(folder, features=feature_models.FEATURES)
            feature_models.configure(folder)
            running = stack.enter_context(gateway_kit.running(folder))
        conf = running.folder / "conf"
        for file, view in (("visits", "visit"), ("shops", "shop")):
            subprocess.run(
                [
                    *(gateway_kit.SLUICE, "features", "load", conf / f"{file}.csv"),
                    *("--view", view, "--config", conf, "--data", running.data),
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
        with redis.Redis(unix_socket_path=str(running.data / "store" / "store.sock")) as store:
            store.hset(
                FeastKeys("demo", {"shop": "int32"}).key([7]),
                mapping={
                    field_name("Drivers", "conv"): bytes.fromhex("350000803e"),
                    timestamp_field("Drivers"): bytes.fromhex("08a5ebdcca061088eadcc302"),
                },
            )
        yield running


def ask(gateway: gateway_kit.Running, shops: list[int], names: list[str]) -> tuple[int, Any]:
    """Send the two keys and nothing else."""
    rows = [len(shops)]
    return gateway.infer(
        "m",
        [
            {"name": "shop", "datatype": "INT32", "shape": rows, "data": shops},
            {"name": "name", "datatype": "BYTES", "shape": rows, "data": names},
        ],
    )


def test_each_view_is_looked_up_by_its_own_keys(gateway: gateway_kit.Running) -> None:
    """Ours by two keys and by one, Feast's by one; several rows in one request."""
    status, answer = ask(gateway, [7, -7, 7, 7], ["zoë", "a,b", "a,b", "nobody"])

    assert status == 200, answer
    doubled = answer["outputs"][0]["data"]
    assert doubled == [3, 140, 0.5, 5, -140, -6, 7, 140, 0.5, -2, 140, 0.5]
    assert answer["parameters"]["feature_status"] == (
        "visit=DEFAULTED|NOT_FOUND|OK,shop=OK,driver=DEFAULTED|NOT_FOUND|OK"
    )


def test_one_row_says_how_old_feasts_values_are(gateway: gateway_kit.Running) -> None:
    """By Feast's own event time."""
    for _ in range(2):
        status, answer = ask(gateway, [7], ["zoë"])
        assert status == 200, answer
        assert answer["outputs"][0]["data"] == [3, 140, 0.5]
        assert answer["parameters"]["feature_status"] == "OK"
        assert answer["parameters"]["feature_age_ms"] > 1e9


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"name": "shop", "datatype": "INT64", "shape": [1], "data": [7]}, "declared INT32"),
        ({"name": "shop", "datatype": "INT32", "shape": [1, 2], "data": [7, 8]}, "one value a row"),
        ({"name": "shop", "datatype": "INT32", "shape": [2], "data": [7, 8]}, "rows"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    gateway: gateway_kit.Running, tensor: dict[str, Any], words: str
) -> None:
    """With the datatype, or the shape."""
    name = {"name": "name", "datatype": "BYTES", "shape": [1], "data": ["x"]}
    status, answer = gateway.infer("m", [tensor, name])

    assert status == 400
    assert words in answer["error"]


def test_the_command_shows_all_three(gateway: gateway_kit.Running) -> None:
    """Feast's too."""
    done = subprocess.run(
        [
            *(gateway_kit.SLUICE, "features", "get", "--entity", "shop=7", "--entity", "name=zoë"),
            *("--config", gateway.folder / "conf", "--data", gateway.data, "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    shown = {view["view"]: view["features"] for view in json.loads(done.stdout)}
    assert shown == {
        "driver": {"conv": {"value": 0.25, "stored": True}},
        "shop": {"size": {"value": 70, "stored": True}},
        "visit": {"spent": {"value": 1.5, "stored": True}},
    }
