"""Changing a gateway while requests run: how many, by which settings, which code, which model.

Each test has keep-alive clients, clients that connect afresh for each request, and a tritonclient
over gRPC at work before, during and after the change; none may lose a request on a connection that
was established. What they saw is printed after the run. No time is asserted.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import pytest
from ray_kit import ON_RAY, eventually, replicas
from roll_kit import BODY, apply, edit, loads, processes, rolled

pytestmark = pytest.mark.timeout(240)

SOURCES = Path(__file__).parents[2]

Say = Callable[[str, object], None]


class Changing(gateway_kit.Running):
    """A gateway whose configuration and code a test may edit."""

    kind = "local"
    code: Path

    @property
    def configuration(self) -> Path:
        """Its directory."""
        return self.folder / "conf"

    def set(self, **sections: Any) -> None:
        """Edit `gateway.yaml`; a number of workers is `workers=`."""
        workers = sections.pop("workers", None)
        if workers is not None:
            sections["engine"] = {"kind": self.kind, "worker_cpus": 0.25, "workers": workers}
        edit(self.configuration / "gateway.yaml", **sections)

    def keepers(self) -> dict[str, int]:
        """Who keeps which worker: replicas on Ray, else the engine."""
        if self.kind == "ray":
            return {name: keeper for name, (_, keeper) in replicas(self).items()}
        return {"engine": self.process.pid}


@pytest.fixture(scope="module", params=["local", ON_RAY])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Changing]:
    """Two workers, one model with two versions, run from a copy of the code."""
    folder = tmp_path_factory.mktemp(f"rolling-{request.param}")
    code = folder / "code"
    for package in ("serving", "feature_cache"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCES / package, code / package, ignore=ignored)
    engine = {"kind": request.param, "workers": 2, "worker_cpus": 0.25}
    gateway_kit.write_gateway(folder / "conf", engine=engine)
    versions = {"v1": onnx_models.doubler(3), "v2": onnx_models.squarer()}
    gateway_kit.write_model(folder / "conf", "m", versions, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(code))
        with gateway_kit.running(folder / "conf") as running:
            running.__class__ = Changing
            assert isinstance(running, Changing)
            running.kind, running.code = request.param, code
            yield running


def test_workers_come_and_go(gateway: Changing, record_property: Say) -> None:
    """More, then fewer; those that stay are the same processes, and so are Serve's replicas."""
    before, keepers = processes(gateway, "worker-"), gateway.keepers()

    with loads(gateway) as seen:
        gateway.set(workers=3)
        up = apply(gateway, gateway.configuration)
        more, keepers_of_more = processes(gateway, "worker-"), gateway.keepers()
        gateway.set(workers=2)
        apply(gateway, gateway.configuration)
        eventually(lambda: len(processes(gateway, "worker-")) == 2, "one has left")

    record_property("seen", seen.seen())
    assert up["lines"] == ["~ gateway.engine.workers: 2 -> 3"]
    assert len(more) == 3
    assert before < more
    assert processes(gateway, "worker-") < more
    assert set(keepers.values()) <= set(keepers_of_more.values())
    seen.assert_none_lost()


def test_settings_roll_the_workers(gateway: Changing, record_property: Say) -> None:
    """Each worker is another process afterwards and refuses what the new limits forbid."""
    before, keepers = processes(gateway, "worker-"), gateway.keepers()
    [control] = processes(gateway, "control")
    large = [{"name": "X", "datatype": "FP32", "shape": [3, 3], "data": [0.0] * 9}]
    assert gateway.infer("m", large)[0] == 200

    with loads(gateway) as seen:
        gateway.set(limits={"max_elements": 6})
        answer = apply(gateway, gateway.configuration)

    record_property("seen", seen.seen())
    assert answer["lines"] == ["~ gateway.limits.max_elements: 4194304 -> 6 (rolls workers)"]
    assert not before & processes(gateway, "worker-")
    assert processes(gateway, "control") == {control}
    assert {gateway.infer("m", large)[0] for _ in range(20)} == {400}
    assert set(gateway.keepers().values()) == set(keepers.values())
    seen.assert_none_lost()


