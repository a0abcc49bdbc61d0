"""CPU per request of a version in the worker against one in a process of its own, alternating.

    python loadtests/bench_hop.py                      # 1x30, three rounds
    python loadtests/bench_hop.py --payload demo --connections 1 --json

Two gateways with the local engine serve the same model file with one worker each: one with
`placement: inline`, one with `placement: dedicated` and one host, reached over a Unix socket. Both
are asked the same JSON over HTTP by the same generator. The hop is the difference of their
workers' and hosts' CPU time per request, in the same round.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_gateway
import msgspec
import yaml
from bench import measure
from bench_report import HEADER, describe, machine, row
from bench_workloads import PAYLOADS, build, gateway_directory


def _answering(parts: dict[str, float]) -> float:
    """CPU of the processes that answer; control and store idle beside them."""
    return parts.get("worker", 0.0) + parts.get("host", 0.0)


def compare(options: argparse.Namespace, say: Any) -> dict[str, Any]:
    """Measure both by turns; the figures of every round, and the hop."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        workload = build(options.payload, folder)
        inline = gateway_directory(workload, folder / "inline")
        dedicated = gateway_directory(workload, folder / "dedicated")
        file = dedicated / "models" / "bench.yaml"
        model = yaml.safe_load(file.read_text())
        model["serve"]["placement"] = "dedicated"
        file.write_text(yaml.safe_dump(model))
        asked = {"model": workload.model, "body": workload.http[0], "workers": 1}
        with (
            bench_gateway.running(inline, folder / "inline-data", **asked) as near,
            bench_gateway.running(dedicated, folder / "dedicated-data", **asked) as far,
        ):
            pairs = [("inline", near), ("hosted", far)]
            how: dict[str, Any] = {"connections": options.connections}
            for label, server in pairs:  # caches, branch predictors, lazy imports
                measure(label, server, "http", workload, seconds=1, **how)
            say(HEADER)
            rounds = []
            for number in range(1, options.rounds + 1):
                runs = [
                    measure(label, server, "http", workload, seconds=options.seconds, **how)
                    for label, server in pairs
                ]
                rounds.append(runs)
                for run in runs:
                    say(row(number, run))
    hops = [
        _answering(there.by_process_us) - _answering(here.by_process_us) for here, there in rounds
    ]
    say(f"the hop: {statistics.median(hops):.0f} µs ({min(hops):.0f} to {max(hops):.0f})")
    return {"rounds": msgspec.to_builtins(rounds), "hop_us": hops}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run (5)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (3)")
    parser.add_argument("--connections", type=int, default=16, help="requests in flight (16)")
    parser.add_argument("--payload", choices=sorted(PAYLOADS), default="1x30")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    options = parser.parse_args()
    if min(options.seconds, options.rounds, options.connections) <= 0:
        parser.error("--seconds, --rounds and --connections must be above 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    about = machine()
    say(describe(about))
    found = compare(options, say)
    if options.json:
        print(json.dumps(about | found, indent=2))


if __name__ == "__main__":
    main()
