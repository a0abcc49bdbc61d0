"""Versions in processes of their own: answers, faults, changes and sleep, with both engines.

Faults and changes happen with an open-loop load running; what was seen is printed after the run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import pytest
import yaml
from load_kit import Load, load
from ray_kit import ON_RAY, eventually, left_behind
from waiting_kit import until

from serving.engine.local import LocalEngine
from serving.engine.programs import Options, Programs
from serving.errors import EngineError

BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
PATH = "/v2/models/m/infer"
QUIET_SECONDS = 1.0
LAZY = {"min": 0, "max": 1, "downscale_delay": "1s"}

pytestmark = pytest.mark.timeout(240)

Say = Callable[[str, object], None]


def dedicated(**more: Any) -> dict[str, Any]:
    """A `serve` section."""
    return {"placement": "dedicated", "host_cpus": 0.1, "deadline": "5s", **more}


@pytest.fixture(scope="module", params=["local", ON_RAY])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateway_kit.Running]:
    """Two workers; `m` with two hosts, `lazy` and `strict` that sleep."""
    folder = tmp_path_factory.mktemp("dedicated") / "conf"
    engine = {"kind": request.param, "workers": 2, "worker_cpus": 0.5}
    gateway_kit.write_gateway(folder, engine=engine)
    versions = {"v1": onnx_models.doubler(3), "v2": onnx_models.squarer()}
    gateway_kit.write_model(folder, "m", versions, {}, serve=dedicated(hosts=2))
    one = {"v1": onnx_models.doubler(3)}
    lazy = dedicated(hosts=LAZY, cold_start_timeout="50s", deadline="50s")
    gateway_kit.write_model(folder, "lazy", one, {}, serve=lazy)
    strict = dedicated(hosts=LAZY, cold_start_timeout="0ms")
    gateway_kit.write_model(folder, "strict", one, {}, serve=strict)
    with gateway_kit.running(folder) as running:
        yield running


def hosts(gateway: gateway_kit.Running, name: str) -> list[int]:
    """Pids of the processes that serve `model/version` and are ready."""
    report = json.loads((gateway.data / "run" / "engine.json").read_bytes())
    return [
        one["pid"]
        for one in report["processes"]
        if one["serves"] == name and one["state"] == "ready" and one["pid"]
    ]


def answer(gateway: gateway_kit.Running, model: str = "m", path: str = "") -> Any:
    """What it answers to 1, 2, 3."""
    status, said = gateway.infer(model, BODY["inputs"], path)
    assert status == 200, said
    return said["outputs"][0]["data"]


def edited(gateway: gateway_kit.Running, model: str, **sections: Any) -> None:
    """Change sections of a model's file, and apply."""
    file = gateway.folder / "conf" / "models" / f"{model}.yaml"
    document = yaml.safe_load(file.read_text()) | sections
    file.write_text(yaml.safe_dump(document))
    status, said = gateway.apply(file.parent.parent)
    assert status == 200, said


def test_answers_as_if_it_were_inline_and_counts_once(gateway: gateway_kit.Running) -> None:
    """Whoever asks notices nothing; the hosts' own numbers do not come on top."""
    eventually(lambda: len(hosts(gateway, "m/v1")) == 2, "two hosts")
    before = _rows_at_rest(gateway)

    answers = [answer(gateway) for _ in range(5)]

    assert answers == [[2, 4, 6]] * 5
    eventually(lambda: _rows(gateway) == before + 5, "five rows more")
    two = 'sluice_upstream_hosts{model="m",version="v1"} 2.0'
    eventually(lambda: two in _metrics(gateway), "the worker knows both")
    assert 'sluice_batch_rows_count{model="m",version="v1"' in _metrics(gateway)


def _rows_at_rest(gateway: gateway_kit.Running) -> float:
    """Rows counted, once the workers have told of all that earlier tests asked for."""
    seen = [_rows(gateway)]

    def at_rest() -> bool:
        seen.append(_rows(gateway))
        return seen[-1] == seen[-2]

    until(at_rest, "rows are counted that nobody asks for", pause=1.0)
    return seen[-1]


def _metrics(gateway: gateway_kit.Running) -> str:
    return str(gateway.ask(f"{gateway.admin}/metrics", token=gateway.token)[1])


def _rows(gateway: gateway_kit.Running) -> float:
    text = _metrics(gateway)
    name = 'sluice_inference_rows_total{model="m",version="v1"} '
    return sum(
        float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)
    )


def harmed(gateway: gateway_kit.Running, harm: signal.Signals, record: Say) -> Load:
    """One of two hosts gets a signal under load; waits until there are two good ones again."""
    eventually(lambda: len(hosts(gateway, "m/v1")) == 2, "two hosts")
    victim = hosts(gateway, "m/v1")[0]

    def healed() -> bool:
        now = hosts(gateway, "m/v1")
        return victim not in now and len(now) == 2

    with load(gateway.http, PATH, BODY) as running:
        time.sleep(QUIET_SECONDS)
        os.kill(victim, harm)
        seconds = eventually(healed, "two hosts again")
        time.sleep(QUIET_SECONDS)
    record("seen", f"{running.summary()}; healed after {seconds:.1f} s")
    return running


