"""`sluice up --engine ray`: what it refuses before and after Ray's start, and what it leaves."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import psutil
import pytest
from ray_kit import eventually, left_behind, replicas

DEMO = Path(__file__).parents[2] / "configs" / "demo"

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


def configure(directory: Path, **engine: Any) -> None:
    """One small model, on Ray."""
    gateway_kit.write_gateway(directory, engine={"kind": "ray", **engine})
    gateway_kit.write_model(directory, "m", {"v1": onnx_models.doubler()}, {})


def refused(directory: Path, *words: str) -> str:
    """What `sluice up` says when it ends with 1."""
    ended = subprocess.run(
        [gateway_kit.SLUICE, "up", directory, *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert left_behind(directory, 0) == []
    return ended.stderr


def folders() -> set[str]:
    """Ray's temporary folders of gateways on this machine."""
    return {str(folder) for folder in Path("/tmp").glob("sluice-ray-*")}


def test_a_dead_address_is_named(tmp_path: Path) -> None:
    """Before anything is started in it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        configure(tmp_path / "conf", address=address)
        said = refused(tmp_path / "conf")

    assert f"no Ray answers at {address} (engine.address): Connection refused" in said
    assert "ray start --head" in said


def test_a_port_of_another_program_is_named(tmp_path: Path) -> None:
    """Before Ray is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        configure(tmp_path / "conf")
        gateway_kit.write_gateway(
            tmp_path / "conf",
            engine={"kind": "ray"},
            listen={"http": f"127.0.0.1:{port}", "grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        )
        said = refused(tmp_path / "conf")

    assert f"127.0.0.1:{port}" in said
    assert "listen.http" in said


def test_more_cpus_than_there_are(tmp_path: Path) -> None:
    """After Ray's start, which says how many it has; Ray is ended again."""
    before = folders()
    configure(tmp_path / "conf", workers=3, worker_cpus=50)
    said = refused(tmp_path / "conf")

    assert f"3 workers of 50 CPUs need 150, and Ray has {os.cpu_count()}" in said
    assert "lower engine.workers or engine.worker_cpus" in said
    assert folders() <= before


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[gateway_kit.Running]:
    """The demo as it is shipped, but for its ports."""
    copy = tmp_path / "demo"
    shutil.copytree(DEMO, copy, ignore=shutil.ignore_patterns(".sluice", "*.py"))
    file = copy / "gateway.yaml"
    file.write_text(re.sub(r"127\.0\.0\.1:800\d", "127.0.0.1:0", file.read_text()))
    with gateway_kit.running(copy) as running:
        yield running


def test_the_demo_listens_on_loopback_shows_itself_and_leaves_nothing_when_killed(
    demo: gateway_kit.Running,
) -> None:
    """It is on Ray. One start for three looks at it, as each costs Ray's ten seconds."""
    gateway = demo
    status, answer = gateway.infer(
        "employment", [{"name": "person_id", "datatype": "INT64", "shape": [1], "data": [42]}]
    )
    assert (status, answer["outputs"][0]["data"]) == (200, [1])
    assert answer["parameters"]["feature_status"] == "OK"

    shown = subprocess.run(
        [gateway_kit.SLUICE, "status", "--data", gateway.data, "--json"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    processes = {one["name"]: one for one in json.loads(shown.stdout)["engine"]["processes"]}
    assert processes.keys() == {"store", "control", "worker-0"}
    assert processes["worker-0"]["pid"] == replicas(gateway)["worker-0"][0]
    assert processes["worker-0"]["replica"]

    family = [process.pid for process in psutil.Process(gateway.process.pid).children(True)]
    beyond = {
        (connection.laddr.ip, psutil.Process(connection.pid).name())
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
        and connection.pid in {*family, gateway.process.pid}
        and connection.laddr.ip not in {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    }
    assert beyond == set()
    (folder,) = {one for one in folders() if _open_in(one, family)}

    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait(60)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in family), "everything has ended")
    eventually(lambda: not Path(folder).exists(), "Ray's folder is gone")
    for address in (gateway.http, gateway.grpc, gateway.admin):
        host, _, port = address.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), 5).close()
    assert left_behind(gateway.data, gateway.process.pid) == []


def _open_in(folder: str, pids: list[int]) -> bool:
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                if str(link.readlink()).startswith(folder):
                    return True
            except OSError:
                continue
    return False
