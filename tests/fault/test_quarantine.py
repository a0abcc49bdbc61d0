"""Versions that crash their workers natively: who is still answered, and that it ends.

The models are real ones, whose runs raise SIGFPE inside ONNX Runtime for one input (`trap`) or one
batch size (`crowd_trap`). One gateway of two workers an engine for all tests; each has models of
its own. What was seen is printed after the run; no time is asserted.
"""

import contextlib
import http.client
import json
import os
import platform
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
from ray_kit import BOUND_SECONDS, ON_RAY, eventually

from serving.control.audit import verify
from serving.engine.ray_serve.kept import read_reports
from serving.engine.report import ProcessReport, read_report
from serving.quarantine import register

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="the quotient that does not fit is an x86 trap"
    ),
]

TRAP = 7.0
QUIET_SECONDS = 1.0
Say = Callable[[str, object], None]


def inputs(value: float) -> list[dict[str, Any]]:
    """One row of three equal numbers."""
    return [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [value] * 3}]


def configure(folder: Path, kind: str) -> None:
    """A model for each way in which a crashing version may take part in the traffic."""
    engine: dict[str, Any] = {"kind": kind, "workers": 2}
    if kind == "ray":
        engine["worker_cpus"] = 0.5
    gateway_kit.write_gateway(folder, engine=engine)
    good, bad = onnx_models.doubler(3), onnx_models.trap(int(TRAP))
    by_user = {"header": "x-user", "on_missing_key": "production"}
    canary = {"canary": {"version": "v2", "weight": 50}, "assignment": by_user}
    gateway_kit.write_model(folder, "canary", {"v1": good, "v2": bad}, canary)
    shadow = {"shadow": [{"version": "v2", "percent": 100}]}
    gateway_kit.write_model(folder, "shadow", {"v1": good, "v2": bad}, shadow)
    gateway_kit.write_model(folder, "alone", {"v1": bad}, {})
    gateway_kit.write_model(folder, "loading", {"v1": good}, {})
    gateway_kit.write_model(folder, "patient", {"v1": onnx_models.patience()}, {})


@pytest.fixture(scope="module", params=["local", ON_RAY])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateway_kit.Running]:
    """Two workers; whatever a test's model did to them, they run when the next one begins."""
    folder = tmp_path_factory.mktemp("quarantine") / "conf"
    configure(folder, request.param)
    with gateway_kit.running(folder) as running:
        yield running


def workers(gateway: gateway_kit.Running) -> list[ProcessReport]:
    """The workers as whoever supervises them sees them."""
    run = gateway.data / "run"
    if replicas := read_reports(run):  # on Ray the engine's own report is up to a second older
        return [one.process for one in replicas if one.process.name.startswith("worker-")]
    report = read_report(run / "engine.json")
    assert report is not None
    return [one for one in report.processes if one.name.startswith("worker-")]


def restarts(gateway: gateway_kit.Running) -> int:
    """How often any worker was started again."""
    return sum(one.restarts for one in workers(gateway))


def crashes_of(gateway: gateway_kit.Running, model: str) -> int:
    """How often a model is known to have crashed a worker; nothing begins this count anew."""
    known = register.load(gateway.data).crashes
    return sum(any(one.model == model for one in crash.suspects) for crash in known)


def status(gateway: gateway_kit.Running) -> dict[str, Any]:
    """What control says about everything."""
    code, answer = gateway.ask(f"{gateway.admin}/api/v1/status", token=gateway.token)
    assert code == 200, answer
    return dict(answer)


def whole(gateway: gateway_kit.Running) -> bool:
    """Whether both workers run, and both, as they are now, say they are ready."""
    pids = {one.pid for one in workers(gateway)}
    with contextlib.suppress(OSError):
        said = {one["pid"] for one in status(gateway)["workers"] if one["state"] == "ready"}
        return len(pids) == 2 and said == pids
    return False


