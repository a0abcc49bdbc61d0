"""Measuring one server: its processes' CPU and memory while the generator asks it."""

import base64
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import compare_load
import msgspec
import orjson
from bench import PATIENCE_SECONDS, BadAnswers
from bench_process import cpu_seconds, line, proportional_bytes, resident_bytes, tree
from bench_workloads import Workload
from compare_figures import AtRate, Sample, Settings
from compare_load import Orders, Phase, Result
from compare_servers import Row, Started

from serving.protocol._generated import inference_pb2 as pb

__all__ = [
    "binary_message",
    "floor_cpu_us",
    "generator",
    "idle_cores",
    "measure",
    "net_us",
    "orders",
]

WARM_SECONDS: Final = 0.5
QUIET_SECONDS: Final = 1.0
SPARE: Final = 0.7
"""A rate is asked for only below this part of what closed loop reached: above it a queue grows,
and its length is all that would be measured."""


def binary_message(message: bytes) -> tuple[bytes, int]:
    """A serialised `ModelInferRequest` with raw contents, as HTTP with binary tensors.

    Returns:
        The body, and how many bytes of it are JSON. The answer is asked for in binary.
    """
    request = pb.ModelInferRequest.FromString(message)
    raws = list(request.raw_input_contents)
    document = {
        "inputs": [
            {
                "name": one.name,
                "datatype": one.datatype,
                "shape": list(one.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
            for one, raw in zip(request.inputs, raws, strict=True)
        ],
        "parameters": {"binary_data_output": True},
    }
    head = orjson.dumps(document)
    return b"".join([head, *raws]), len(head)


def orders(protocol: str, started: Started, workload: Workload) -> Orders:
    """What the generator is to ask a server over `protocol`."""
    lengths: list[int] = []
    messages = workload.grpc if protocol == "grpc" else workload.http
    if protocol == "binary":
        messages, lengths = zip(*map(binary_message, workload.grpc), strict=True)  # type: ignore[assignment]
    host, _, port = (started.grpc if protocol == "grpc" else started.http).rpartition(":")
    return Orders(
        protocol=protocol,
        host=host,
        port=int(port),
        path=f"/v2/models/{workload.model}/infer",
        connections=0,
        seconds=0.0,
        messages=[base64.b64encode(message).decode() for message in messages],
        expected=workload.expected,
        json_lengths=list(lengths),
    )


Run = Callable[[Phase], Result]


@contextmanager
def generator(asked: Orders) -> Iterator[Run]:
    """A generator process; what is yielded runs a phase. Raises BadAnswers if that goes wrong."""
    with subprocess.Popen(
        [sys.executable, compare_load.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def answer() -> bytes:
            said = line(process, PATIENCE_SECONDS)
            if not said:
                raise BadAnswers("the load generator ended early")
            return said

        def run(phase: Phase) -> Result:
            tell(phase)
            result = msgspec.json.decode(answer(), type=Result)
            if result.failed or not result.checked:
                raise BadAnswers(f"{result.failed} bad answers: {result.problem or 'none at all'}")
            return result

        def tell(message: msgspec.Struct) -> None:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(message) + b"\n")
            process.stdin.flush()

        try:
            tell(asked)
            answer()
            yield run
        finally:
            process.kill()


# --- CPU ---------------------------------------------------------------------------------------


def _used(
    names: dict[int, str], before: dict[int, float], after: dict[int, float]
) -> dict[str, float]:
    """CPU seconds between two readings by what a process does; of those that are in both."""
    found: dict[str, float] = {}
    for pid in after.keys() & before.keys():
        name = names.get(pid, "server")
        found[name] = found.get(name, 0.0) + after[pid] - before[pid]
    return found


def idle_cores(started: Started, seconds: float = QUIET_SECONDS) -> dict[str, float]:
    """Cores that a server's processes use while nobody asks for anything, by what they do."""
    names, pids = started.names(), tree(started.pid)
    before, start = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - start
    used = _used(names, before, cpu_seconds(pids))
    return {name: own / passed for name, own in used.items()}


def net_us(
    used_seconds: dict[str, float], idle: dict[str, float], *, seconds: float, requests: int
) -> dict[str, float]:
    """CPU µs per request by what a process does, without what it uses anyhow in that time.

    Accounting ticks are 10 ms, so an idle process may seem to have used more than it did; nothing
    is below 0.
    """
    return {
        name: max(used - idle.get(name, 0.0) * seconds, 0.0) / requests * 1e6
        for name, used in used_seconds.items()
    }


def _closed(
    started: Started, run: Run, phase: Phase, idle: dict[str, float]
) -> tuple[Result, dict[str, float]]:
    """Run a phase; with it, net CPU µs per request by what a process does."""
    names, pids = started.names(), tree(started.pid)
    before = cpu_seconds(pids)
    result = run(phase)
    used = _used(names, before, cpu_seconds(pids))
    return result, net_us(used, idle, seconds=result.seconds, requests=result.requests)


def floor_cpu_us(floor: Started, workload: Workload, settings: Settings) -> float:
    """CPU per request of the floor, now: asked for the same, or for rows made ready."""
    with generator(orders("http", floor, workload.ready_made)) as run:
        run(Phase(WARM_SECONDS / 2, settings.connections))
        phase = Phase(settings.seconds, settings.connections)
        return sum(_closed(floor, run, phase, {})[1].values())


def measure(
    number: int,
    row: Row,
    started: Started,
    workload: Workload,
    settings: Settings,
    *,
    floor_us: float,
    idle: dict[str, float],
) -> Sample:
    """One row in round `number`: warm up, closed loop, one connection, and each rate it can take.

    Raises:
        BadAnswers: An answer was no success or not the expected numbers.
    """
    with generator(orders(row.protocol, started, workload)) as run:
        run(Phase(WARM_SECONDS, settings.connections))
        phase = Phase(settings.seconds, settings.connections)
        result, parts = _closed(started, run, phase, idle)
        alone = run(Phase(settings.seconds, 1))
        reached = result.requests / result.seconds
        rates = [
            _at_rate(rate, run(Phase(settings.seconds, rate=rate)))
            for rate in settings.rates
            if rate <= SPARE * reached
        ]
    pids = tree(started.pid)
    return Sample(
        round=number,
        cpu_us=sum(parts.values()),
        floor_us=floor_us,
        idle_percent=100 * sum(idle.values()),
        parts_us=parts,
        requests=result.requests,
        requests_per_second=reached,
        p50_us=_us(result.p50),
        p99_us=_us(result.p99),
        alone_p50_us=_us(alone.p50),
        rates=rates,
        pss_mib=sum(map(proportional_bytes, pids)) / 2**20,
        rss_mib=sum(map(resident_bytes, pids)) / 2**20,
        start_seconds=started.seconds,
    )


def _at_rate(rate: float, result: Result) -> AtRate:
    return AtRate(
        rate=rate, p50_us=_us(result.p50), p99_us=_us(result.p99), late_us=1e6 * result.late
    )


def _us(seconds: float | None) -> float:
    if seconds is None:
        raise BadAnswers("nothing was answered")
    return round(1e6 * seconds, 1)
