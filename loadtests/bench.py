"""CPU per request: a bare server (the floor) against the gateway, alternating.

    python loadtests/bench.py                          # HTTP and gRPC, 1x30, three rounds
    python loadtests/bench.py --payload demo --json
    python loadtests/bench.py --payload join           # by key: two views read from the store
    python loadtests/bench.py --record                 # with the prediction log on the disk
    python loadtests/bench.py --startup                # time to the first answer, memory

The floor is the least a Python server can do: an `asyncio.Protocol` on uvloop, httptools,
orjson and one `session.run` per request (`bench_floor.py`). The gateway is `sluice up` with the
local engine. Both serve the same model file on one worker, both are asked the same JSON (the
gateway also over gRPC) by the same generator (`bench_load.py`, a process of its own), and in
every round one is measured right after the other. What counts is user and system time of
the server's whole process tree over requests answered: it repeats far better than latency,
which on a small machine also shows the generator's appetite.

Both listen on loopback only; everything started here ends with this process.
"""

import argparse
import asyncio
import base64
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bench_gateway
import bench_load
import msgspec
import uvloop
from bench_floor import Floor
from bench_gateway import Gateway
from bench_process import cpu_seconds, line, tree
from bench_report import HEADER, Run, describe, machine, ratios, row
from bench_workloads import DEMO, PAYLOADS, Workload, build, gateway_directory, open_session

PATIENCE_SECONDS: Final = 60.0


# --- the floor ---------------------------------------------------------------------------------


