"""CPU per request: Sluice on its own, Sluice on Ray, and Ray Serve itself, alternating.

    python loadtests/bench_ray_serve.py                      # four servers, three rounds
    python loadtests/bench_ray_serve.py --skip-default       # without Serve's slow path
    python loadtests/bench_ray_serve.py --with-guide         # and Serve as Ray's guide sets it up
    python loadtests/bench_ray_serve.py --payload demo --rounds 5 --json

Four servers run side by side, each with one worker or replica that runs the model:

    local    `sluice up --engine local`
    ray      `sluice up --engine ray`: the same worker, kept by a replica of Ray Serve
    best     Ray Serve with all that lowers its cost, documented or not: HAProxy, direct ingress,
             throughput-optimised, a raw ASGI application with the model in the ingress replica, no
             log and no metrics of requests
    default  Ray Serve's path when no switch is set: its Python proxy, a router deployment, and a
             handle to the model's deployment
    guide    if asked for: like `best`, but with the two switches of Ray's guide and no others

The last three are in ray_serve_peer.py. All serve the same model file and are asked the same JSON
by the same generator (bench_load.py, a process of its own), one after the other, there and back.

What counts is user and system time of a server's whole process tree over requests answered. A Ray
also works when nobody asks for anything, and so, a little, does a gateway: every round begins with
a quiet interval as long as a run, and what a tree uses in it is shown apart (`idle`, per cent of
one core) and taken off its runs, for the time they last. `ray / local` is then what the engine
costs a request; the others are what a request through Serve costs, in requests through Sluice.

By key (`--payload join`) only Sluice reads the store; Serve is sent the row ready made.

Needs the extra `sluice-gateway[ray]` and about 3 GiB of memory. Everything listens on loopback
only, on free ports; everything started here ends with this process.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import ray_serve_peer
from bench import BadAnswers, measure
from bench_gateway import Gateway
from bench_process import cpu_seconds, end, tree
from bench_report import Run, describe, machine
from bench_workloads import PAYLOADS, Workload, build, gateway_directory

from serving import lifeline
from serving.engine.ray_serve.cluster import require_ray
from serving.engine.report import read_report
from serving.errors import EngineError

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 2.0
"""Ray starts and ends processes for a moment after it has said that it is ready."""

FALLBACK_SHARE: Final = 0.1
"""Of a server's CPU, past which its requests went through Python instead of HAProxy."""


class Server(NamedTuple):
    """A running server, what to ask it, and the names of its processes, as far as it has any."""

    name: str
    pid: int
    address: str
    names: dict[int, str]
    workload: Workload

    def gateway(self) -> Gateway:
        """For `measure`: with the names of all its processes, which Ray replaces now and then."""
        return Gateway(self.pid, self.address, "", process_names(self.pid, self.names))


class Measured(msgspec.Struct):
    """One run. `run` is without what the tree uses when idle, which `idle_percent` is."""

    run: Run
    with_idle_us: float
    idle_percent: float


# --- starting and stopping ---------------------------------------------------------------------


def _answers(address: str, workload: Workload) -> bool:
    """Whether a request is answered 200 now."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("POST", f"/v2/models/{workload.model}/infer", workload.http[0])
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    stored = b'"feature_status"' not in answer or b'"feature_status":"OK"' in answer
    return response.status == 200 and stored


@contextmanager
def _running(
    command: list[Any], log: Path, address: Callable[[], str | None], workload: Workload
) -> Iterator[tuple[int, str]]:
    """A server that has answered once: its pid and `host:port`. Ended at the end, and looked after.

    Raises:
        SystemExit: It did not answer within two minutes. What it printed is shown.
    """
    # Through the launcher it ends with us even if we are killed.
    tied = [sys.executable, "-I", "-S", lifeline.__file__, os.getpid(), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in tied],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # A Ctrl-C is ours to pass on, and a signal to Ray's process group not one to us.
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + START_SECONDS
        while not ((where := address()) and _answers(where, workload)):
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit(f"a server did not answer ({command}); it printed:\n{log.read_text()}")
            time.sleep(0.05)
        yield process.pid, where
    finally:
        if killed := end(process, STOP_SECONDS):
            sys.exit(f"processes {killed} had to be killed")


@contextmanager
def _sluice(engine: str, workload: Workload, folder: Path) -> Iterator[Server]:
    """`sluice up` on this engine."""
    directory = gateway_directory(workload, folder / engine)
    data = folder / f"{engine}-data"
    sluice = shutil.which("sluice", path=str(Path(sys.executable).parent)) or "sluice"
    command = [sluice, "up", directory, "--data", data, "--engine", engine, "--workers", 1]

    def address() -> str | None:
        report = read_report(data / "run" / "engine.json")
        return None if report is None else report.addresses.http

    with _running(command, folder / f"{engine}.log", address, workload) as (pid, where):
        report = read_report(data / "run" / "engine.json")
        assert report is not None
        named = {one.pid: one.name for one in report.processes if one.pid}
        yield Server(engine, pid, where, named, workload)


@contextmanager
def _serve(kind: str, workload: Workload, folder: Path) -> Iterator[Server]:
    """Ray Serve with one of the peer's applications."""
    [port] = ray_serve_peer.free_ports(1)
    script = [sys.executable, ray_serve_peer.__file__]
    command = [*script, kind, "--port", port, "--model", workload.artifact]
    asked = workload.ready_made
    where = f"127.0.0.1:{port}"
    with _running(command, folder / f"{kind}.log", lambda: where, asked) as (pid, _):
        yield Server(kind, pid, where, {}, asked)


