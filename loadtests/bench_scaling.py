"""What a second worker is worth: requests that N workers could answer, over those that one could.

    python loadtests/bench_scaling.py                  # two workers against one, HTTP, three rounds
    python loadtests/bench_scaling.py --protocol grpc --workers 4 --json

Two gateways serve the same model, one with one worker, and are loaded by turns by the generator
of `bench.py`. It runs on the same machine, so throughput would say how cores are shared between
server and generator. What is compared is CPU time: if every worker had a core of its own, the
busiest one would be the first to have none left, so N workers can answer 1 / (CPU time of the
busiest per request) requests a second. The ratio of that with N and with one is the scaling; N
would be perfect, and what falls short is imbalance and whatever a request costs more where
workers share caches, counters and a store.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final

import bench_gateway
from bench import measure
from bench_report import HEADER, Run, describe, machine, row
from bench_workloads import build, gateway_directory

__all__ = ["scaling"]

_WARM_UP_SECONDS: Final = 1.0


def scaling(alone: Run, together: Run) -> float:
    """Requests that many workers could answer over those that one could; see above."""
    return alone.busiest_us / together.busiest_us


def compare(options: argparse.Namespace, say: Any) -> list[tuple[Run, Run]]:
    """Load both gateways by turns; one pair a round, one worker first."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        workload = build("1x30", folder)

        def gateway(workers: int) -> Any:
            place = folder / str(workers)
            return bench_gateway.running(
                gateway_directory(workload, place / "gateway"),
                place / "data",
                model=workload.model,
                body=workload.http[0],
                workers=workers,
            )

        with gateway(1) as one, gateway(options.workers) as many:
            servers = [("1", one), (str(options.workers), many)]
            rounds = []
            say(HEADER)
            for number in range(options.rounds + 1):
                runs = [
                    measure(
                        label,
                        server,
                        options.protocol,
                        workload,
                        connections=options.connections,
                        seconds=options.seconds if number else _WARM_UP_SECONDS,
                    )
                    for label, server in servers
                ]
                if number:
                    for run in runs:
                        say(row(number, run))
                    rounds.append((runs[0], runs[1]))
            return rounds


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="against one (2)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run (5)")
    parser.add_argument("--connections", type=int, default=32, help="requests in flight (32)")
    parser.add_argument("--protocol", choices=["http", "grpc"], default="http")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    options = parser.parse_args()
    if min(options.rounds, options.seconds, options.connections) <= 0 or options.workers < 2:
        parser.error("--workers is at least 2, everything else above 0")

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    about = machine()
    say(describe(about))
    found = [scaling(*pair) for pair in compare(options, say)]
    middle = statistics.median(found)
    say(
        f"{options.workers} workers / 1, CPU-normalised: {middle:.2f}"
        f"  ({min(found):.2f} to {max(found):.2f})"
    )
    if options.json:
        spread = {"median": middle, "least": min(found), "most": max(found)}
        print(json.dumps({**about, "workers": options.workers, "scaling": spread}))


if __name__ == "__main__":
    main()
