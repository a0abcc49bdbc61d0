"""Views with several keys, keys of every type, and Feast's views, through a whole gateway."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import gateway_kit
import onnx_models
import pytest
import redis
import yaml

from feature_cache.feast import FeastKeys, field_name, timestamp_field

VISIT: dict[str, Any] = {
    "view": "visit",
    "entity": {"shop": "int32", "name": "string"},
    "fields": {"spent": {"type": "float32", "default": -1}},
}
SHOP: dict[str, Any] = {
    "view": "shop",
    "entity": {"shop": "int32"},
    "fields": {"size": {"type": "int32", "default": -2}},
}
DRIVER: dict[str, Any] = {
    "view": "driver",
    "entity": {"shop": "int32"},
    "fields": {"conv": {"type": "float32", "default": -3}},
    "source": "feast",
    "feast": {"project": "demo", "feature_view": "Drivers"},
    "keep_for": "36500d",
    "fresh_for": "36500d",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway_kit.Running]:
    """A model of three features under two keys, filled by command and by Feast's own bytes.

    Without the near cache: what is `CACHED` would depend on which test ran before.
    """
    folder = tmp_path_factory.mktemp("keys") / "conf"
    gateway_kit.write_gateway(folder, features={"timeout": "2s", "near_cache": "0B"})
    gateway_kit.write_model(
        folder, "m", {"v1": onnx_models.doubler(3)}, {"assignment": {"key": "shop"}},
        entity={"shop": "INT32", "name": "BYTES"},
        inputs={"X": {"features": ["visit.*", "shop.*", "driver.*"]}},
    )  # fmt: skip
    (folder / "features").mkdir()
    for view in (VISIT, SHOP, DRIVER):
        (folder / "features" / f"{view['view']}.yaml").write_text(yaml.safe_dump(view))
    (folder / "visits.csv").write_text('shop,name,spent\n7,zoë,1.5\n-7,"a,b",2.5\n7,"a,b",3.5\n')
    (folder / "shops.csv").write_text("shop,size\n7,70\n-7,-70\n")
    with gateway_kit.running(folder) as running:
        for file, view in (("visits", "visit"), ("shops", "shop")):
            subprocess.run(
                [
                    *(gateway_kit.SLUICE, "features", "load", folder / f"{file}.csv"),
                    *("--view", view, "--config", folder, "--data", running.data),
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