async def _serve_floor(artifact: Path) -> None:
    loop = asyncio.get_running_loop()
    session = open_session(artifact)
    server = await loop.create_server(lambda: Floor(session), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Standard input is a pipe from the benchmark: its end is ours.
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


@contextmanager
def floor(workload: Workload) -> Iterator[Gateway]:
    """The floor in a process of its own, described like a gateway."""
    command = [sys.executable, __file__, "--serve-floor", str(workload.artifact)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            port = int(_line(process))
            yield Gateway(process.pid, f"127.0.0.1:{port}", "", {process.pid: "worker"})
        finally:
            process.kill()


# --- measuring ---------------------------------------------------------------------------------


class BadAnswers(Exception):
    """A server that answers wrongly may be fast; its figures are not shown."""


def _line(process: subprocess.Popen[bytes]) -> bytes:
    """One line of a child's output. A child that says nothing for a minute is killed."""
    said = line(process, PATIENCE_SECONDS)
    if not said:
        sys.exit(f"a process of the benchmark ended early: {process.args!r}")
    return said


def measure(
    name: str,
    server: Gateway,
    protocol: str,
    workload: Workload,
    *,
    connections: int,
    seconds: float,
) -> Run:
    """Load a server for `seconds` and read its process tree's CPU time before and after.

    Raises:
        BadAnswers: An answer was no success or not the expected numbers, or there was none.
    """
    host, _, port = (server.http if protocol == "http" else server.grpc).rpartition(":")
    asked = workload.ready_made if name == "floor" else workload
    messages = asked.http if protocol == "http" else asked.grpc
    orders = bench_load.Orders(
        protocol=protocol,
        host=host,
        port=int(port),
        path=f"/v2/models/{workload.model}/infer",
        connections=connections,
        seconds=seconds,
        messages=[base64.b64encode(message).decode() for message in messages],
        expected=workload.expected,
    )
    with subprocess.Popen(
        [sys.executable, bench_load.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as generator:
        assert generator.stdin is not None
        try:
            generator.stdin.write(msgspec.json.encode(orders) + b"\n")
            generator.stdin.flush()
            _line(generator)
            pids = tree(server.pid)
            before = cpu_seconds(pids)
            generator.stdin.write(b"go\n")
            generator.stdin.flush()
            result = msgspec.json.decode(_line(generator), type=bench_load.Result)
            after = cpu_seconds(pids)
        finally:
            generator.kill()
    if result.p50_us is None or result.p99_us is None:
        raise BadAnswers(f"{name} {protocol}: nothing was answered in {seconds:g} s")
    if result.failed or not result.checked:
        raise BadAnswers(f"{name} {protocol}: {result.failed} bad answers: {result.problem}")
    used: dict[str, float] = {}
    busiest = 0.0
    for pid in after.keys() & before.keys():
        role = server.role(pid)
        own = (after[pid] - before[pid]) / result.requests * 1e6
        used[role] = used.get(role, 0.0) + own
        if role == "worker":
            busiest = max(busiest, own)
    return Run(
        server=name,
        protocol=protocol,
        requests=result.requests,
        cpu_us=sum(used.values()),
        by_process_us=used,
        requests_per_second=result.requests / result.seconds,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        busiest_us=busiest,
    )


def compare(options: argparse.Namespace, say: Any) -> list[list[Run]]:
    """Run floor and gateway by turns; one list a round, the floor first."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        workload = build(options.payload, folder)
        directory = gateway_directory(workload, folder / "gateway", record=options.record)
        body = workload.http[0]
        say(f"payload {workload.name}: {len(body)} bytes of JSON, {len(workload.grpc[0])} of gRPC")
        with (
            floor(workload) as bare,
            bench_gateway.running(
                directory,
                folder / "data",
                model=workload.model,
                body=body,
                workers=options.workers,
            ) as gateway,
        ):
            pairs = [("floor", bare, "http")]
            pairs += [("gateway", gateway, protocol) for protocol in options.protocol]
            for label, server, protocol in pairs:  # caches, branch predictors, lazy imports
                measure(
                    label, server, protocol, workload, connections=options.connections, seconds=1
                )
            say(HEADER)
            rounds = []
            for number in range(1, options.rounds + 1):
                rounds.append([])
                for label, server, protocol in pairs:
                    run = measure(
                        label,
                        server,
                        protocol,
                        workload,
                        connections=options.connections,
                        seconds=options.seconds,
                    )
                    rounds[-1].append(run)
                    say(row(number, run))
            return rounds


# --- the command -------------------------------------------------------------------------------


def _startup(options: argparse.Namespace, say: Any) -> dict[str, Any]:
    """Start the demo twice: on an empty data directory, then on the one that left."""
    body = (DEMO / "example-request-features.json").read_bytes()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        directory = bench_gateway.demo_directory(Path(name) / "demo")
        kinds = ["first start"] + [f"start {n}" for n in range(2, options.rounds + 1)]
        for kind in kinds:
            started = bench_gateway.measure_startup(
                directory, Path(name) / "data", model="employment", body=body
            )
            found[kind] = started._asdict()
            memory = ", ".join(f"{n} {mib:.0f}" for n, mib in started.resident_mib.items())
            say(f"{kind}: first answer after {started.seconds:.2f} s; resident MiB: {memory}")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run (5)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (3)")
    parser.add_argument("--connections", type=int, default=16, help="requests in flight (16)")
    parser.add_argument(
        "--protocol", default="http,grpc", help="what to ask the gateway over (http,grpc)"
    )
    parser.add_argument("--payload", choices=sorted(PAYLOADS), default="1x30")
    parser.add_argument("--workers", type=int, default=1, help="the gateway's workers (1)")
    parser.add_argument(
        "--record", action="store_true", help="write the prediction log (else it is in memory only)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    parser.add_argument("--startup", action="store_true", help="time to first answer, memory")
    parser.add_argument("--serve-floor", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.protocol = options.protocol.split(",")
    if unknown := set(options.protocol) - {"http", "grpc"}:
        parser.error(f"--protocol takes http and grpc, not {', '.join(unknown)}")
    if min(options.seconds, options.rounds, options.connections, options.workers) <= 0:
        parser.error("--seconds, --rounds, --connections and --workers must be above 0")
    return options


def main() -> None:
    """Read the command line and measure."""
    options = _options()
    if options.serve_floor:
        uvloop.run(_serve_floor(options.serve_floor))
        return
    # Ended politely it cleans up; killed outright, its children see that and end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _bench(options)
    except BadAnswers as error:
        sys.exit(str(error))


def _bench(options: argparse.Namespace) -> None:

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    report: dict[str, Any] = machine()
    say(describe(report))
    if options.startup:
        report["startup"] = _startup(options, say)
    else:
        say(
            f"{options.connections} connections, closed loop, {options.seconds:g} s a run,"
            " generator (bench_load.py) on the same machine"
        )
        rounds = compare(options, say)
        report["rounds"] = msgspec.to_builtins(rounds)
        report["ratios"] = ratios(rounds)
        for what, ratio in report["ratios"].items():
            say(
                f"gateway {what} / floor: {ratio['median']:.2f}"
                f"  ({ratio['least']:.2f} to {ratio['most']:.2f})"
            )
    if options.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