def quarantined(gateway: gateway_kit.Running, model: str) -> list[dict[str, Any]]:
    """Entries of one model."""
    return [one for one in status(gateway)["quarantined"] if one["model"] == model]


def out_of_traffic(gateway: gateway_kit.Running, model: str, version: str) -> bool:
    """Whether both workers say that they do not run the version."""
    [its] = [one for one in status(gateway)["models"] if one["model"] == model]
    [one] = [one for one in its["versions"] if one["version"] == version]
    return set(one["not_ready"]) == {"worker-0", "worker-1"}


def ask(
    gateway: gateway_kit.Running, model: str, value: float, user: str = "", path: str = ""
) -> tuple[int, Any]:
    """One inference on a connection of its own; status 0 if that broke."""
    connection = http.client.HTTPConnection(gateway.http, timeout=30)
    headers = {"x-user": user} if user else {}
    try:
        connection.request(
            "POST",
            f"/v2/models/{model}{path}/infer",
            json.dumps({"inputs": inputs(value)}),
            headers,
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def crash(gateway: gateway_kit.Running, model: str, user: str = "") -> None:
    """Send the input that kills the worker, and wait until that has been started again."""
    before = restarts(gateway)
    code, answer = ask(gateway, model, TRAP, user)
    assert code == 0, answer
    eventually(lambda: restarts(gateway) > before and whole(gateway), "the worker is back")


def user_of(gateway: gateway_kit.Running, role: str) -> str:
    """Somebody who is answered in this role."""
    for number in range(100):
        code, answer = ask(gateway, "canary", 1.0, f"u{number}")
        assert code == 200, answer
        if answer["parameters"]["model_role"] == role:
            return f"u{number}"
    raise AssertionError(f"nobody is answered by {role}")


def sluice(gateway: gateway_kit.Running, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command on this gateway."""
    return subprocess.run(
        [str(gateway_kit.SLUICE), *words, "--data", str(gateway.data)],
        capture_output=True, text=True, timeout=BOUND_SECONDS, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "300"},
    )  # fmt: skip


@contextlib.contextmanager
def under_load(
    gateway: gateway_kit.Running, model: str, value: float, record: Say
) -> Iterator[Load]:
    """An open-loop load on a model's production, while the block runs and a little longer."""
    body = {"inputs": inputs(value)}
    with load(gateway.http, f"/v2/models/{model}/infer", body) as running:
        yield running
        time.sleep(QUIET_SECONDS)
    record("seen", running.summary())


def end_of_failures(running: Load) -> None:
    """Assert that the last stretch of a load was answered without a failure."""
    late = max((one.due for one in running.failures), default=0.0)
    assert late <= running.outcomes[-1].due - QUIET_SECONDS / 2, "it still fails"


RUN = """
import sys
import numpy as np
from serving.models.runtime import Model
model = Model(open(sys.argv[1], "rb").read())
model.run(["Y"], {"X": np.full((int(sys.argv[2]), 3), float(sys.argv[3]), "<f4")}, None)
"""


@pytest.mark.parametrize(
    ("content", "rows", "value"),
    [(onnx_models.trap(int(TRAP)), 1, TRAP), (onnx_models.crowd_trap(), 64, 0.0)],
    ids=["trap", "crowd_trap"],
)
def test_the_models_do_crash(tmp_path: Path, content: bytes, rows: int, value: float) -> None:
    """Without this the other tests would prove nothing."""
    file = onnx_models.save(tmp_path / "model.onnx", content)
    words = [sys.executable, "-c", RUN, str(file), str(rows), str(value)]

    ended = subprocess.run(words, capture_output=True, timeout=BOUND_SECONDS, check=False)

    assert ended.returncode == -signal.SIGFPE, ended.stderr


def test_a_canary_that_crashes_twice_is_taken_out_and_production_answers_its_keys(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """Only what was in flight at the two crashes is lost; then nobody crashes any more."""
    eventually(lambda: whole(gateway), "whole")
    user = user_of(gateway, "canary")
    with under_load(gateway, "canary", 1.0, record_property) as running:
        crash(gateway, "canary", user)
        assert quarantined(gateway, "canary") == []  # once may be chance
        crash(gateway, "canary", user)
        eventually(lambda: out_of_traffic(gateway, "canary", "v2"), "quarantined")
        before = restarts(gateway)
        for _ in range(20):
            code, answer = ask(gateway, "canary", TRAP, user)
            assert (code, answer["model_version"]) == (200, "v1"), answer
            assert answer["parameters"]["model_role"] == "production"

    assert restarts(gateway) == before
    # In flight, or on a connection whose end the client had not heard of: one each at most.
    assert len(running.failures) <= 2 * running.most
    end_of_failures(running)
    assert_reported(gateway, "canary", "v2")

    assert_lifted(gateway, "canary", "v2")

    code, answer = ask(gateway, "canary", 1.0, user)
    assert (code, answer["model_version"]) == (200, "v2"), "keys come back to the canary"


def assert_reported(gateway: gateway_kit.Running, model: str, version: str) -> None:
    """Everybody who asks is told: callers, operators, Prometheus, auditors."""
    code, answer = ask(gateway, model, 1.0, path=f"/versions/{version}")
    assert code == 503
    for words in ("is quarantined since", "2 worker processes crashed", "sluice quarantine lift"):
        assert words in answer["error"]
    [entry] = quarantined(gateway, model)
    assert (entry["version"], entry["crashes"]) == (version, 2)
    assert "SIGFPE" in entry["reason"]
    for url in (f"{gateway.admin}/v2/repository/index", f"{gateway.http}/v2/repository/index"):
        _, index = gateway.ask(url, {}, token=gateway.token)
        [one] = [one for one in index if (one["name"], one["version"]) == (model, version)]
        assert one["state"] == "UNAVAILABLE"
        assert "quarantined" in one["reason"]
    _, ready = gateway.ask(f"{gateway.admin}/readyz")
    assert ready["ready"] is True
    assert ready["quarantined"] >= 1
    _, page = gateway.ask(f"{gateway.admin}/metrics", token=gateway.token)
    assert f'sluice_quarantined_versions{{model="{model}",version="{version}"}} 1.0' in page
    shown = sluice(gateway, "status").stdout
    assert f"{model}/{version} is quarantined for" in shown
    assert "killed by SIGFPE while running" in shown
    listed = json.loads(sluice(gateway, "quarantine", "list", "--json").stdout)
    assert (model, version) in {(one["model"], one["version"]) for one in listed["quarantined"]}
    eventually(lambda: ("quarantine", f"{model}/{version}") in audited(gateway), "audited")


def audited(gateway: gateway_kit.Running) -> set[tuple[str, str]]:
    """(verb, subject) of everything in the audit log, whose chain is whole."""
    path = gateway.data / "journal" / "audit.jsonl"
    assert verify(path) == []
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["verb"], line["subject"]) for line in lines}


def assert_lifted(gateway: gateway_kit.Running, model: str, version: str) -> None:
    """The command asks, lets the version back, and can do so once."""
    assert sluice(gateway, "quarantine", "lift", model, version).returncode == 2
    ended = sluice(gateway, "quarantine", "lift", model, version, "--yes")
    assert ended.returncode == 0, ended.stderr
    assert quarantined(gateway, model) == []
    assert ("lift", f"{model}/{version}") in audited(gateway)
    code, answer = ask(gateway, model, 1.0, path=f"/versions/{version}")
    assert (code, answer["model_version"]) == (200, version)
    again = sluice(gateway, "quarantine", "lift", model, version, "--yes")
    assert again.returncode == 1
    assert "is not in quarantine" in again.stderr


def test_a_shadow_whose_every_copy_crashes_is_taken_out(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """One worker tries the first copies, so production is answered by the other all the time."""
    eventually(lambda: whole(gateway), "whole")
    before = restarts(gateway)
    with under_load(gateway, "shadow", TRAP, record_property) as running:
        eventually(
            lambda: bool(quarantined(gateway, "shadow")) and whole(gateway),
            "quarantined, and whole",
        )
        # What Ray's replicas tell of restarts is older than what workers tell of themselves.
        eventually(lambda: restarts(gateway) >= before + 2, "both are told of")
        after = restarts(gateway)
        time.sleep(QUIET_SECONDS)

    assert restarts(gateway) == after
    assert after - before == 2
    assert len(running.failures) <= 2 * running.most
    end_of_failures(running)


def test_production_that_crashes_is_refused_and_other_models_answer(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """Nobody stands in for production, so its model answers 503 with what to do."""
    eventually(lambda: whole(gateway), "whole")
    with under_load(gateway, "canary", 1.0, record_property) as running:
        crash(gateway, "alone")
        crash(gateway, "alone")
        eventually(lambda: out_of_traffic(gateway, "alone", "v1"), "quarantined")
        before = restarts(gateway)
        code, answer = ask(gateway, "alone", 1.0)

    assert code == 503
    assert "sluice quarantine lift alone v1" in answer["error"]
    assert restarts(gateway) == before
    assert len(running.failures) <= 2 * running.most
    end_of_failures(running)


def test_a_version_that_crashes_while_it_is_loaded_does_not_keep_the_revision_out(
    gateway: gateway_kit.Running, record_property: Say
) -> None:
    """One worker dies of warming it up, twice; then all serve the new revision without it."""
    eventually(lambda: whole(gateway), "whole")
    folder = gateway.folder / "conf"
    before = restarts(gateway)
    file = folder / "models" / "loading.yaml"
    written = file.read_text()
    document = yaml.safe_load(written)
    versions = {"v1": onnx_models.doubler(3), "v2": onnx_models.crowd_trap()}
    gateway_kit.write_model(folder, "loading", versions, {"production": "v1"})
    with under_load(gateway, "canary", 1.0, record_property) as running:
        code, answer = gateway.apply(folder, wait_seconds=0)
        assert code == 200, answer

        def served() -> bool:
            said = status(gateway)["workers"]
            return whole(gateway) and {one["revision"] for one in said} == {answer["revision"]}

        eventually(lambda: bool(quarantined(gateway, "loading")) and served(), "served")

    assert crashes_of(gateway, "loading") == 2
    if not read_reports(gateway.data / "run"):  # a replica that Ray replaces counts from 0
        assert restarts(gateway) - before == 2
    assert len(running.failures) <= 2 * running.most
    [entry] = quarantined(gateway, "loading")
    assert "while it was being loaded" in entry["reason"]
    assert ask(gateway, "loading", 1.0)[0] == 200
    end_of_failures(running)

    file.write_text(yaml.safe_dump(document))
    code, answer = gateway.apply(folder)
    assert code == 200, answer
    eventually(lambda: quarantined(gateway, "loading") == [], "forgotten with its version")
    eventually(lambda: ("lift", "loading/v2") in audited(gateway), "audited")


def test_a_killed_worker_is_nobodys_fault(gateway: gateway_kit.Running) -> None:
    """Kill -9, twice, while a version runs."""
    eventually(lambda: whole(gateway), "whole")
    for _ in range(2):
        before = {one.pid for one in workers(gateway)}
        connection = http.client.HTTPConnection(gateway.http, timeout=30)
        long = [{"name": "X", "datatype": "INT64", "shape": [1, 1], "data": [10_000_000]}]
        connection.request("POST", "/v2/models/patient/infer", json.dumps({"inputs": long}))
        time.sleep(0.1)  # it runs, most likely; if it does not, the claim is true all the same
        for one in workers(gateway):
            assert one.pid is not None
            os.kill(one.pid, signal.SIGKILL)
        connection.close()
        # Not by their restarts: Serve replaces a replica whose worker dies again and again.
        eventually(
            lambda n=before: not n & {one.pid for one in workers(gateway)} and whole(gateway),
            "back",
        )

    assert quarantined(gateway, "patient") == []
