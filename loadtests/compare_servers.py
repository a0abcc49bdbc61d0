"""Servers of the comparison: how each is started, and when it has answered its first request right.

Every server runs on loopback on free ports, one worker and one thread for the model, and ends with
the comparison.
"""

import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import bench
import numpy as np
import orjson
import ray_serve_peer
import uvicorn_peer
from bench_load import TOLERANCE
from bench_process import end
from bench_ray_serve import process_names
from bench_workloads import Workload, gateway_directory
from peers.catalogue import PEERS, Peer, installed, python, version_of

from serving import lifeline
from serving.engine.ray_serve.cluster import require_ray
from serving.engine.report import read_report
from serving.errors import EngineError

__all__ = [
    "SERVERS",
    "DidNotStart",
    "Row",
    "Server",
    "Started",
    "start_floor",
]

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 20.0
WRONG_SECONDS: Final = 20.0
"""A server may answer before its features are loaded; one that is wrong for so long stays wrong."""

SILENT: Final = "no answer"
WRONG: Final = "WRONG"

FEATURES: Final = "join3"
LOOK_SECONDS: Final = 0.005


class DidNotStart(Exception):
    """A server that is not there, does not come up, or answers wrongly."""


class Started(NamedTuple):
    """A running server. `names` says what the processes of its tree do, as far as that is known.

    `seconds` went from starting its command to its first correct answer.
    """

    pid: int
    http: str
    grpc: str
    seconds: float
    names: Callable[[], dict[int, str]]


class Row(NamedTuple):
    """A way to ask a server: over `http`, `binary` or `grpc`."""

    name: str
    protocol: str = "http"

    @property
    def words(self) -> str:
        """What is asked."""
        return {"http": "JSON", "binary": "binary tensors", "grpc": "gRPC"}[self.protocol]


Launch = Callable[[Workload, Path], AbstractContextManager[Started]]


class Server(NamedTuple):
    """A server, what it is asked, and the rows it has in the tables.

    `missing` says why it cannot be started here, and is empty if it can; `version` names its
    package and version.
    """

    name: str
    title: str
    group: str
    rows: tuple[Row, ...]
    start: Launch
    payload: str = "1x30"
    missing: Callable[[], str] = lambda: ""
    version: Callable[[], str] = lambda: ""


# --- starting ----------------------------------------------------------------------------------


