"""Goodput against offered load: what a server still answers in time when too much is asked of it.

    python loadtests/overload.py                                  # Sluice, about a minute
    python loadtests/overload.py --server all --save found.json   # and three peers, five minutes
    python loadtests/overload.py --server uvicorn --save found.json    # adds to what is there
    python loadtests/overload.py --render found.json --docs docs/overload.md

For each server: an open loop of random arrivals at 0.5 to 4 times what it can do, whatever has
become of the requests before; then a spike of 4 times from half load, and how long after its end
the server is itself again. What it can do is measured right before and after each load (closed
loop, 16 connections), since on a shared machine it changes. A request is good if it is answered
with success within the deadline, counted from when it was to be sent. A client gives up after
`--patience` and hangs up.

    sluice       `sluice up --engine local --workers 1`
    uvicorn      a bare ASGI application, the model inside (uvicorn_peer.py)
    ray-best     Ray Serve with all that lowers its cost (ray_serve_peer.py)
    ray-default  Ray Serve when no switch is set

Each has one process that runs the model, and is loaded in multiples of its own capacity. The model
takes one row a run and 2.5 ms for it, so that on two cores the model is what is short: the
generator needs less than half of the other core at 4 times. It says how late it was, and a point at
which it was late by more than 20 ms is void.

Everything listens on loopback only, on free ports; everything started here ends with this process.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from bench import BadAnswers, measure
from bench_gateway import Gateway
from bench_report import describe, machine
from bench_workloads import Workload
from compare_servers import DidNotStart, Started
from overload_points import Server, offered, point, recovery, spike
from overload_report import Found, lines, page, picture, summary
from overload_servers import SERVERS, slow_workload

from serving.config.units import Seconds
from serving.loadtest.results import Result
from serving.loadtest.runner import run
from serving.loadtest.scenario import Scenario

FACTORS: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
SPIKE: Final = 4.0
SPIKE_SECONDS: Final = 3.0
CONNECTIONS: Final = 1000
"""Below the 1,024 requests that Sluice takes at once, so that its deadline and not that sheds. No
more than can be in use: one on which nothing comes for some seconds is closed, by any server."""

SPARE_CONNECTIONS: Final = 32

CAPACITY_CONNECTIONS: Final = 16
CAPACITY_SECONDS: Final = 1.5
NEARLY: Final = 0.75
QUIET_SECONDS: Final = 20.0
"""Most to wait for a server to come to itself between two loads."""


class Bench:
    """One server under one workload."""

    def __init__(
        self,
        name: str,
        started: Started,
        workload: Workload,
        folder: Path,
        options: argparse.Namespace,
    ) -> None:
        self._name = name
        self._started = started
        self._workload = workload
        self._folder = folder
        self._options = options
        self._first = 0.0
        self._limits: dict[str, Any] = {
            "deadline": Seconds(options.deadline_ms / 1e3),
            "timeout": Seconds(options.patience),
            "seed": options.seed,
        }
        self._bodies = [f"body-{number}.json" for number in range(len(workload.http))]
        for file, body in zip(self._bodies, workload.http, strict=True):
            (folder / file).write_bytes(body)

    def all(self, say: Any) -> Server:
        """Every load, the spike."""
        address, model = self._started.http, self._workload.model
        say(f"\n{self._name}")
        found = Server(name=self._name, points=[])
        self._capacity()  # caches, lazy imports
        self._first = 0.0
        before = self._capacity()
        for factor in self._options.factors:
            scenario = offered(
                address,
                model,
                self._bodies,
                rate=factor * before,
                seconds=self._options.seconds,
                limits=self._limits_at(factor * before),
            )
            result = self._ran(scenario)
            after = self._capacity()
            found.points.append(point(result, factor, (before + after) / 2))
            say("\n".join(lines(found)[-1 if len(found.points) > 1 else 0 :]))
            before = after
        scenario = spike(
            address,
            model,
            self._bodies,
            capacity=before,
            factor=SPIKE,
            seconds=SPIKE_SECONDS,
            limits=self._limits_at(SPIKE * before),
        )
        return msgspec.structs.replace(found, recovery=recovery(self._ran(scenario), SPIKE))

    def _limits_at(self, rate: float) -> dict[str, Any]:
        """With as many connections as clients wait at most, if nobody is answered."""
        waiting = int(rate * self._options.patience * 1.25)
        return {**self._limits, "connections": min(waiting + SPARE_CONNECTIONS, CONNECTIONS)}

    def _ran(self, scenario: Scenario) -> Result:
        return asyncio.run(run(scenario, self._folder))

    def _capacity(self) -> float:
        """Requests a second with 16 in flight, once the load before is done with.

        A server still works on what its clients have given up. So it has twenty seconds to come
        back to nearly what it could do at first; then what it can do counts.
        """
        give_up = time.monotonic() + QUIET_SECONDS
        while True:
            start = time.monotonic()
            try:
                found = measure(
                    self._name,
                    Gateway(self._started.pid, self._started.http, "", {}),
                    "http",
                    self._workload,
                    connections=CAPACITY_CONNECTIONS,
                    seconds=CAPACITY_SECONDS,
                ).requests_per_second
            except BadAnswers as error:
                if start > give_up:
                    text = f"it has not come to itself in {QUIET_SECONDS:.0f} s: {error}"
                    raise BadAnswers(text) from error
            else:
                self._first = self._first or found
                if found >= NEARLY * self._first or start > give_up:
                    return found


def _measured(options: argparse.Namespace, say: Any) -> tuple[Found, list[str]]:
    """Measure the servers asked for; also say of which there are no figures, and why."""
    missing = []
    found = Found(about=machine(), run_ms=options.run_ms, deadline_ms=options.deadline_ms)
    with tempfile.TemporaryDirectory(prefix="sluice-overload-") as name:
        workload = slow_workload(Path(name), options.run_ms / 1e3)
        for server in options.server:
            folder = Path(name) / server
            folder.mkdir()
            try:
                with SERVERS[server](workload, folder) as started:
                    found.servers.append(Bench(server, started, workload, folder, options).all(say))
            except (BadAnswers, DidNotStart) as error:
                missing.append(f"no figures of {server}: {error}")
                say(missing[-1])
                continue
            for text in summary(found.servers[-1]):
                say(text)
    return found, missing


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--server",
        default="sluice",
        help=f"which, by comma: {', '.join(SERVERS)}, or all (sluice)",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="counted at each load (4)")
    parser.add_argument("--run-ms", type=float, default=2.5, help="what a run takes (2.5)")
    parser.add_argument("--deadline-ms", type=float, default=100.0, help="of a request (100)")
    parser.add_argument("--patience", type=float, default=0.5, help="seconds, of a client (0.5)")
    parser.add_argument(
        "--factors", help="loads by comma, in capacities; none for the spike alone (0.5 to 4)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (1)")
    parser.add_argument("--save", type=Path, help="add the figures to this JSON file")
    parser.add_argument("--render", type=Path, help="measure nothing; take this file's figures")
    parser.add_argument("--docs", type=Path, help="write them between the marks of this page")
    options = parser.parse_args()
    options.server = list(SERVERS) if options.server == "all" else options.server.split(",")
    if unknown := set(options.server) - set(SERVERS):
        parser.error(f"--server takes {', '.join(SERVERS)}, all; not {', '.join(unknown)}")
    if options.factors == "none":
        options.factors = []
    else:
        options.factors = (
            [float(one) for one in options.factors.split(",")] if options.factors else FACTORS
        )
    return options


def main() -> None:
    """Read the command line and measure."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missing: list[str] = []
    if options.render:
        found = msgspec.json.decode(options.render.read_bytes(), type=Found)
    else:
        print(describe(machine()), flush=True)
        found, missing = _measured(options, lambda text: print(text, flush=True))
        if options.save:
            if options.save.exists():
                before = msgspec.json.decode(options.save.read_bytes(), type=Found)
                found = before.joined(found)
            options.save.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if options.docs:
        options.docs.write_text(page(options.docs.read_text(), found))
        options.docs.with_suffix(".svg").write_text(picture(found.servers))
    if missing:
        sys.exit("\n".join(missing))


if __name__ == "__main__":
    main()
