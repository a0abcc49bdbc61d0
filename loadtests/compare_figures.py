"""The comparison's figures: what each round measured, and what follows from all of them. Pure."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

__all__ = [
    "AIMS",
    "Aim",
    "AtRate",
    "Report",
    "RowReport",
    "Sample",
    "Settings",
    "Spread",
    "Verdict",
    "failed",
    "over_floor",
    "spread",
    "verdicts",
]


class AtRate(msgspec.Struct, kw_only=True):
    """An open loop at `rate` requests a second; times in µs from when each request was due.

    `late_us` is how late the generator let the 99th percentile leave: what it costs is in the
    latency.
    """

    rate: float
    p50_us: float
    p99_us: float
    late_us: float


class Sample(msgspec.Struct, kw_only=True):
    """One row in one round.

    `cpu_us` is the whole tree's CPU per request, without what it uses when idle, which
    `idle_percent` of a core is; `parts_us` are its processes'. `floor_us` is what the floor used
    right before. `alone_p50_us` is the median at one connection.
    """

    round: int
    cpu_us: float
    floor_us: float
    idle_percent: float
    parts_us: dict[str, float]
    requests: int
    requests_per_second: float
    p50_us: float
    p99_us: float
    alone_p50_us: float
    rates: list[AtRate]
    pss_mib: float
    rss_mib: float
    start_seconds: float


class RowReport(msgspec.Struct, kw_only=True):
    """A row of the tables: its samples, or the trouble why it has none.

    `title` is that of the row, `server` that of its server, which may have several.
    """

    name: str
    title: str
    server: str
    group: str
    protocol: str
    payload: str
    samples: list[Sample]
    trouble: str = ""


class Settings(msgspec.Struct, kw_only=True):
    """How it was measured. `features` is the payload of rows with features."""

    rounds: int
    seconds: float
    connections: int
    rates: list[float]
    features: str


class Report(msgspec.Struct, kw_only=True):
    """A whole comparison. `about` is `bench_report.machine()`; `command` what was typed."""

    command: str
    about: dict[str, Any]
    versions: list[str]
    settings: Settings
    took_seconds: float
    rows: list[RowReport]


class Spread(msgspec.Struct):
    """Over the rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def over_floor(row: RowReport) -> Spread:
    """CPU per request over that of the floor which was measured right before it."""
    return spread([sample.cpu_us / sample.floor_us for sample in row.samples])


def failed(report: Report) -> bool:
    """Whether a row went wrong; one whose server is not installed did not."""
    return any(row.trouble and not row.trouble.startswith("not installed") for row in report.rows)


# --- what was aimed at -------------------------------------------------------------------------


class Aim(msgspec.Struct, frozen=True):
    """A promise about one row: `value` of it and the floor's row is at most `limit`."""

    words: str
    row: str
    limit: float
    value: Callable[[RowReport, RowReport], Spread | None]


class Verdict(msgspec.Struct):
    """What became of an aim. `found` is None where it was not measured."""

    words: str
    limit: float
    found: Spread | None

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the limit."""
        return None if self.found is None else self.found.median <= self.limit


def _by_round(
    row: RowReport, other: RowReport, figure: Callable[[Sample], float | None]
) -> Spread | None:
    """A figure of one row over that of another in the same round; None if no round has both."""
    others = {sample.round: figure(sample) for sample in other.samples}
    found = [
        own / under
        for sample in row.samples
        if (own := figure(sample)) and (under := others.get(sample.round))
    ]
    return spread(found) if found else None


def _cpu(row: RowReport, _floor: RowReport) -> Spread | None:
    return over_floor(row) if row.samples else None


def _alone(row: RowReport, floor: RowReport) -> Spread | None:
    return _by_round(row, floor, lambda sample: sample.alone_p50_us)


def _p99_at_1000(row: RowReport, floor: RowReport) -> Spread | None:
    return _by_round(
        row, floor, lambda one: next((at.p99_us for at in one.rates if at.rate == 1000), None)
    )


AIMS: Final = (
    Aim("CPU per request, HTTP JSON with record, over the floor's",
        "sluice-json-record", 1.5, _cpu),
    Aim(
        "CPU per request, HTTP JSON with features and record, over the floor's",
        "sluice-json-features", 1.8, _cpu,
    ),
    Aim("CPU per request, gRPC with record, over the floor's", "sluice-grpc-record", 2.2, _cpu),
    Aim("p50 at one connection, HTTP JSON with record, over the floor's",
        "sluice-json-record", 1.5, _alone),
    Aim("p99 at 1,000 requests/s, HTTP JSON with record, over the floor's",
        "sluice-json-record", 2.0, _p99_at_1000),
)  # fmt: skip

FULLEST: Final = "CPU per request, HTTP JSON with features and record"
OURS: Final = ("floor", "sluice")
FRAMEWORKS: Final = ("uvicorn",)


def verdicts(report: Report) -> list[Verdict]:
    """Each aim and what was found."""
    rows = {row.name: row for row in report.rows}
    floor = rows.get("floor")
    found = [
        Verdict(aim.words, aim.limit, aim.value(row, floor) if row and floor else None)
        for aim in AIMS
        for row in (rows.get(aim.row),)
    ]
    return [*found, _against(report, OURS), _against(report, (*OURS, *FRAMEWORKS))]


def _against(report: Report, left_out: Sequence[str]) -> Verdict:
    """CPU of the fullest row over that of the cheapest row of other groups, in the same round."""
    full = next((row for row in report.rows if row.name == "sluice-json-features"), None)
    peers = [row for row in report.rows if row.group not in left_out and row.samples]
    kind = "serving system" if set(FRAMEWORKS) <= set(left_out) else "other server"
    if full is None or not full.samples or not peers:
        return Verdict(f"{FULLEST}, over the cheapest {kind}'s with neither", 1.0, None)
    cheapest = min(peers, key=lambda row: over_floor(row).median)
    words = f"{FULLEST}, over the cheapest {kind}'s with neither ({cheapest.title})"
    return Verdict(words, 1.0, _by_round(full, cheapest, lambda sample: sample.cpu_us))
