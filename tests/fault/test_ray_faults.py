"""What a gateway on Ray loses when a part of it dies, with an open-loop load running.

One gateway of two workers for all of them: each test leaves it whole. What was seen is printed
after the run; no time is asserted, only that it heals and how many requests were lost.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import pytest
import yaml
from load_kit import Load, load
from ray_kit import BOUND_SECONDS, eventually, find, replicas

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
PATH = "/v2/models/m/infer"
QUIET_SECONDS = 1.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway_kit.Running]:
    """Two workers, one model with two versions."""
    folder = tmp_path_factory.mktemp("ray") / "conf"
    engine = {"kind": "ray", "workers": 2, "worker_cpus": 0.5}
    gateway_kit.write_gateway(folder, engine=engine)
    versions = {"v1": onnx_models.doubler(3), "v2": onnx_models.squarer()}
    gateway_kit.write_model(folder, "m", versions, {})
    with gateway_kit.running(folder) as running:
        yield running


Say = Callable[[str, object], None]


def whole(gateway: gateway_kit.Running) -> bool:
    """Whether control and both workers run, and both, as they are now, say they are ready."""
    now = replicas(gateway)
    if not {"control", "worker-0", "worker-1"} <= now.keys():
        return False
    try:
        status, overview = gateway.ask(f"{gateway.admin}/api/v1/status", token=gateway.token)
    except OSError:
        return False
    ready = {one["pid"] for one in overview["workers"] if one["state"] == "ready"}
    return status == 200 and ready == {now["worker-0"][0], now["worker-1"][0]}


def under_load(
    gateway: gateway_kit.Running, kill: Callable[[], Callable[[], bool]], record: Say
) -> Load:
    """Load, do harm, wait until it is healed, and a little longer; say what was seen."""
    with load(gateway.http, PATH, BODY) as running:
        time.sleep(QUIET_SECONDS)
        before = len(running.failures)
        healed = kill()
        seconds = eventually(lambda: healed() and whole(gateway), "healed")
        time.sleep(QUIET_SECONDS)
    assert before == 0, running.summary()
    record("seen", f"{running.summary()}; healed after {seconds:.1f} s")
    late = max((one.due for one in running.failures), default=0.0)
    assert late <= running.outcomes[-1].due - QUIET_SECONDS / 2, "it still fails after healing"
    return running


def killed(pid: int, changed: Callable[[], int | None]) -> Callable[[], bool]:
    """SIGKILL `pid`; healed when `changed` is another pid."""
    os.kill(pid, signal.SIGKILL)
    return lambda: changed() not in {pid, None}


def test_a_killed_worker_costs_its_own_requests_and_comes_back(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """Its replica starts it again; no other process is touched."""
    eventually(lambda: whole(gateway), "whole")
    before = replicas(gateway)
    pid = before["worker-0"][0]

    running = under_load(
        gateway,
        lambda: killed(pid, lambda: replicas(gateway).get("worker-0", (None, 0))[0]),
        record_property,
    )

    after = replicas(gateway)
    assert after["worker-0"][1] == before["worker-0"][1]
    assert after["worker-1"] == before["worker-1"]
    # In flight, or on a connection whose end the client had not heard of: one each at most.
    assert len(running.failures) <= running.most


def test_a_killed_replica_takes_its_worker_along_and_is_replaced(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """No worker outlives the replica that would look after it."""
    eventually(lambda: whole(gateway), "whole")
    before = replicas(gateway)
    _, supervisor = before["worker-1"]

    def kill() -> Callable[[], bool]:
        os.kill(supervisor, signal.SIGKILL)
        return lambda: replicas(gateway).get("worker-1", (0, supervisor))[1] != supervisor

    running = under_load(gateway, kill, record_property)

    after = replicas(gateway)
    assert after["worker-1"][0] != before["worker-1"][0]
    assert after["worker-0"] == before["worker-0"]
    assert len(running.failures) <= running.most


def test_serves_controller_may_die(gateway: gateway_kit.Running, record_property: Say) -> None:
    """It comes back and takes over what runs; no request fails, nobody is restarted."""
    eventually(lambda: whole(gateway), "whole")
    before = replicas(gateway)
    [controller] = find(gateway, "ray::ServeController")

    def controller_now() -> int | None:
        return next(iter(find(gateway, "ray::ServeController")), None)

    running = under_load(gateway, lambda: killed(controller, controller_now), record_property)

    assert running.failures == []
    assert replicas(gateway) == before


def test_the_control_process_may_die(gateway: gateway_kit.Running, record_property: Say) -> None:
    """What was applied last is served before, meanwhile and after."""
    eventually(lambda: whole(gateway), "whole")
    model = gateway.folder / "conf" / "models" / "m.yaml"
    shift(gateway, model, "v2")
    before = replicas(gateway)
    pid = before["control"][0]

    running = under_load(
        gateway,
        lambda: killed(pid, lambda: replicas(gateway).get("control", (None, 0))[0]),
        record_property,
    )

    assert running.failures == []
    assert {"worker-0": before["worker-0"], "worker-1": before["worker-1"]}.items() <= replicas(
        gateway
    ).items()
    assert production(gateway) == "v2"
    shift(gateway, model, "v1")


def test_the_store_may_die(gateway: gateway_kit.Running, record_property: Say) -> None:
    """The launcher starts it again; predictions go on without it."""
    eventually(lambda: whole(gateway), "whole")
    before = replicas(gateway)
    [pid] = gateway.pids("store")

    def store() -> int | None:
        return next(iter(gateway.pids("store")), None)

    running = under_load(gateway, lambda: killed(pid, store), record_property)

    assert running.failures == []
    assert replicas(gateway) == before


def test_a_change_of_traffic_restarts_nothing_and_reaches_every_worker(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """While requests run, and none fails."""
    eventually(lambda: whole(gateway), "whole")
    before = replicas(gateway)
    model = gateway.folder / "conf" / "models" / "m.yaml"

    def kill() -> Callable[[], bool]:
        shift(gateway, model, "v2")
        return lambda: production(gateway) == "v2"

    running = under_load(gateway, kill, record_property)

    assert running.failures == []
    assert replicas(gateway) == before
    shift(gateway, model, "v1")


def shift(gateway: gateway_kit.Running, model: Path, version: str) -> None:
    """Make another version production, and wait until every worker serves it."""
    document: dict[str, Any] = yaml.safe_load(model.read_text())
    document["traffic"]["production"] = version
    model.write_text(yaml.safe_dump(document))
    status, answer = gateway.apply(gateway.folder / "conf")
    assert status == 200, answer
    revision = answer["revision"]

    def served() -> bool:
        _, overview = gateway.ask(f"{gateway.admin}/api/v1/status", token=gateway.token)
        return {one["revision"] for one in overview["workers"]} == {revision}

    eventually(served, f"revision {revision} on every worker", BOUND_SECONDS)


def production(gateway: gateway_kit.Running) -> str:
    """Who answers."""
    status, answer = gateway.infer("m", BODY["inputs"])
    assert status == 200, json.dumps(answer)
    return str(answer["model_version"])
