"""The real programs under the engine: what a newcomer's first minutes touch."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from serving.engine.report import EngineReport, read_report

DEMO = Path(__file__).parents[2] / "configs" / "demo"
SLUICE = (sys.executable, "-c", "from serving.cli import main; main()")
BOUND_SECONDS = 90


class Gateway(NamedTuple):
    """A running `sluice up` and what it printed."""

    process: "subprocess.Popen[str]"
    printed: str
    data: Path

    @property
    def report(self) -> EngineReport:
        """What runs now."""
        report = read_report(self.data / "run" / "engine.json")
        assert report is not None
        return report

    @property
    def curl(self) -> list[str]:
        """The printed request."""
        [line] = [line for line in self.printed.splitlines() if "curl" in line]
        return shlex.split(line)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Start the demo on free ports with the real programs; whatever is left is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> Gateway:
        configuration = tmp_path / "demo"
        if not configuration.exists():
            ignored = shutil.ignore_patterns(".sluice", "census.parquet", "*.py")
            shutil.copytree(DEMO, configuration, ignore=ignored)
            gateway = configuration / "gateway.yaml"
            text = gateway.read_text()
            for port in ("8000", "8001", "8002"):
                text = text.replace(f"127.0.0.1:{port}", "127.0.0.1:0")
            text = text.replace("kind: ray", "kind: local")
            gateway.write_text(text)
        log = (tmp_path / "log").open("a")
        process = subprocess.Popen(
            [*SLUICE, "up", str(configuration), *words],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        log.close()
        started.append(process)
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "Ctrl-C stops everything" in line:
                return Gateway(process, "".join(printed), configuration / ".sluice")
        pytest.fail(f"it did not start:\n{(tmp_path / 'log').read_text()}")

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def asked(command: list[str]) -> dict[str, object]:
    """The answer to the printed command, run by curl where there is one."""
    if shutil.which("curl"):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BOUND_SECONDS, check=True
        )
        return dict(json.loads(done.stdout))
    url, _, body = command[2:5]
    content = Path(body[1:]).read_bytes() if body.startswith("@") else body.encode()
    return dict(httpx.post(url, content=content, timeout=BOUND_SECONDS).json())


def stopped(gateway: Gateway) -> None:
    """Ctrl-C, and wait for the end."""
    gateway.process.send_signal(signal.SIGINT)
    gateway.process.communicate(timeout=BOUND_SECONDS)


def test_the_printed_request_is_answered_and_ctrl_c_leaves_nothing(
    start: Callable[..., Gateway],
) -> None:
    """What `sluice up` prints can be pasted; afterwards no process and no socket is left."""
    gateway = start()
    children = [process.pid for process in gateway.report.processes]

    answer = asked(gateway.curl)

    assert answer["model_name"] == "employment"
    assert answer["outputs"]
    stopped(gateway)
    assert gateway.process.returncode == 0
    assert not any(psutil.pid_exists(pid) for pid in children if pid is not None)
    assert not list((gateway.data / "run").glob("*.sock"))
    assert not list((gateway.data / "run").glob("engine*"))


def test_the_request_without_an_example_file_is_answered_too(
    start: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Other directories get a body of zeros in the model's own shapes, and it works."""
    first = start()
    stopped(first)
    (tmp_path / "demo" / "example-request.json").unlink()

    gateway = start()

    assert gateway.curl[-1].startswith('{"inputs"')
    assert asked(gateway.curl)["outputs"]


def test_status_shows_processes_workers_and_versions(start: Callable[..., Gateway]) -> None:
    """One command tells who runs and what is served."""
    gateway = start("--workers", "2")

    give_up = time.monotonic() + BOUND_SECONDS
    while True:
        done = subprocess.run(
            [*SLUICE, "status", "--data", str(gateway.data), "--json"],
            capture_output=True, text=True, timeout=BOUND_SECONDS, check=True,
        )  # fmt: skip
        seen = json.loads(done.stdout)
        serves = {p["name"]: (p["state"], p["revision"]) for p in seen["processes"]}
        latest = ("ready", seen["control"]["revision"])  # the demo's rollout begins meanwhile
        wanted = {
            "store": ("ready", None), "control": ("ready", None),
            "worker-0": latest, "worker-1": latest,
        }  # fmt: skip
        if serves == wanted:
            break
        assert time.monotonic() < give_up, (serves, wanted)

    assert seen["control_problem"] == ""
    [model] = seen["control"]["models"]
    assert [version["version"] for version in model["versions"]] == ["v1", "v2"]
    assert model["versions"][0]["roles"] == [{"role": "production", "percent": 100.0}]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_comes_back_and_answers(
    start: Callable[..., Gateway], number: signal.Signals
) -> None:
    """Killed or stopped, the only worker is replaced and the same request is answered again."""
    gateway = start()
    [old] = [p.pid for p in gateway.report.processes if p.name == "worker-0"]
    assert old is not None

    os.kill(old, number)

    give_up = time.monotonic() + BOUND_SECONDS
    while True:
        assert time.monotonic() < give_up
        [worker] = [p for p in gateway.report.processes if p.name == "worker-0"]
        if worker.pid not in {None, old}:
            try:
                assert asked(gateway.curl)["outputs"]
            except (subprocess.CalledProcessError, OSError, ValueError, KeyError):
                time.sleep(0.05)
            else:
                break
        time.sleep(0.05)
    assert worker.restarts == 1
    assert not psutil.pid_exists(old)
