"""Start and stop the gateway for the benchmark, and measure how fast it starts."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from bench_process import resident_bytes, tree
from bench_workloads import DEMO, FREE_PORTS

from serving import lifeline

__all__ = ["Gateway", "Startup", "demo_directory", "measure_startup", "running"]

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


class Gateway(NamedTuple):
    """A running gateway: the engine's pid, `host:port` of its listeners, names of its children."""

    pid: int
    http: str
    grpc: str
    names: dict[int, str]

    def role(self, pid: int) -> str:
        """What a process of the tree is: engine, worker, control, store."""
        unnamed = "engine" if pid == self.pid else "other"
        return self.names.get(pid, unnamed).split("-")[0]


class Startup(NamedTuple):
    """Seconds from starting the command to its first correct answer, and what then is in memory."""

    seconds: float
    resident_mib: dict[str, float]


def _command(directory: Path, data: Path, workers: int) -> list[str]:
    sluice = shutil.which("sluice", path=str(Path(sys.executable).parent)) or "sluice"
    arguments = ["up", directory, "--data", data, "--engine", "local", "--workers", workers]
    # Through the launcher the gateway ends with us even if we are killed.
    tied = [sys.executable, "-I", "-S", lifeline.__file__, os.getpid(), sluice, *arguments]
    return [str(part) for part in tied]


def _report(data: Path) -> dict[str, Any] | None:
    """What the engine says it runs, once it does."""
    try:
        return json.loads((data / "run" / "engine.json").read_bytes())
    except (OSError, ValueError):
        return None


def _answers(address: str, model: str, body: bytes) -> bool:
    """Whether a request is answered 200 now, with stored features if any are asked for."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    stored = b'"feature_status"' not in answer or b'"feature_status":"OK"' in answer
    return response.status == 200 and stored


@contextmanager
def running(
    directory: Path, data: Path, *, model: str, body: bytes, workers: int = 1
) -> Iterator[Gateway]:
    """A gateway that has answered `body` once; stopped at the end, by signal and by pid.

    Raises:
        SystemExit: It did not answer within a minute. What it printed is shown.
    """
    data.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(directory, data, workers),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        give_up = time.monotonic() + START_SECONDS
        while True:
            report = _report(data)
            if report and _answers(report["addresses"]["http"], model, body):
                break
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit(f"the gateway did not answer; it printed:\n{log.read_text()}")
            time.sleep(0.005)
        report = _report(data) or report
        names = {p["pid"]: p["name"] for p in report["processes"] if p["pid"]}
        addresses = report["addresses"]
        yield Gateway(process.pid, addresses["http"], addresses["grpc"], names)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to drain; whatever of its tree is left after half a minute is killed by pid."""
    family = tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        process.wait()


def measure_startup(directory: Path, data: Path, *, model: str, body: bytes) -> Startup:
    """Start on `data`, wait for the first answer, look at memory, stop."""
    start = time.perf_counter()
    with running(directory, data, model=model, body=body) as gateway:
        seconds = time.perf_counter() - start
        for _ in range(500):
            if not _answers(gateway.http, model, body):
                sys.exit("the gateway stopped answering")
        memory: dict[str, float] = {}
        for pid in sorted(tree(gateway.pid)):
            name = gateway.names.get(pid, gateway.role(pid))
            memory[name] = memory.get(name, 0.0) + resident_bytes(pid) / 2**20
        return Startup(seconds, memory)


def demo_directory(folder: Path) -> Path:
    """A copy of the demo's configuration, shadow copies and all, on free ports."""
    shutil.copytree(
        DEMO, folder, ignore=shutil.ignore_patterns(".sluice", "census.parquet", "*.py")
    )
    gateway = yaml.safe_load((folder / "gateway.yaml").read_text())
    gateway |= {"listen": FREE_PORTS, "engine": {"kind": "local"}}
    (folder / "gateway.yaml").write_text(yaml.safe_dump(gateway))
    return folder
