"""A gateway on two Ray nodes whose head is lost, with an open-loop load running.

Control, Ray's head and the launcher are on one machine, the worker on another, each with data of
its own; see `two_nodes_kit`.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from load_kit import load
from ray_kit import eventually
from two_nodes_kit import (
    BODY,
    PATH,
    NodesGateway,
    answers,
    can_make_networks,
    infer,
    ready,
    two_nodes,
)

from serving.engine.ray_serve.kept import read_reports

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not can_make_networks(), reason="a network namespace needs root"),
]

Say = Callable[[str, object], None]


def followed_to_the_end(gateway: NodesGateway) -> bool:
    """Whether control counts the worker among those that go by what was applied."""
    roll = gateway.status().get("roll", {})
    return bool(roll) and roll["done"] and roll["generation"] == roll["rolled"] == 1


def change_everything(gateway: NodesGateway) -> int:
    """Apply another plan and other settings, and begin the next edit; the revision applied."""
    model, settings = gateway.conf / "models" / "m.yaml", gateway.conf / "gateway.yaml"
    document = yaml.safe_load(model.read_text()) | {"traffic": {"production": "v2"}}
    model.write_text(yaml.safe_dump(document))
    document = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump(document | {"server_name": "renamed"}))
    code, said = gateway.asked.apply(gateway.conf, wait_seconds=60)
    assert code == 200, said
    settings.write_text(yaml.safe_dump(document | {"server_name": "half an edit"}))
    return int(said["revision"])


def hosts(gateway: NodesGateway) -> list[int]:
    """Pids of the processes of dedicated versions on the other machine."""
    reports = read_reports(gateway.other_data / "run")
    return [one.process.pid for one in reports if one.process.serves and one.process.pid]


def answers_without_the_head(gateway: NodesGateway) -> None:
    """A version with a process of its own has it beside the worker, where it is healed, too."""
    inputs: list[dict[str, Any]] = BODY["inputs"]  # type: ignore[assignment]
    assert gateway.asked.infer("apart", inputs)[0] == 200
    [host] = hosts(gateway)
    os.kill(host, signal.SIGKILL)
    eventually(lambda: hosts(gateway) not in ([], [host]), "it is started again")
    eventually(lambda: gateway.asked.infer("apart", inputs)[0] == 200, "and answers")


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_the_head_is_lost_and_comes_back(tmp_path: Path, disk: str, record_property: Say) -> None:
    """The other machine answers meanwhile; then control goes on from what was applied last.

    Also where its disk is lost with it: the store knows.
    """
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

        revision = change_everything(gateway)

        with load(gateway.http, PATH, BODY) as running:
            time.sleep(1)
            launcher.look()
            head.look()
            killed = time.monotonic()
            launcher.kill()
            head.kill()
            eventually(lambda: gateway.status() == {}, "control is gone")
            answers_without_the_head(gateway)
            if disk == "lost":
                shutil.rmtree(gateway.data)
            nodes.head()
            back = eventually(lambda: gateway.status() != {}, "control is back", 150)
            away = time.monotonic() - killed
            eventually(
                lambda: (
                    [one["revision"] for one in gateway.status().get("workers", [])] == [revision]
                ),
                "the worker reports to it",
            )
            eventually(lambda: followed_to_the_end(gateway), "control knows what it has ordered")
            time.sleep(1)

        record_property(
            "seen", f"{running.summary()}; control away for {away:.0f} s, {back:.0f} of start"
        )
        assert running.failures == []
        assert gateway.status()["revision"] == revision
        assert [one["generation"] for one in gateway.status()["workers"]] == [1]
        assert gateway.asked.ask(f"{gateway.http}/v2")[1]["name"] == "renamed"
        status, answer = gateway.asked.infer("m", BODY["inputs"])  # type: ignore[arg-type]
        assert (status, answer["outputs"][0]["data"]) == (200, [1, 4, 9])
        metrics = gateway.asked.ask(f"{gateway.admin}/metrics", token=gateway.asked.token)[1]
        assert 'sluice_inference_rows_total{model="m",version="v2"}' in metrics


def test_a_node_that_is_lost_is_done_without_and_comes_back(
    tmp_path: Path, record_property: Say
) -> None:
    """The other goes on; the node begins with what was applied while it was away."""
    with two_nodes(tmp_path) as nodes:
        gateway = NodesGateway(nodes)
        gateway.configure(workers=2, worker_cpus=1.5)
        nodes.head(cpus=2)
        eventually(lambda: answers(nodes.here, nodes.gcs_port), "Ray's head")
        second = nodes.second(gateway.other_data, cpus=2)
        gateway.up()
        try:
            eventually(lambda: len(ready(gateway)) == 2, "both workers are ready", 150)
            eventually(gateway.is_up, "`sluice up` has seen it")
        except AssertionError as error:
            raise AssertionError(nodes.words()) from error
        second.look()

        with load(gateway.head_http, PATH, BODY) as running:
            second.kill()
            eventually(lambda: len(ready(gateway)) == 1, "it is silent")
            change_everything(gateway)
            apart = infer(gateway.head_http, "apart")
            nodes.second(gateway.other_data, cpus=2)
            back = eventually(lambda: len(ready(gateway)) == 2, "it is back", 150)
        eventually(lambda: infer(gateway.http, "apart")[0] == 200, "it has a host of its own")

        record_property("seen", f"{running.summary()}; back {back:.0f} s after its start")
        assert running.failures == []
        assert apart[0] == 200
        assert ready(gateway)["second"]["generation"] == 1
        assert gateway.asked.ask(f"{gateway.http}/v2")[1]["name"] == "renamed"
