"""Locust against the demo, as CI runs it: headless, and the verdict is the exit code.

In a process of its own: Locust replaces sockets and threads of the whole process.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo"
USERS = ("--users", "8", "--spawn-rate", "8", "--run-time", "1s")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The demo on free ports, once for this file."""
    sys.path.insert(0, str(ROOT / "loadtests"))
    starter = importlib.import_module("bench_gateway")
    sys.path.remove(str(ROOT / "loadtests"))
    folder = tmp_path_factory.mktemp("demo")
    body = (DEMO / "example-request.json").read_bytes()
    directory = starter.demo_directory(folder / "demo")
    with starter.running(directory, folder / "data", model="employment", body=body) as running:
        yield running


def scenario(folder: Path, **slo: Any) -> Path:
    """People by Zipf in requests of one and of eight, and what must hold."""
    entity = {"person_id": {"keys": 1000, "zipf": 1.1}}
    document = {
        "schema_version": 1,
        "name": "locust",
        "deadline": "5s",
        "requests": [{"model": "employment", "entity": entity, "rows": [1, 8]}],
        "phases": [{"name": "steady", "for": "1s", "rate": 80}],
        "slos": [slo],
    }
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def locust(*arguments: str, folder: Path) -> tuple[int, str]:
    """Run it; the exit code, and all that it said."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]
    # In a folder of its own: a locust.conf of whoever runs the tests is none of ours.
    done = subprocess.run(
        [*command, "--headless", "--only-summary", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def test_an_slo_that_does_not_hold_is_exit_1_with_reports_over_both_protocols(
    gateway: Any, tmp_path: Path
) -> None:
    """Though every request is answered over HTTP and gRPC, and the other SLOs hold."""
    path = scenario(tmp_path, throughput=1_000_000, error_rate=0, versions={"v1": {"at_least": 1}})
    reports = [
        part
        for kind in ("json", "junit", "html")
        for part in (f"--verdict-{kind}", str(tmp_path / kind))
    ]
    code, said = locust(
        "--host", f"http://{gateway.http}", "--grpc-host", gateway.grpc, *USERS,
        "--scenario", str(path), *reports, folder=tmp_path,
    )  # fmt: skip

    assert code == 1, said
    assert "MISSED  whole run: throughput" in said
    found = json.loads((tmp_path / "json").read_text())
    figures = found["whole"]["figures"]
    assert set(figures["statuses"]) == {"200", "OK"}, said
    assert figures["feature_status"]["OK"] > 0
    slos = {check["name"]: check["ok"] for check in found["slos"]}
    assert slos["whole run: error rate"]
    assert slos["whole run: version v1"]
    assert (tmp_path / "html").read_text().startswith("<!doctype html>")
    assert ET.parse(tmp_path / "junit").getroot().tag == "testsuites"  # noqa: S314 - of ours


def test_users_go_by_what_the_target_says_of_its_models(gateway: Any, tmp_path: Path) -> None:
    """Without a scenario: every ready model, its entity key, batches it takes; tags choose."""
    code, said = locust(
        "--host", f"http://{gateway.http}", *USERS, "--tags", "binary",
        "--verdict-json", str(tmp_path / "json"), folder=tmp_path,
    )  # fmt: skip

    found = json.loads((tmp_path / "json").read_text())
    assert [kind["name"] for kind in found["kinds"]] == ["employment"], said
    assert set(found["whole"]["figures"]["statuses"]) == {"200"}
    # A machine that is busy with other tests may hold the users up, and then they say so.
    assert code == (0 if found["outcome"] == "met" else 1)


def test_a_target_that_refuses_connections_is_exit_3(tmp_path: Path) -> None:
    """Before a single user starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, said = locust("--host", f"http://127.0.0.1:{port}", *USERS, folder=tmp_path)

    assert code == 3
    assert "nobody answers at" in said


def test_a_scenario_with_a_mistake_is_exit_2(tmp_path: Path) -> None:
    """It says where, and what was meant."""
    path = scenario(tmp_path, eror_rate=0)
    code, said = locust(
        "--host", "http://127.0.0.1:1", *USERS, "--scenario", str(path), folder=tmp_path
    )

    assert code == 2
    assert "eror_rate" in said
    assert "error_rate" in said