def test_a_model_version_changes(gateway: Changing, record_property: Say) -> None:
    """Traffic alone restarts nothing, and every worker answers with the other version."""
    eventually(lambda: len(processes(gateway, "worker-")) == 2, "the last test's have left")
    before = {role: processes(gateway, role) for role in ("worker-", "control", "store")}

    with loads(gateway) as seen:
        edit(gateway.configuration / "models" / "m.yaml", traffic={"production": "v2"})
        began = time.monotonic()
        answer = apply(gateway, gateway.configuration)
        seconds = time.monotonic() - began
        answered = {gateway.infer("m", BODY["inputs"])[1]["model_version"] for _ in range(20)}

    record_property("seen", f"every worker served it after {seconds:.2f} s; {seen.seen()}")
    assert all(worker["applied"] for worker in answer["workers"])
    assert answered == {"v2"}
    assert {role: processes(gateway, role) for role in before} == before
    seen.assert_none_lost()


def test_another_directory_counts_once_it_is_applied(gateway: Changing) -> None:
    """Workers that are started again go by what was applied, not by what lies about."""
    copy = gateway.folder / "copy"
    shutil.copytree(gateway.configuration, copy, dirs_exist_ok=True)
    edit(copy / "gateway.yaml", server_name="copied")
    apply(gateway, copy)
    (copy / "gateway.yaml").write_text("schema_version: [")
    (gateway.configuration / "gateway.yaml").rename(gateway.folder / "away.yaml")
    try:
        # The report may still hold one that has just ended.
        there = [pid for pid in processes(gateway, "worker-") if Path(f"/proc/{pid}").exists()]
        victim = min(there)
        os.kill(victim, 9)
        eventually(lambda: rolled(gateway)["done"] and len(processes(gateway, "worker-")) == 2,
                   "it is back")  # fmt: skip
        eventually(lambda: victim not in processes(gateway, "worker-"), "it is another")
        names = {gateway.ask(f"{gateway.http}/v2")[1]["name"] for _ in range(20)}
    finally:
        (gateway.folder / "away.yaml").rename(gateway.configuration / "gateway.yaml")

    assert names == {"copied"}
    apply(gateway, gateway.configuration)


def test_a_roll_that_cannot_succeed_keeps_what_runs(
    gateway: Changing, record_property: Say
) -> None:
    """The first new worker dies of the code it is given; nobody else is touched."""
    before = processes(gateway, "worker-") | processes(gateway, "control")
    program = gateway.code / "serving" / "worker" / "process.py"
    good = program.read_text()

    with loads(gateway) as seen:
        program.write_text("raise SystemExit('this version is broken')\n")
        try:
            done = sluice(gateway, "roll", "--yes")
        finally:
            program.write_text(good)
        status = rolled(gateway)
        shown = sluice(gateway, "status")

    record_property("seen", seen.seen())
    assert done.returncode == 1, done.stderr
    assert "this version is broken" in done.stderr
    assert "this version is broken" in status["failed"]
    assert "the workers were not replaced" in shown.stdout
    assert processes(gateway, "worker-") | processes(gateway, "control") == before
    seen.assert_none_lost()
    again = sluice(gateway, "roll", "--yes")  # with the program mended
    assert again.returncode == 0, again.stderr
    eventually(lambda: rolled(gateway)["done"], "every process is new")
    assert not before & (processes(gateway, "worker-") | processes(gateway, "control"))


def test_new_code_replaces_every_process(gateway: Changing, record_property: Say) -> None:
    """Workers one by one, control last; all run what is on disk now, also after a failed roll."""
    before = processes(gateway, "worker-") | processes(gateway, "control")
    keepers = gateway.keepers()
    file = gateway.code / "serving" / "worker" / "gateway.py"
    file.write_text(file.read_text().replace("_own_version(),", '"9.9.9",'))

    with loads(gateway) as seen:
        done = sluice(gateway, "roll", "--yes", "--reason", "9.9.9")
        versions = {gateway.ask(f"{gateway.http}/v2")[1]["version"] for _ in range(20)}

    record_property("seen", seen.seen())
    assert done.returncode == 0, done.stderr
    assert "every process is new" in done.stdout
    assert "2 of 2 workers are new" in done.stderr
    assert versions == {"9.9.9"}
    assert not before & (processes(gateway, "worker-") | processes(gateway, "control"))
    assert set(gateway.keepers().values()) == set(keepers.values())
    seen.assert_none_lost()


def sluice(gateway: Changing, verb: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """A command about this gateway."""
    command = [str(gateway_kit.SLUICE), verb, "--data", str(gateway.data), *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )
