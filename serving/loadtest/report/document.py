"""A run and its verdict as one JSON document. Pure.

The keys stay: fields are added, none is renamed or given another meaning without a new
`schema_version`. Times are seconds, shares go from 0 to 1, null is what was not measured. The page
and the JUnit file are drawn from this document, so both can be made again from the JSON.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from serving.loadtest.checks import Check
from serving.loadtest.histogram import Histogram
from serving.loadtest.results import Against, Counts, Result, SecondResult
from serving.loadtest.slo import Verdict

__all__ = [
    "QUANTILES",
    "Document",
    "Figures",
    "Generator",
    "Latency",
    "Part",
    "Slice",
    "document",
    "figures",
    "from_json",
    "to_json",
]

_MOST_SLICES: Final = 600
"""Points on the axis of time; a longer run has slices of several seconds."""

QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))

_MOST_POINTS: Final = 4000


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles in seconds, within 0.4 %; null without values."""

    count: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = msgspec.field(name="p99.9", default=None)
    max: float | None = None
    intervals: dict[str, tuple[float | None, float | None]] = {}
    """By quantile: from where to where chance leaves it likely, with 95 % confidence; null where
    there are too few values for a bound."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What became of some requests."""

    scheduled: int
    """Requests that were to be sent; all others are parts of them."""

    sent: int
    """Left, or tried to."""

    unsent: int
    """Found no free connection until their time was over."""

    answered: int
    """Got an answer, whatever it said."""

    ok: int
    """Answered with success."""

    good: int
    """Answered with success within the deadline; `ok` where there is none."""

    failed: int
    """`scheduled` less `ok`."""

    error_rate: float | None
    """`failed` by `scheduled`."""

    goodput: float | None
    """`good` by `scheduled`; null without a deadline."""

    scheduled_per_second: float | None
    ok_per_second: float | None
    good_per_second: float | None
    statuses: dict[str, int]
    """By HTTP status, gRPC code, or `timeout`, `refused`, `closed`, `unreadable`."""

    problems: dict[str, str]
    """By status other than success: the words of the first."""

    versions: dict[str, int]
    """Successes by `model:version`."""

    roles: dict[str, int]
    """Successes by role of the version."""

    feature_status: dict[str, int]
    """Successes by word of `feature_status`; one may have several."""

    with_features: int
    """Successes that had a `feature_status`."""

    bytes_sent: int
    bytes_received: int
    latency: Latency
    """From when a request was to be sent: successes, and requests without an answer."""

    rejected: Latency
    """The same of answers with an error."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A phase, or a kind of request."""

    name: str
    seconds: float
    warmup: bool = False
    """Counts for no SLO."""

    figures: Figures


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that were to be sent in a short time."""

    start: float
    """Seconds from the start of the run."""

    seconds: float
    phase: str
    warmup: bool
    scheduled: int
    ok: int
    failed: int
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """How the generator kept its own schedule."""

    processes: int
    cpu_share: float
    """Of the busiest process; 1.0 is a whole core."""

    most_in_flight: int
    max_lag: float
    """Seconds that the 99th percentile of `lag` may be."""

    lag: Latency
    """How late requests were handed to a free connection."""

    waits: Latency
    """How long requests that had to waited for a free connection."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report."""

    schema_version: Literal[1] = 1
    scenario: str
    outcome: Literal["met", "missed", "invalid"]
    invalid: list[str]
    """Why nothing can be concluded; empty for a valid run."""

    slos: list[Check]
    target: str
    protocol: str
    started: str
    """UTC, ISO 8601."""

    seconds: float
    seed: int
    connections: int
    deadline: float | None
    interrupted: bool
    whole: Part
    """All but warm-up."""

    phases: list[Part]
    kinds: list[Part]
    slices: list[Slice]
    histogram: list[tuple[float, int]]
    """Of `whole.figures.latency`: (seconds, requests), ascending."""

    generator: Generator
    against: Against | None = None
    """The run before that `--against` named, and this one beside it."""

    labels: dict[str, str]
    versions: dict[str, str]
    """Of the programs that measured."""

    machine: dict[str, str]
    """Where the generator ran."""

    command: str
    """What made it; empty if that is not known."""