def test_a_killed_host_costs_no_request(gateway: gateway_kit.Running, record_property: Say) -> None:
    """What it had is asked of the other, and it is started again."""
    assert harmed(gateway, signal.SIGKILL, record_property).failures == []


def test_a_host_that_hangs_is_replaced(gateway: gateway_kit.Running, record_property: Say) -> None:
    """Requests that it holds wait for their deadline; the others go to its sibling."""
    running = harmed(gateway, signal.SIGSTOP, record_property)

    late = max((one.due for one in running.failures), default=0.0)
    assert late <= running.outcomes[-1].due - QUIET_SECONDS / 2, "it still fails after healing"
    assert running.answered > len(running.outcomes) / 2


def test_more_and_fewer_hosts_cost_nothing(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """Those that go finish what they have."""
    with load(gateway.http, PATH, BODY) as running:
        for number in (3, 1, 2):
            edited(gateway, "m", serve=dedicated(hosts=number))
            eventually(lambda n=number: len(hosts(gateway, "m/v1")) == n, f"{number} hosts")
        time.sleep(QUIET_SECONDS)

    record_property("seen", running.summary())
    assert running.failures == []


def test_a_version_that_had_no_process_takes_over_without_a_gap(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """The table is replaced once its hosts are up; the old ones then rest."""
    assert hosts(gateway, "m/v2") == []

    with load(gateway.http, PATH, BODY) as running:
        time.sleep(QUIET_SECONDS)
        edited(gateway, "m", traffic={"production": "v2"})
        eventually(lambda: answer(gateway) == [1, 4, 9], "v2 answers")
        time.sleep(QUIET_SECONDS)
        edited(gateway, "m", traffic={"production": "v1"})
        eventually(lambda: answer(gateway) == [2, 4, 6], "v1 answers")
        time.sleep(QUIET_SECONDS)

    record_property("seen", running.summary())
    assert running.failures == []


def test_a_sleeping_version_wakes_for_the_first_request(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """Who asks first waits; when nobody asks any more it goes to sleep again."""
    eventually(lambda: hosts(gateway, "lazy/v1") == [], "asleep")
    status, said = gateway.ask(f"{gateway.http}/v2/models/lazy/ready")
    assert (status, said.get("ready", True) if said else True) == (200, True)

    began = time.monotonic()
    assert answer(gateway, "lazy") == [2, 4, 6]
    record_property("seen", f"the first answer after {time.monotonic() - began:.1f} s")

    eventually(lambda: hosts(gateway, "lazy/v1") == [], "asleep again")


def test_a_sleeping_version_may_refuse_instead(gateway: gateway_kit.Running) -> None:
    """503 with Retry-After, and it is started: who comes again is answered."""
    eventually(lambda: hosts(gateway, "strict/v1") == [], "asleep")

    status, said = gateway.infer("strict", BODY["inputs"])

    assert status == 503
    assert "has no process running; one is being started" in said["error"]
    eventually(lambda: gateway.infer("strict", BODY["inputs"])[0] == 200, "awake")


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    """A gateway that ends takes its hosts along, and one that is killed too."""
    folder = tmp_path / "conf"
    gateway_kit.write_gateway(folder)
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.squarer()}, {}, serve=dedicated())
    with gateway_kit.running(folder) as running:
        (host,) = hosts(running, "m/v1")
        run = running.data / "run"
        assert list(run.glob("h-*.sock"))
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(30)
        eventually(lambda: not Path(f"/proc/{host}").exists(), "the host has gone")
    with gateway_kit.running(folder) as running:
        (host,) = hosts(running, "m/v1")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert not Path(f"/proc/{host}").exists()
        assert list((running.data / "run").glob("*.sock")) == []


async def test_a_version_that_never_starts_ends_the_start(tmp_path: Path) -> None:
    """With its name and its last words, and nothing is left running."""
    folder = tmp_path / "conf"
    gateway_kit.write_gateway(folder)
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.squarer()}, {}, serve=dedicated())
    free = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    options = Options(configuration=folder, data=tmp_path / "data", **free)
    refuse = (sys.executable, "-c", "print('no such device'); raise SystemExit(3)")
    engine = LocalEngine(options, lines=lambda *_: None, programs=Programs(host=refuse))
    await engine.start()
    try:
        with pytest.raises(EngineError, match=r"\(model m/v1\) failed 3 times") as caught:
            await engine.until_ready()
    finally:
        await engine.stop()

    assert "no such device" in str(caught.value)
    assert left_behind(tmp_path, 0) == []


@pytest.mark.ray
def test_more_processes_than_cpus_are_refused(tmp_path: Path) -> None:
    """By Ray's count; with what to change."""
    folder = tmp_path / "conf"
    gateway_kit.write_gateway(folder, engine={"kind": "ray", "workers": 1, "worker_cpus": 0.5})
    serve = dedicated(hosts=200, host_cpus=3)
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.squarer()}, {}, serve=serve)

    done = subprocess.run(
        [gateway_kit.SLUICE, "up", folder, "--data", tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert done.returncode == 1
    assert "need 600.5 CPUs" in done.stderr
    assert "serve.host_cpus" in done.stderr
    assert left_behind(tmp_path, 0) == []
