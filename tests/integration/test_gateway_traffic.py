"""The whole gateway under changing traffic plans, over real sockets."""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import pytest

X = [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [21]}]
TWO = {"v1": onnx_models.doubler(), "v2": onnx_models.slow(10)}
ENTITY = {"entity": {"user": "INT64"}}


def with_key(key: int) -> list[dict[str, Any]]:
    """The same row under an assignment key."""
    return [*X, {"name": "user", "datatype": "INT64", "shape": [1], "data": [key]}]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One model: v1 doubles, v2 answers X unchanged."""
    folder = tmp_path / "gateway"
    gateway_kit.write_gateway(folder, engine={"kind": "local", "workers": 2})
    gateway_kit.write_model(folder, "m", TWO, {}, **ENTITY)
    return folder


@pytest.fixture
def gateway(directory: Path) -> Iterator[gateway_kit.Running]:
    """It, running on two workers."""
    with gateway_kit.running(directory) as running:
        yield running


class Load(threading.Thread):
    """One keep-alive connection that asks until told to stop, and keeps what it got."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self.stop = threading.Event()
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        """Ask and count."""
        connection = http.client.HTTPConnection(self._address, timeout=30)
        body = json.dumps({"inputs": X})
        while not self.stop.is_set():
            try:
                connection.request("POST", "/v2/models/m/infer", body)
                answer = connection.getresponse()
                text = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(repr(error))
                continue
            if answer.status == 200:
                self.versions[text["model_version"]] += 1
            else:
                self.failures.append(f"{answer.status} {text}")
        connection.close()


def test_replacing_the_table_drops_no_request(
    gateway: gateway_kit.Running, directory: Path
) -> None:
    """Production moves back and forth under load; every request is answered by v1 or v2."""
    threads = [Load(gateway.http) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in ("v2", "v1", "v2", "v1", "v2"):
            gateway_kit.write_model(directory, "m", TWO, {"production": version}, **ENTITY)
            status, answer = gateway.apply(directory)
            assert status == 200, answer
            assert all(worker["applied"] for worker in answer["workers"]), answer
    finally:
        for thread in threads:
            thread.stop.set()
        for thread in threads:
            thread.join(30)

    assert [failure for thread in threads for failure in thread.failures] == []
    assert all(thread.versions["v1"] and thread.versions["v2"] for thread in threads)
    assert gateway.infer("m", X)[1]["model_version"] == "v2"


def test_a_refused_configuration_changes_nothing(
    gateway: gateway_kit.Running, directory: Path
) -> None:
    """A misspelt key, a corrupt file, a wrong digest: named, and v1 goes on answering."""
    before = gateway.ask(f"{gateway.admin}/api/v1/status")[1]["revision"]
    mistakes: list[tuple[dict[str, bytes], dict[str, Any], str]] = [
        (TWO, {"productoin": "v1"}, "productoin"),
        ({"v1": TWO["v1"], "v3": b"not a model"}, {}, "v3"),
        ({"v1": TWO["v1"], "v3": onnx_models.external("elsewhere.bin")}, {}, "external data"),
    ]
    for versions, traffic, words in mistakes:
        gateway_kit.write_model(directory, "m", versions, traffic, **ENTITY)
        status, answer = gateway.apply(directory)
        assert status == 400
        assert words in json.dumps(answer)

    gateway_kit.write_model(directory, "m", TWO, {}, **ENTITY)
    (directory / "artifacts" / "m-v2.onnx").write_bytes(TWO["v1"])
    status, answer = gateway.apply(directory)
    assert status == 400
    assert "sha256" in json.dumps(answer)

    assert gateway.infer("m", X)[1]["outputs"][0]["data"] == [42.0]
    assert gateway.ask(f"{gateway.admin}/api/v1/status")[1]["revision"] == before


def test_keys_stick_over_workers_and_a_rising_weight_moves_none_back(
    gateway: gateway_kit.Running, directory: Path
) -> None:
    """Any worker gives a key the same version; from 20 to 60 percent keys only join the canary."""
    taken: list[set[int]] = []
    for weight in (20, 60):
        plan = {"canary": {"version": "v2", "weight": weight}, "assignment": {"key": "user"}}
        gateway_kit.write_model(directory, "m", TWO, plan, **ENTITY)
        assert gateway.apply(directory)[0] == 200
        rounds = [
            {
                key
                for key in range(60)
                if gateway.infer("m", with_key(key))[1]["parameters"]["model_role"] == "canary"
            }
            for _ in range(2)
        ]
        assert rounds[0] == rounds[1]
        taken.append(rounds[0])

    assert taken[0] < taken[1]


def test_models_are_loaded_and_unloaded_on_the_admin_port_only(
    gateway: gateway_kit.Running,
) -> None:
    """On the data port the verb does not exist; on the admin port it needs the token."""
    path = "/v2/repository/models/m"
    assert gateway.ask(f"{gateway.http}{path}/unload", {})[0] == 404
    assert gateway.ask(f"{gateway.admin}{path}/unload", {})[0] == 401

    assert gateway.ask(f"{gateway.admin}{path}/unload", {}, token=gateway.token)[0] == 200
    status, answer = gateway.infer("m", X)
    assert status == 503
    assert "unloaded" in answer["error"]
    index = gateway.ask(f"{gateway.http}/v2/repository/index", {})[1]
    assert {entry["state"] for entry in index} == {"UNAVAILABLE"}

    assert gateway.ask(f"{gateway.admin}{path}/load", {}, token=gateway.token)[0] == 200
    assert gateway.infer("m", X)[0] == 200


def test_shadow_copies_never_fail_or_wait_for_the_caller(
    gateway: gateway_kit.Running, directory: Path
) -> None:
    """A shadow that always fails is counted, and every caller gets production's answer."""
    shadowed = {**TWO, "v3": onnx_models.slow(2**15)}
    gateway_kit.write_model(directory, "m", shadowed, {"shadow": [{"version": "v3"}]}, **ENTITY)
    assert gateway.apply(directory)[0] == 200

    for _ in range(30):
        status, answer = gateway.infer("m", X)
        assert (status, answer["model_version"]) == (200, "v1")

    def mirrored() -> float:
        metrics = gateway.ask(f"{gateway.admin}/metrics")[1]
        return sum(
            float(line.split()[-1])
            for line in metrics.splitlines()
            if line.startswith("sluice_mirrored_total{")
        )

    for _ in range(200):
        if mirrored() == 30:
            break
        threading.Event().wait(0.1)
    assert mirrored() == 30, "every copy is answered, failed or dropped, and counted"


def test_statistics_add_up_over_workers(gateway: gateway_kit.Running) -> None:
    """Whichever worker is asked, the sum counts every row; another's may be 10 ms late."""
    for _ in range(12):
        assert gateway.infer("m", X)[0] == 200

    def stats() -> dict[str, Any]:
        url = f"{gateway.http}/v2/models/m/versions/v1/stats"
        return dict(gateway.ask(url)[1]["model_stats"][0])

    for _ in range(200):
        if stats()["inference_count"] == 12:
            break
    assert stats()["inference_count"] == 12
    assert stats()["inference_stats"]["success"]["count"] == 12