_TITLES: Final = {
    "ray::ServeReplica": "replica",
    "ray::HAProxyManager": "manager",
    "ray::ProxyActor": "proxy",
}


def process_names(root: int, known: dict[int, str]) -> dict[int, str]:
    """What each process of a tree does: its own name if it has one, else what Ray calls it."""
    names = dict.fromkeys(tree(root) - {root}, "ray")
    for pid in names:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        program = command.split("\0")[0]
        title = ":".join(program.split(":")[:3]).split(".")[0]
        names[pid] = "haproxy" if Path(program).name == "haproxy" else _TITLES.get(title, "ray")
    return names | known


# --- measuring ---------------------------------------------------------------------------------


def _quiet(servers: list[Server], seconds: float) -> dict[str, dict[str, float]]:
    """Cores that each server's processes use while nobody asks for anything, by their role."""
    gateways = {server.name: server.gateway() for server in servers}
    trees = {name: tree(gateway.pid) for name, gateway in gateways.items()}
    before = {name: cpu_seconds(pids) for name, pids in trees.items()}
    start = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - start
    found: dict[str, dict[str, float]] = {}
    for name, gateway in gateways.items():
        rates = found[name] = {}
        for pid, used in cpu_seconds(trees[name]).items():
            role = gateway.role(pid)
            rates[role] = rates.get(role, 0.0) + (used - before[name].get(pid, used)) / passed
    return found


def _net(run: Run, idle: dict[str, float]) -> Measured:
    """Take what the tree uses anyhow off what it used, for the time of the run."""
    each = 1e6 / run.requests_per_second  # of idling, per request and core
    parts = {role: used - idle.get(role, 0.0) * each for role, used in run.by_process_us.items()}
    net = msgspec.structs.replace(run, cpu_us=sum(parts.values()), by_process_us=parts)
    return Measured(net, run.cpu_us, 100 * sum(idle.values()))


def _measured(server: Server, connections: int, seconds: float) -> Run:
    return measure(
        server.name,
        server.gateway(),
        "http",
        server.workload,
        connections=connections,
        seconds=seconds,
    )


def insist_on_haproxy(server: str, used: dict[str, float]) -> None:
    """Raise if Serve was not at its best: HAProxy falls back to Python without the replica.

    Args:
        server: its name.
        used: CPU time by what a process does.

    Raises:
        BadAnswers: More than a trifle of it is the Python proxy's.
    """
    if "haproxy" not in used or used.get("proxy", 0.0) > FALLBACK_SHARE * sum(used.values()):
        raise BadAnswers(f"{server} did not answer through HAProxy alone: {used}")