def document(
    result: Result,
    verdict: Verdict,
    *,
    machine: Mapping[str, str] | None = None,
    command: str = "",
) -> Document:
    """Put a run and its verdict together."""
    of_all = result.deadline is not None
    generator = result.generator
    whole = Part(
        name="whole run",
        seconds=result.whole_seconds,
        figures=figures(result.whole, result.whole_seconds, deadline=of_all),
    )
    return Document(
        scenario=result.scenario,
        outcome=verdict.outcome,
        invalid=list(verdict.invalid),
        slos=list(verdict.checks),
        target=result.target,
        protocol=result.protocol,
        started=datetime.fromtimestamp(result.started, UTC).isoformat(timespec="seconds"),
        seconds=result.seconds,
        seed=result.seed,
        connections=result.connections,
        deadline=result.deadline,
        interrupted=result.interrupted,
        whole=whole,
        phases=[
            Part(
                name=one.name,
                seconds=one.seconds,
                warmup=one.warmup,
                figures=figures(one.counts, one.seconds, deadline=of_all),
            )
            for one in result.phases
        ],
        kinds=[
            Part(
                name=one.name,
                seconds=result.whole_seconds,
                figures=figures(one.counts, result.whole_seconds, deadline=of_all),
            )
            for one in result.kinds
        ],
        slices=_slices(result.per_second, result.seconds),
        histogram=_points(result.whole.latency),
        generator=Generator(
            processes=generator.processes,
            cpu_share=generator.cpu_share,
            most_in_flight=generator.most_in_flight,
            max_lag=generator.max_lag,
            lag=_latency(generator.lag),
            waits=_latency(generator.waits),
        ),
        against=result.against,
        labels={str(key): str(value) for key, value in result.labels.items()},
        versions=dict(result.versions),
        machine=dict(machine or {}),
        command=command,
    )


def to_json(report: Document) -> bytes:
    """The document as indented JSON, UTF-8, with a line feed at the end."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def from_json(content: bytes) -> Document:
    """Read a document; fields of newer versions are passed over.

    Raises:
        msgspec.ValidationError: it is none, or of another `schema_version`.
        msgspec.DecodeError: it is no JSON.
    """
    return msgspec.json.decode(content, type=Document)


def figures(counts: Counts, seconds: float, *, deadline: bool) -> Figures:
    """The figures of some requests that were to be sent in so many seconds."""
    scheduled = counts.scheduled
    return Figures(
        scheduled=scheduled,
        sent=counts.sent,
        unsent=counts.unsent,
        answered=counts.answered,
        ok=counts.ok,
        good=counts.good,
        failed=counts.failed,
        error_rate=counts.failed / scheduled if scheduled else None,
        goodput=counts.good / scheduled if scheduled and deadline else None,
        scheduled_per_second=scheduled / seconds if seconds else None,
        ok_per_second=counts.ok / seconds if seconds else None,
        good_per_second=counts.good / seconds if seconds else None,
        statuses=dict(counts.statuses),
        problems=dict(counts.problems),
        versions=dict(counts.versions),
        roles=dict(counts.roles),
        feature_status=dict(counts.feature_status),
        with_features=counts.with_features,
        bytes_sent=counts.bytes_sent,
        bytes_received=counts.bytes_received,
        latency=_latency(counts.latency),
        rejected=_latency(counts.rejected),
    )


def _latency(histogram: Histogram) -> Latency:
    p50, p90, p99, p999, largest = (
        _known(value) for value in histogram.quantiles((0.5, 0.9, 0.99, 0.999, 1.0))
    )
    return Latency(
        count=histogram.count,
        mean=_known(histogram.mean),
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=largest,
        intervals={
            name: (_known(low), _known(high))
            for name, share in QUANTILES
            for low, high in (histogram.interval(share),)
        }
        if histogram.count
        else {},
    )


def _known(value: float | None) -> float | None:
    """Null for NaN, which JSON lacks; a tenth of a microsecond is all that was measured."""
    return None if value is None or math.isnan(value) else round(value, 7)


def _slices(seconds: Sequence[SecondResult], length: float) -> list[Slice]:
    """Rows of the axis of time, at most about `_MOST_SLICES`; a slice lies in one phase."""
    wide = max(1, math.ceil(length / _MOST_SLICES))
    groups: dict[tuple[int, str, bool], list[SecondResult]] = {}
    for one in sorted(seconds, key=lambda one: one.second):
        groups.setdefault((one.second // wide, one.phase, one.warmup), []).append(one)
    found = []
    for (_, phase, warmup), members in groups.items():
        counts = Counts()
        for one in members:
            counts.merge(one.counts)
        first, last = members[0].second, members[-1].second + 1
        p50, p90, p99, largest = (
            _known(value) for value in counts.latency.quantiles((0.5, 0.9, 0.99, 1.0))
        )
        found.append(
            Slice(
                start=float(first),
                # The last second of a run may be a part of one.
                seconds=max(min(float(last), length) - first, 1e-3),
                phase=phase,
                warmup=warmup,
                scheduled=counts.scheduled,
                ok=counts.ok,
                failed=counts.failed,
                p50=p50,
                p90=p90,
                p99=p99,
                max=largest,
            )
        )
    return found


def _points(histogram: Histogram) -> list[tuple[float, int]]:
    points = histogram.points()
    wide = max(1, math.ceil(len(points) / _MOST_POINTS))
    return [
        (round(members[-1][0], 9), sum(count for _, count in members))
        for members in (points[at : at + wide] for at in range(0, len(points), wide))
    ]
