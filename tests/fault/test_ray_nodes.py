"""A gateway on two Ray nodes whose head is lost, with an open-loop load running.

Control, Ray's head and the launcher are on one machine, the worker on another, each with data of
its own; see `two_nodes_kit`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import pytest
import yaml
from load_kit import load
from ray_kit import eventually
from two_nodes_kit import Nodes, Tree, answers, can_make_networks, free_port, two_nodes

BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
PATH = "/v2/models/m/infer"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not can_make_networks(), reason="a network namespace needs root"),
]

Say = Callable[[str, object], None]


class Gateway:
    """One gateway over two nodes, asked where its worker is."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.conf = nodes.folder / "conf"
        self.data, self.other_data = nodes.folder / "data-head", nodes.folder / "data-second"
        self.http = f"{nodes.there}:{free_port(nodes.here)}"
        self.admin = f"127.0.0.1:{free_port('127.0.0.1')}"
        port = self.http.rpartition(":")[2]
        gateway_kit.write_gateway(
            self.conf,
            listen={"http": f"0.0.0.0:{port}", "grpc": "0.0.0.0:0", "admin": self.admin},
            store=f"redis://{nodes.here}:{nodes.store_port}",
            engine={
                "kind": "ray",
                "workers": 1,
                "worker_cpus": 0.5,
                "address": f"{nodes.here}:{nodes.gcs_port}",
            },
        )
        versions = {"v1": onnx_models.doubler(3), "v2": onnx_models.squarer()}
        gateway_kit.write_model(self.conf, "m", versions, {})

    def up(self) -> Tree:
        """`sluice up` beside the head."""
        return self.nodes.start(
            *(str(gateway_kit.SLUICE), "up", str(self.conf), "--data", str(self.data)),
            "--insecure-bind",
            log="up",
        )

    @property
    def asked(self) -> gateway_kit.Running:
        """Something to ask it with."""
        said = {
            "http": f"http://{self.http}",
            "grpc": "",
            "admin": f"http://{self.admin}",
            "data": str(self.data),
            "admin_token_file": str(self.data / "admin.token"),
        }
        return gateway_kit.Running(None, said, self.nodes.folder)  # type: ignore[arg-type]

    def status(self) -> dict[str, Any]:
        """What control says; empty if it does not answer."""
        try:
            code, said = self.asked.ask(f"{self.admin}/api/v1/status", token=self.asked.token)
        except OSError:
            return {}
        return dict(said) if code == 200 else {}


def test_the_head_is_lost_and_comes_back(tmp_path: Path, record_property: Say) -> None:
    """The other machine answers meanwhile; then control goes on from what was applied last."""
    with two_nodes(tmp_path) as nodes:
        gateway = Gateway(nodes)
        head = nodes.head()
        eventually(lambda: answers(nodes.here, nodes.gcs_port), "Ray's head")
        nodes.second(gateway.other_data)
        launcher = gateway.up()
        host, _, port = gateway.http.rpartition(":")
        try:
            eventually(lambda: answers(host, int(port)), "the worker serves", 120)
        except AssertionError as error:
            raise AssertionError(_words(nodes)) from error
        eventually(lambda: len(gateway.status().get("workers", [])) == 1, "a worker reports")
        [worker] = gateway.status()["workers"]
        assert (worker["worker"], worker["node"]) == ("worker-0", "second")
        assert not (gateway.data / "run" / "worker-0.sock").exists()
        assert (gateway.other_data / "run" / "worker-0.sock").exists()

        file = gateway.conf / "models" / "m.yaml"
        document = yaml.safe_load(file.read_text()) | {"traffic": {"production": "v2"}}
        file.write_text(yaml.safe_dump(document))
        code, said = gateway.asked.apply(gateway.conf)
        assert code == 200, said
        revision = said["revision"]

        with load(gateway.http, PATH, BODY) as running:
            time.sleep(1)
            launcher.look()
            head.look()
            killed = time.monotonic()
            launcher.kill()
            head.kill()
            eventually(lambda: gateway.status() == {}, "control is gone")
            time.sleep(5)
            nodes.head()
            back = eventually(lambda: gateway.status() != {}, "control is back", 150)
            away = time.monotonic() - killed
            eventually(
                lambda: (
                    [one["revision"] for one in gateway.status().get("workers", [])] == [revision]
                ),
                "the worker reports to it",
            )
            time.sleep(1)

        record_property(
            "seen", f"{running.summary()}; control away for {away:.0f} s, {back:.0f} of start"
        )
        assert running.failures == []
        assert gateway.status()["revision"] == revision
        status, answer = gateway.asked.infer("m", BODY["inputs"])  # type: ignore[arg-type]
        assert (status, answer["outputs"][0]["data"]) == (200, [1, 4, 9])
        metrics = gateway.asked.ask(f"{gateway.admin}/metrics", token=gateway.asked.token)[1]
        assert 'sluice_inference_rows_total{model="m",version="v2"}' in metrics


def _words(nodes: Nodes) -> str:
    logs = {log.name: log.read_text()[-1500:] for log in nodes.folder.glob("*.log")}
    return json.dumps(logs, indent=1)
