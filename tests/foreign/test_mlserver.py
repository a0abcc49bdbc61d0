"""A version at MLServer, which is not ours, behind the gateway.

MLServer pins packages that conflict with ours, so it has an environment of its own:
`make install-foreign`, then `make test-foreign`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import gateway_kit
import onnx_models
import pytest
import yaml

from serving import lifeline

HERE = Path(__file__).parent
MLSERVER = HERE.parents[1] / ".venv-foreign" / "bin" / "mlserver"
START_SECONDS = 60.0

pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(not MLSERVER.exists(), reason="`make install-foreign` has not been run"),
]


def inputs(*numbers: float) -> list[dict[str, object]]:
    """One row."""
    return [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": list(numbers)}]


class MlServer:
    """A running one."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self.process = process
        self.url = url


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlServer]:
    """One that serves `double`, on ports of its own."""
    folder = tmp_path_factory.mktemp("mlserver") / "models"
    shutil.copytree(HERE / "mlserver", folder)
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
        http, grpc, metrics = (probe.getsockname()[1] for probe in (one, two, three))
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    with (folder.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid())),
                *(str(MLSERVER), "start", str(folder)),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
    url = f"http://127.0.0.1:{http}/v2/models/double"
    try:
        began = time.monotonic()
        while not _answers(f"{url}/ready"):
            assert time.monotonic() - began < START_SECONDS, (folder.parent / "log").read_text()
            time.sleep(0.1)
        yield MlServer(process, url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def gateway(
    mlserver: MlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateway_kit.Running]:
    """Production in the worker, the canary at MLServer."""
    folder = tmp_path_factory.mktemp("foreign") / "conf"
    gateway_kit.write_gateway(folder)
    gateway_kit.write_model(folder, "double", {"v1": onnx_models.doubler(3)}, {})
    file = folder / "models" / "double.yaml"
    document = yaml.safe_load(file.read_text())
    document["versions"]["there"] = {"url": mlserver.url}
    document["traffic"]["canary"] = {"version": "there", "weight": 50}
    file.write_text(yaml.safe_dump(document))
    with gateway_kit.running(folder) as running:
        yield running


def test_both_versions_give_the_same(gateway: gateway_kit.Running) -> None:
    """By the plan and by name; MLServer takes JSON only, which nobody notices."""
    seen = set()
    for _ in range(40):
        status, said = gateway.infer("double", inputs(1, 2, 3))
        assert (status, said["outputs"][0]["data"]) == (200, [2, 4, 6])
        seen.add(said["model_version"])

    assert seen == {"v1", "there"}
    status, said = gateway.infer("double", inputs(1.5, 0, 9), "/versions/there")
    assert (status, said["outputs"][0]["data"]) == (200, [3, 0, 18])
    assert said["parameters"]["model_role"] == "pinned"


def test_its_metadata_is_the_servers(gateway: gateway_kit.Running) -> None:
    """What it takes was asked of it when the configuration was applied."""
    status, said = gateway.ask(f"{gateway.http}/v2/models/double/versions/there")

    assert status == 200
    assert said["inputs"][0] == {"name": "X", "datatype": "FP32", "shape": [-1, 3]}


def test_what_it_refuses_is_refused(gateway: gateway_kit.Running) -> None:
    """Its own words reach the caller; production is not touched by it."""
    status, said = gateway.infer("double", inputs(-1, 2, 3), "/versions/there")

    assert status == 400
    assert "no negative numbers" in said["error"]
    assert gateway.infer("double", inputs(-1, 2, 3), "/versions/v1")[0] == 200


def test_a_server_that_is_gone_is_named(gateway: gateway_kit.Running, mlserver: MlServer) -> None:
    """Requests to it fail, clearly; applying a change that needs it says so and changes nothing."""
    mlserver.process.send_signal(signal.SIGKILL)
    mlserver.process.wait(30)

    status, said = gateway.infer("double", inputs(1, 2, 3), "/versions/there")
    assert status == 500
    assert "'there'" in said["error"]
    assert gateway.infer("double", inputs(1, 2, 3), "/versions/v1")[0] == 200

    file = gateway.folder / "conf" / "models" / "double.yaml"
    document = yaml.safe_load(file.read_text())
    document["versions"]["too"] = {"url": mlserver.url}
    file.write_text(yaml.safe_dump(document))
    status, said = gateway.apply(gateway.folder / "conf")
    assert status == 400
    assert "does not answer" in json.dumps(said)
