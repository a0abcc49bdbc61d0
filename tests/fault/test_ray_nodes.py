"""A gateway on two Ray nodes whose head is lost, with an open-loop load running.

Control, Ray's head and the launcher are on one machine, the worker on another, each with data of
its own; see `two_nodes_kit`.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from load_kit import load
from ray_kit import eventually
from two_nodes_kit import BODY, PATH, NodesGateway, answers, can_make_networks, two_nodes

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not can_make_networks(), reason="a network namespace needs root"),
]

Say = Callable[[str, object], None]


def test_the_head_is_lost_and_comes_back(tmp_path: Path, record_property: Say) -> None:
    """The other machine answers meanwhile; then control goes on from what was applied last."""
    with two_nodes(tmp_path) as nodes:
        gateway = NodesGateway(nodes)
        gateway.configure()
        head = nodes.head()
        eventually(lambda: answers(nodes.here, nodes.gcs_port), "Ray's head")
        nodes.second(gateway.other_data)
        launcher = gateway.up()
        host, _, port = gateway.http.rpartition(":")
        try:
            eventually(lambda: answers(host, int(port)), "the worker serves", 120)
        except AssertionError as error:
            raise AssertionError(nodes.words()) from error
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
