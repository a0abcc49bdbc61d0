"""Handmade results of load tests, counted as the generator counts them."""

import random

from serving.config.units import Seconds
from serving.loadtest.report.document import Document, document
from serving.loadtest.results import (
    Counts,
    GeneratorCheck,
    KindCounts,
    PhaseResult,
    Result,
    SecondResult,
)
from serving.loadtest.scenario import Bounds, Slo
from serving.loadtest.slo import judge

__all__ = ["HOSTILE", "SLOS", "counts", "report", "result"]

HOSTILE = "<script>alert('&\"')</script>\x00]]>"
SLOS = [
    Slo(p50=Seconds(0.02), p999=Seconds(0.004), error_rate=0.05, goodput=0.9),
    Slo(phase="spike", p99=Seconds(0.2), versions={"v1": Bounds(at_least=0.5)}),
]


def counts(
    requests: int,
    *,
    seed: int = 0,
    slow: float = 1.0,
    failed: int = 0,
    version: str = "employment:v1",
    status: str = "503",
    problem: str = "the queue is full",
) -> Counts:
    """So many requests of a few milliseconds each, `failed` of them refused."""
    chance = random.Random(seed)
    found = Counts(
        scheduled=requests,
        sent=requests,
        answered=requests,
        ok=requests - failed,
        good=requests - failed,
        statuses={"200": requests - failed} | ({status: failed} if failed else {}),
        problems={status: problem} if failed else {},
        versions={version: requests - failed},
        roles={"production": requests - failed},
        feature_status={"OK": requests - failed},
        with_features=requests - failed,
        bytes_sent=300 * requests,
        bytes_received=400 * requests,
    )
    for _ in range(requests - failed):
        found.latency.add(slow * chance.lognormvariate(-6.2, 0.6))
    for _ in range(failed):
        found.rejected.add(0.001)
    return found


def result(
    *,
    seconds: int = 30,
    rate: int = 40,
    name: str = "steady",
    phases: tuple[str, str] = ("steady", "spike"),
    late: float = 0.0005,
    **more: str,
) -> Result:
    """A run of two halves, the second twice as busy, slower and with failures; 3 s of warm-up."""
    half = seconds // 2
    rows = [
        SecondResult(
            second=second,
            phase=phases[second >= half],
            warmup=second < 3,
            counts=counts(rate, seed=second, **more)  # type: ignore[arg-type]
            if second < half
            else counts(2 * rate, seed=second, slow=6.0, failed=3, **more),  # type: ignore[arg-type]
        )
        for second in range(seconds)
    ]
    parts = []
    for at, phase in enumerate(phases):
        whole = Counts()
        for row in rows:
            if row.phase == phase and not row.warmup:
                whole.merge(row.counts)
        parts.append(PhaseResult(name=phase, seconds=half - 3 * (at == 0), counts=whole))
    whole = Counts()
    generator = GeneratorCheck(cpu_share=0.21, most_in_flight=9)
    for part in parts:
        whole.merge(part.counts)
    generator.lag.add(0.0001, 99 * seconds)
    generator.lag.add(late, 2 * seconds)
    generator.waits.add(0.002, 7)
    return Result(
        scenario=name,
        target="http://127.0.0.1:8000",
        protocol="http json",
        started=1_790_000_000.0,
        seconds=float(seconds),
        seed=7,
        connections=16,
        deadline=0.1,
        phases=parts,
        whole=whole,
        whole_seconds=seconds - 3.0,
        per_second=rows,
        kinds=[KindCounts(name="one row", counts=whole), KindCounts(name="batch", counts=Counts())],
        generator=generator,
        labels={"commit": "3f2a91c"},
        versions={"sluice": "0.1.0", "python": "3.11.9"},
    )


def report(one: Result | None = None, slos: list[Slo] | None = None) -> Document:
    """The document of a run and its verdict."""
    one = one or result()
    return document(
        one,
        judge(one, SLOS if slos is None else slos),
        machine={"cpu": "a processor", "cores": "2"},
        command="sluice loadtest steady.yaml",
    )
