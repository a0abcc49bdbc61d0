"""What control has its own node do, other nodes do too: quarantine, settings, rolls.

One gateway for all tests: a worker on the head, beside control, and one on another machine with
data of its own; see `two_nodes_kit`.
"""

import contextlib
import http.client
import json
import os
import platform
import signal
from collections.abc import Callable, Iterator
from typing import Any

import gateway_kit
import onnx_models
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
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="the quotient that does not fit is an x86 trap"
    ),
]

TRAP = 7.0
Say = Callable[[str, object], None]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodesGateway]:
    """A worker on each of two nodes; all models but `m` crash it for one input."""
    with two_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        gateway = NodesGateway(nodes)
        gateway.configure(workers=2, worker_cpus=1.5)
        for model in ("bad", "worse", "worst"):
            versions = {"v1": onnx_models.trap(int(TRAP))}
            gateway_kit.write_model(gateway.conf, model, versions, {})
        nodes.head(cpus=2)
        eventually(lambda: answers(nodes.here, nodes.gcs_port), "Ray's head")
        nodes.second(gateway.other_data, cpus=2)
        gateway.up()
        try:
            eventually(lambda: len(ready(gateway)) == 2, "both workers are ready", 150)
        except AssertionError as error:
            raise AssertionError(nodes.words()) from error
        assert "second" in ready(gateway)
        yield gateway


def crash(gateway: NodesGateway, address: str, model: str) -> None:
    """Send the input that kills the worker there, and wait for the next one."""
    before = {node: one["pid"] for node, one in ready(gateway).items()}
    code, answer = infer(address, model, TRAP)
    assert code == 0, answer

    def back() -> bool:
        now = {node: one["pid"] for node, one in ready(gateway).items()}
        return now.keys() == before.keys() and now != before

    eventually(back, "the worker is back")


def name_of(address: str) -> str:
    """What the server there calls itself."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(address, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/v2")
            return str(json.loads(connection.getresponse().read())["name"])
    return ""


def kept_out(gateway: NodesGateway, model: str) -> set[str]:
    """The workers that do not run the model's version."""
    models = gateway.status().get("models", [])
    return {
        worker
        for one in models
        if one["model"] == model
        for version in one["versions"]
        for worker in version["not_ready"]
    }


def lift(gateway: NodesGateway, model: str) -> dict[str, Any]:
    """Let it back."""
    url = f"{gateway.admin}/api/v1/quarantine/{model}/v1/lift"
    code, answer = gateway.asked.ask(url, {}, token=gateway.asked.token)
    assert code == 200, answer
    return dict(answer)


def roll(gateway: NodesGateway) -> int:
    """Have every process replaced; the generation."""
    url = f"{gateway.admin}/api/v1/roll"
    code, answer = gateway.asked.ask(url, {}, token=gateway.asked.token)
    assert code == 200, answer
    return int(answer["generation"])


def rolled(gateway: NodesGateway) -> dict[str, Any]:
    """How far that is."""
    said = gateway.status().get("roll", {})
    return {"done": False, "failed": "", **said}


def rename(gateway: NodesGateway, name: str) -> dict[str, Any]:
    """Apply settings that workers are replaced for, and wait until all is done."""
    file = gateway.conf / "gateway.yaml"
    document = yaml.safe_load(file.read_text()) | {"server_name": name}
    file.write_text(yaml.safe_dump(document))
    code, answer = gateway.asked.apply(gateway.conf, wait_seconds=60)
    assert code == 200, answer
    return dict(answer["roll"])


def test_a_version_that_crashed_on_another_node_is_out_on_every_node(
    gateway: NodesGateway,
) -> None:
    """Control hears of it, and so does its own node; a lift reaches both."""
    for _ in range(2):
        crash(gateway, gateway.http, "bad")
    eventually(lambda: len(kept_out(gateway, "bad")) == 2, "both nodes keep it out")
    here, there = infer(gateway.head_http, "bad"), infer(gateway.http, "bad")
    [entry] = [one for one in gateway.status()["quarantined"] if one["model"] == "bad"]

    answer = lift(gateway, "bad")

    assert here[0] == there[0] == 503
    assert "on second, SIGFPE" in entry["reason"]
    assert answer["waiting"] == []
    assert infer(gateway.http, "bad")[0] == infer(gateway.head_http, "bad")[0] == 200
    crash(gateway, gateway.http, "bad")
    assert infer(gateway.http, "bad")[0] == 200, "its crashes were forgiven there as well"