def compare(options: argparse.Namespace, say: Callable[[str], None]) -> list[list[Measured]]:
    """Run all servers by turns; one list a round.

    Raises:
        BadAnswers: A server answered wrongly, or Serve in another way than it was set up for.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        workload = build(options.payload, folder)
        servers = [
            *(stack.enter_context(_sluice(one, workload, folder)) for one in ("local", "ray")),
            *(stack.enter_context(_serve(one, workload, folder)) for one in options.peers),
        ]
        for server in servers:  # caches, branch predictors, lazy imports
            _measured(server, options.connections, 1)
        time.sleep(SETTLE_SECONDS)
        say(HEADER)
        rounds: list[list[Measured]] = []
        for number in range(1, options.rounds + 1):
            idle = _quiet(servers, options.seconds)
            rounds.append([])
            # There and back, so that a machine which gets slower favours nobody.
            for server in servers if number % 2 else servers[::-1]:
                run = _measured(server, options.connections, options.seconds)
                if server.name in ("best", "guide"):
                    insist_on_haproxy(server.name, run.by_process_us)
                rounds[-1].append(_net(run, idle[server.name]))
                say(_row(number, rounds[-1][-1]))
        return rounds


# --- reporting ---------------------------------------------------------------------------------


HEADER: Final = (
    f"{'round':5}  {'server':8}{'CPU µs/request':>14}  {'idle %':>6}  {'requests/s':>10}"
    f"  {'p50 µs':>7}  {'p99 µs':>7}  CPU µs by process"
)


def _row(number: int, measured: Measured) -> str:
    """One line under `HEADER`."""
    run = measured.run
    parts = ", ".join(f"{role} {used:.1f}" for role, used in sorted(run.by_process_us.items()))
    return (
        f"{number:5}  {run.server:8}{run.cpu_us:14.1f}  {measured.idle_percent:6.1f}"
        f"  {run.requests_per_second:10,.0f}  {run.p50_us:7.0f}  {run.p99_us:7.0f}  {parts}"
    )


SERVERS: Final[tuple[str, ...]] = ("local", "ray", "best", "guide", "default")
RATIOS: Final = {
    "ray / local": ("ray", "local", "aim: at most 1.05"),
    "best / ray": ("best", "ray", "aim: at least 5"),
    "guide / ray": ("guide", "ray", ""),
    "default / ray": ("default", "ray", "aim: at least 30"),
}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def summary(rounds: list[list[Measured]]) -> dict[str, dict[str, dict[str, float]]]:
    """Median, least and most over the rounds: of each server, and of ratios within a round."""
    by_name = [{one.run.server: one for one in each} for each in rounds]
    servers = {
        name: {
            "cpu_us": _spread([each[name].run.cpu_us for each in by_name]),
            "idle_percent": _spread([each[name].idle_percent for each in by_name]),
        }
        for name in SERVERS
        if name in by_name[0]
    }
    ratios = {
        what: _spread([each[over].run.cpu_us / each[under].run.cpu_us for each in by_name])
        for what, (over, under, _) in RATIOS.items()
        if {over, under} <= by_name[0].keys()
    }
    cpu = {name: found["cpu_us"] for name, found in servers.items()}
    idle = {name: found["idle_percent"] for name, found in servers.items()}
    return {"cpu_us": cpu, "idle_percent": idle, "ratios": ratios}


def _conclude(found: dict[str, dict[str, dict[str, float]]]) -> str:
    def spread(one: dict[str, float], digits: int) -> str:
        least, most = f"{one['least']:,.{digits}f}", f"{one['most']:,.{digits}f}"
        return f"{one['median']:9,.{digits}f}  {f'({least} to {most})':24}"

    lines = [f"{'server':14}{'CPU µs/request':35}{'idle, % of a core':35}"]
    lines += [
        f"{name:12}{spread(one, 1)}{spread(found['idle_percent'][name], 1)}".rstrip()
        for name, one in found["cpu_us"].items()
    ]
    lines += [
        f"{what:16}{spread(ratio, 2)} {RATIOS[what][2]}".rstrip()
        for what, ratio in found["ratios"].items()
    ]
    return "\n".join(lines)


# --- the command -------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (3)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="length of one run, and of a quiet interval (5)"
    )
    parser.add_argument("--connections", type=int, default=16, help="requests in flight (16)")
    parser.add_argument(
        "--payload", choices=sorted(PAYLOADS), default="1x30", help="what is asked (1x30)"
    )
    parser.add_argument(
        "--skip-default", action="store_true", help="leave out Ray Serve's default path"
    )
    parser.add_argument(
        "--with-guide", action="store_true", help="add Ray Serve as Ray's own guide sets it up"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    options = parser.parse_args()
    if min(options.seconds, options.rounds, options.connections) <= 0:
        parser.error("--seconds, --rounds and --connections must be above 0")
    chosen = {"best": True, "guide": options.with_guide, "default": not options.skip_default}
    options.peers = [kind for kind, wanted in chosen.items() if wanted]
    return options


def main() -> None:
    """Read the command line, measure, report."""
    options = _options()
    # Ended politely it cleans up; killed outright, its children see that and end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    report: dict[str, Any] = machine()
    try:
        report["packages"]["ray"] = require_ray()
        say(describe(report))
        say(
            f"payload {options.payload}, {options.connections} connections, closed loop,"
            f" {options.seconds:g} s a run, generator (bench_load.py) on the same machine"
        )
        rounds = compare(options, say)
    except (BadAnswers, EngineError) as error:
        sys.exit(str(error))
    found = summary(rounds)
    say(_conclude(found))
    if options.json:
        report |= {"rounds": msgspec.to_builtins(rounds), **found}
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