def looked_at(address: str, workload: Workload) -> str:
    """Ask for request 0: empty if it is answered right, else what came instead."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request(
            "POST",
            f"/v2/models/{workload.model}/infer",
            workload.http[0],
            {"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{SILENT}: {error}"
    finally:
        connection.close()
    if response.status != 200:
        return f"status {response.status}: {body[:200].decode(errors='replace')}"
    return wrong(body, workload.expected[0])


def wrong(body: bytes, expected: list[float]) -> str:
    """Empty if an answer in JSON holds these probabilities, else `WRONG` and what it holds."""
    try:
        outputs = orjson.loads(body)["outputs"]
        [found] = [output["data"] for output in outputs if output["name"] == "probabilities"]
        found = np.ravel(found).tolist()
        right = len(found) == len(expected) and np.allclose(found, expected, atol=TOLERANCE)
    except (ValueError, KeyError, TypeError):
        return f"{WRONG}: no probabilities in {body[:200].decode(errors='replace')}"
    return "" if right else f"{WRONG}: {found} instead of {expected}"


@contextmanager
def running(
    command: list[Any],
    log: Path,
    address: Callable[[], str | None],
    workload: Workload,
    *,
    patience_seconds: float = START_SECONDS,
    environment: dict[str, str] | None = None,
) -> Iterator[tuple[int, str, float]]:
    """A server that has answered right once: pid, `host:port`, seconds until then.

    Raises:
        DidNotStart: It ended, or had not answered right in time; says what it printed last.
    """
    # Through the launcher it ends with us even if we are killed.
    tied = [sys.executable, "-I", "-S", lifeline.__file__, os.getpid(), *command]
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in tied],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            # A Ctrl-C is ours to pass on, and a signal to Ray's process group not one to us.
            start_new_session=True,
        )
    try:
        give_up = began + patience_seconds
        heard = False
        while problem := looked_at(where, workload) if (where := address()) else SILENT:
            now = time.perf_counter()
            if not heard and not problem.startswith(SILENT):
                heard, give_up = True, min(now + WRONG_SECONDS, give_up)
            if process.poll() is not None or now > give_up:
                raise DidNotStart(_why(process, problem, log))
            time.sleep(LOOK_SECONDS)
        assert where is not None
        yield process.pid, where, time.perf_counter() - began
    finally:
        killed = end(process, STOP_SECONDS)
        assert process.stdin is not None
        process.stdin.close()
        if killed:
            print(f"  processes {killed} did not end and were killed", file=sys.stderr)


def _why(process: "subprocess.Popen[bytes]", problem: str, log: Path) -> str:
    ended = process.poll() is not None
    if problem.startswith(WRONG):
        return problem
    what = f"ended with {process.returncode}" if ended else f"did not answer in time ({problem})"
    said = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    return f"{what}; it printed last: {said[-500:]}" if said else what


def _nameless() -> dict[int, str]:
    return {}


@contextmanager
def start_floor(workload: Workload, folder: Path) -> Iterator[Started]:
    """The server of bench_floor.py, asked for rows made ready where a workload has some."""
    log = folder / f"floor-{workload.name}.log"

    def address() -> str | None:
        said = log.read_text()
        return f"127.0.0.1:{said.strip()}" if said.endswith("\n") else None

    command = [sys.executable, bench.__file__, "--serve-floor", workload.artifact]
    with running(command, log, address, workload.ready_made) as (pid, where, seconds):
        yield Started(pid, where, "", seconds, _nameless)


@contextmanager
def _sluice(workload: Workload, folder: Path, *, record: bool) -> Iterator[Started]:
    """`sluice up` with the local engine and one worker, on an empty data directory."""
    name = f"sluice-{workload.name}-{record}"
    shutil.rmtree(folder / name, ignore_errors=True)
    directory = gateway_directory(workload, folder / name / "configuration", record=record)
    data = folder / name / "data"
    sluice = shutil.which("sluice", path=str(Path(sys.executable).parent)) or "sluice"
    command = [sluice, "up", directory, "--data", data, "--engine", "local", "--workers", 1]

    def address() -> str | None:
        report = read_report(data / "run" / "engine.json")
        return None if report is None else report.addresses.http

    log = folder / f"{name}.log"
    with running(command, log, address, workload) as (pid, where, seconds):
        report = read_report(data / "run" / "engine.json")
        assert report is not None
        names = {one.pid: one.name.split("-")[0] for one in report.processes if one.pid}
        grpc = report.addresses.grpc
        yield Started(pid, where, grpc, seconds, lambda: {pid: "engine", **names})


@contextmanager
def _uvicorn(workload: Workload, folder: Path) -> Iterator[Started]:
    """The application of uvicorn_peer.py."""
    [port] = ray_serve_peer.free_ports(1)
    command = [sys.executable, uvicorn_peer.__file__, "--port", port, "--model", workload.artifact]
    where = f"127.0.0.1:{port}"
    with running(command, folder / "uvicorn.log", lambda: where, workload) as (pid, _, seconds):
        yield Started(pid, where, "", seconds, _nameless)


@contextmanager
def _ray_serve(workload: Workload, folder: Path, *, kind: str) -> Iterator[Started]:
    """Ray Serve with one of the applications of ray_serve_peer.py."""
    [port] = ray_serve_peer.free_ports(1)
    script = [sys.executable, ray_serve_peer.__file__]
    command = [*script, kind, "--port", port, "--model", workload.artifact]
    where = f"127.0.0.1:{port}"
    log = folder / f"ray-{kind}.log"
    with running(command, log, lambda: where, workload) as (pid, _, seconds):
        yield Started(pid, where, "", seconds, lambda: process_names(pid, {}))


@contextmanager
def _peer(workload: Workload, folder: Path, *, peer: Peer) -> Iterator[Started]:
    """A peer's script, in the peer's own environment."""
    http_port, grpc_port = ray_serve_peer.free_ports(2)
    options = ["--model", workload.artifact, "--http", http_port, "--grpc", grpc_port]
    where = f"127.0.0.1:{http_port}"
    home = folder / peer.name  # what it writes besides
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HOME": str(home), "NO_PROXY": "127.0.0.1", **peer.environment}
    command = [python(peer), peer.script, *options]
    log = folder / f"{peer.name}.log"
    with running(command, log, lambda: where, workload, environment=environment) as (
        pid,
        _,
        seconds,
    ):
        yield Started(pid, where, f"127.0.0.1:{grpc_port}", seconds, _nameless)


# --- which there are ---------------------------------------------------------------------------


def _no_ray() -> str:
    try:
        require_ray()
    except EngineError as error:
        return f"not installed: {error}"
    return ""


def _sluice_server(suffix: str, words: str, *, record: bool, payload: str = "1x30") -> Server:
    rows = (
        Row(f"sluice-json{suffix}"),
        Row(f"sluice-binary{suffix}", "binary"),
        Row(f"sluice-grpc{suffix}", "grpc"),
    )
    start = partial(_sluice, record=record)
    return Server(f"sluice{suffix}", f"Sluice{words}", "sluice", rows, start, payload)


def _peer_server(peer: Peer) -> Server:
    titles = {"http": "json", "grpc": "grpc"}
    several = len(peer.protocols) > 1
    return Server(
        peer.name,
        peer.title,
        peer.name,
        tuple(
            Row(f"{peer.name}-{titles[one]}" if several else peer.name, one)
            for one in peer.protocols
        ),
        partial(_peer, peer=peer),
        missing=lambda: installed(peer),
        version=lambda: version_of(peer),
    )


def _ray_server(kind: str) -> Server:
    return Server(
        f"ray-{kind}",
        f"Ray Serve, {kind} mode",
        "ray",
        (Row(f"ray-{kind}"),),
        partial(_ray_serve, kind=kind),
        missing=_no_ray,
        version=lambda: f"ray {require_ray()}",
    )


SERVERS: Final = (
    Server("floor", "the floor", "floor", (Row("floor"),), start_floor),
    Server(
        "uvicorn",
        "bare uvicorn",
        "uvicorn",
        (Row("uvicorn"),),
        _uvicorn,
        version=lambda: f"uvicorn {version('uvicorn')}",
    ),
    _sluice_server("", "", record=False),
    _sluice_server("-record", ", record", record=True),
    _sluice_server("-features", ", features and record", record=True, payload=FEATURES),
    _ray_server("best"),
    _ray_server("default"),
    *(_peer_server(peer) for peer in PEERS),
)
"""In the order in which they are measured, the floor first."""