def test_a_crash_on_each_node_is_two(gateway: NodesGateway) -> None:
    """Neither node would have found out alone."""
    crash(gateway, gateway.http, "worse")
    crash(gateway, gateway.head_http, "worse")

    eventually(lambda: len(kept_out(gateway, "worse")) == 2, "both nodes keep it out")
    lift(gateway, "worse")


def test_settings_that_are_applied_reach_every_node(
    gateway: NodesGateway, record_property: Say
) -> None:
    """`sluice apply` waits for the workers there, and none of their requests is lost."""
    before = ready(gateway)
    with load(gateway.http, PATH, BODY) as running:
        roll = rename(gateway, "renamed")
    after = ready(gateway)

    record_property("seen", running.summary())
    assert (roll["done"], roll["rolled"], roll["workers"]) == (True, 2, 2)
    assert name_of(gateway.http) == name_of(gateway.head_http) == "renamed"
    assert all(after[node]["pid"] != before[node]["pid"] for node in before)
    assert running.failures == []


def test_a_roll_replaces_the_workers_of_every_node(
    gateway: NodesGateway, record_property: Say
) -> None:
    """Without a failed request on either."""
    before = ready(gateway)
    with (
        load(gateway.http, PATH, BODY) as there,
        load(gateway.head_http, PATH, BODY) as here,
    ):
        generation = roll(gateway)
        eventually(lambda: bool(rolled(gateway)["done"]), "everybody is new, control too")
    after = ready(gateway)

    record_property("seen", f"there: {there.summary()}; here: {here.summary()}")
    assert there.failures == here.failures == []
    assert {one["generation"] for one in after.values()} == {generation}
    assert all(after[node]["pid"] != before[node]["pid"] for node in before)


def test_a_node_that_cannot_follow_is_named_and_serves_on(gateway: NodesGateway) -> None:
    """Its worker stays, and another roll tries again."""
    before = ready(gateway)["second"]
    run = gateway.other_data / "run"
    # Where the successor, whose number is the lowest that is free, puts its last words.
    free = 1 if before["worker"] == "worker-0" else 0
    obstacle = run / f"worker-{free}.crash"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    roll(gateway)
    eventually(lambda: bool(rolled(gateway)["failed"]), "control knows that it failed")
    failed, after = rolled(gateway)["failed"], ready(gateway)["second"]
    answer = infer(gateway.http, "m")

    obstacle.rmdir()
    roll(gateway)
    eventually(lambda: bool(rolled(gateway)["done"]), "the next try succeeds")

    assert failed.startswith(f"second: worker-{free} failed 3 times")
    assert (after["pid"], after["generation"]) == (before["pid"], before["generation"])
    assert answer[0] == 200


def test_each_node_has_hosts_of_its_own(gateway: NodesGateway) -> None:
    """A dedicated version is answered on both, by a process beside the worker."""
    assert infer(gateway.http, "apart")[0] == infer(gateway.head_http, "apart")[0] == 200
    for data in (gateway.data, gateway.other_data):
        found = [one.process.serves for one in read_reports(data / "run") if one.process.serves]
        assert found == ["apart/v1"]


def test_a_node_goes_by_its_disk_when_the_store_is_away(gateway: NodesGateway) -> None:
    """A worker that starts there meanwhile serves by what was applied, and not what is bad.

    The store comes back empty, and control fills it.
    """
    rename(gateway, "remembered")
    for _ in range(2):
        crash(gateway, gateway.http, "worst")
    eventually(lambda: len(kept_out(gateway, "worst")) == 2, "both nodes keep it out")
    worker = ready(gateway)["second"]["pid"]

    gateway.nodes.store.kill()
    try:
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: name_of(gateway.http) == "remembered", "the next worker serves")
        fine, bad = infer(gateway.http, "m"), infer(gateway.http, "worst")
    finally:
        gateway.nodes.valkey("store", gateway.nodes.store_port)
    eventually(lambda: len(ready(gateway)) == 2, "both report again")
    lifted = lift(gateway, "worst")

    assert (fine[0], bad[0]) == (200, 503)
    assert lifted["waiting"] == []
    assert infer(gateway.http, "worst")[0] == 200
