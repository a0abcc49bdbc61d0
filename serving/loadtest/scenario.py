"""What a scenario file says: where to, which requests, at which rate, and what must hold.

Durations carry units (`50ms`, `5s`); shares are from 0 to 1. Paths are relative to the file.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serving.config.section import Section, Share
from serving.config.units import Seconds

__all__ = [
    "Bounds",
    "Entity",
    "Expect",
    "LogReplay",
    "Multiples",
    "Phase",
    "Ramp",
    "Range",
    "RequestKind",
    "Scenario",
    "Slo",
    "Spike",
    "Steps",
    "TraceReplay",
]

Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
"""Requests a second."""

Multiple = Annotated[float, Meta(gt=0, le=1000)]

Scale = Annotated[float, Meta(gt=0, le=1000)]


class Entity(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the keys of one entity tensor come from: `keys` numbers, or the lines of `file`."""

    datatype: Literal["INT32", "INT64", "BYTES"] = "INT64"
    """Datatype of the tensor."""

    keys: Annotated[int, Meta(ge=1, le=10_000_000)] = 1000
    """How many keys there are: `first`, `first` + 1 and so on. Not with `file`."""

    first: int = 1
    """The smallest number. Not with `file`."""

    file: str = ""
    """A text file with one key a line; used instead of numbers."""

    zipf: Annotated[float, Meta(ge=0, le=5)] = 1.0
    """How unequal popularity is: the key of rank k is asked for in proportion to k ** -zipf. 0 asks
    for all alike. Which key has which rank is drawn with the seed."""


class Range(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where to where a number may be."""

    at_least: float | None = None
    """The smallest number that is right."""

    at_most: float | None = None
    """The largest number that is right."""


class Expect(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a right answer is, beyond being one of the model (and version) asked, with outputs.

    Any other counts as failed, with the status `wrong`.
    """

    rows: bool = True
    """Whether every output has as many rows as the request. Not looked at with `body`."""

    outputs: dict[str, Range] = {}
    """Outputs that must be there, by name, and the range of their numbers; with a bound, NaN,
    infinity, null and no number at all are wrong. `{}` asks for any numbers."""


class RequestKind(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of request in the mix."""

    name: str = ""
    """What tables call it [default: the model and its version]."""

    model: Annotated[str, Meta(min_length=1)]
    """The model asked."""

    version: str = ""
    """Ask for this version by name; empty leaves it to the target's traffic plan."""

    weight: Annotated[float, Meta(gt=0)] = 1.0
    """Its part of all requests, in proportion to the others'."""

    entity: dict[str, Entity] = {}
    """Entity tensors by name, filled with keys anew for each request. Not with `body`."""

    rows: Annotated[list[Annotated[int, Meta(ge=1, le=4096)]], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [1]
    )
    """Rows of a request; one of these is drawn for each."""

    body: str = ""
    """A file with a whole request in the protocol's JSON, sent as it is each time."""

    headers: dict[str, str] = {}
    """Headers (gRPC: metadata) of this kind only."""

    expect: Expect = Expect()
    """What makes an answer right."""


class Ramp(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rate that changes evenly from one to another."""

    start: Rate = msgspec.field(name="from")
    """Requests a second at the start."""

    to: Rate
    """Requests a second at the end."""


class Steps(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rate that changes in equal steps of equal length."""

    start: Rate = msgspec.field(name="from")
    """Requests a second in the first step."""

    to: Rate
    """Requests a second in the last step."""

    count: Annotated[int, Meta(ge=2, le=1000)] = 5
    """How many steps, the first and the last included."""


class Spike(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rate that jumps up and back."""

    base: Rate
    """Requests a second before and after."""

    peak: Rate
    """Requests a second during the spike."""

    at: Seconds
    """When it begins, from the start of the phase."""

    lasts: Seconds
    """How long it lasts."""


class TraceReplay(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded load, as `sluice simulate autoscale` reads it."""

    file: str
    """CSV with the columns `seconds` and `rps`, or Prometheus's answer to a range query (JSON)."""

    scale: Scale = 1.0
    """Multiplies the rates."""

    speed: Scale = 1.0
    """How much faster than recorded; 60 replays an hour in a minute at the recorded rates."""


class LogReplay(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests of the prediction log, at the distances in time at which they came.

    Copies for shadows are left out, and what was refused before its keys were read. A log that
    keeps a share of the requests (`log.sample`) needs `scale` to be as busy as it was.
    """

    folder: str
    """The log's folder: `predictions` in the gateway's data directory."""

    model: Annotated[str, Meta(min_length=1)]
    """Whose requests; a kind of this model in `requests` says how they are sent."""

    since: str = ""
    """Rows from this UTC time on, such as 2026-11-29T19:00:00; empty: from the first row on."""

    until: str = ""
    """Rows up to this UTC time; empty: up to the last."""

    scale: Scale = 1.0
    """How many requests are sent for each one in the log; 0.5 sends every second one."""

    speed: Scale = 1.0
    """How much faster than recorded."""

    at_most: Annotated[int, Meta(ge=1, le=5_000_000)] = 200_000
    """Most rows read; a longer log is cut off there, at the end of a request."""


class Phase(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the run with a load of its own.

    Exactly one of `rate`, `ramp`, `steps`, `spike`, `trace` and `log` says which.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """What tables and SLOs call it."""

    length: Seconds | None = msgspec.field(name="for", default=None)
    """How long it is; needed unless `trace` or `log` says."""

    arrivals: Literal["poisson", "constant"] = "poisson"
    """Distances between requests: random as from many independent clients, or all alike."""

    rate: Rate | None = None
    """Requests a second, all the time."""

    ramp: Ramp | None = None
    """An even change."""

    steps: Steps | None = None
    """A change in steps."""

    spike: Spike | None = None
    """A jump up and back."""

    trace: TraceReplay | None = None
    """A recorded load."""

    log: LogReplay | None = None
    """The requests of a prediction log."""

    warmup: bool = False
    """Whether the whole phase is warm-up: it is sent, shown, and counts for no SLO."""


class Bounds(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where to where a share may be."""

    at_least: Share | None = None
    """The smallest share that is fine."""

    at_most: Share | None = None
    """The largest share that is fine."""


class Multiples(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds in multiples of what the run before had, which `--against` names.

    Without one they are not measured, and so not met; nor are they where the other run had another
    load. What two runs of the same program differ by is the least that a bound can be.
    """

    p50: Multiple | None = None
    """Most that the median latency may be; 1.2 allows a fifth more."""

    p90: Multiple | None = None
    """Most that the 90th percentile may be."""

    p99: Multiple | None = None
    """Most that the 99th percentile may be."""

    p999: Multiple | None = msgspec.field(name="p99.9", default=None)
    """Most that the 99.9th percentile may be."""

    throughput: Multiple | None = None
    """Least that successes a second may be; 0.95 allows a twentieth less."""


class Slo(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold, in one phase or in all that are no warm-up together.

    Latency counts from the time at which a request was to be sent, and is that of answers with
    success; a request without an answer counts with `timeout`, which a limit must be below.
    """

    phase: str = ""
    """A phase's name; empty: all phases but warm-up, taken together."""

    p50: Seconds | None = None
    """Most that the median latency may be."""

    p90: Seconds | None = None
    """Most that the 90th percentile may be."""

    p99: Seconds | None = None
    """Most that the 99th percentile may be."""

    p999: Seconds | None = msgspec.field(name="p99.9", default=None)
    """Most that the 99.9th percentile may be."""

    max: Seconds | None = None
    """Most that any latency may be."""

    rejected_p99: Seconds | None = None
    """Most that the 99th percentile of answers with an error may be: a refusal must be quick."""

    error_rate: Share | None = None
    """Most that the share of requests without success may be."""

    goodput: Share | None = None
    """Least share of requests answered with success within `deadline`."""

    goodput_rps: Annotated[float, Meta(ge=0)] | None = None
    """Least number of requests a second answered with success within `deadline`."""

    throughput: Annotated[float, Meta(ge=0)] | None = None
    """Least number of requests a second answered with success."""

    against: Multiples | None = None
    """Bounds in multiples of a run before (`--against`)."""

    versions: dict[str, Bounds] = {}
    """Bounds for shares of the answers, by the version that gave them."""

    roles: dict[str, Bounds] = {}
    """Bounds for shares of the answers, by the role of the version: production, canary."""

    feature_status: dict[str, Bounds] = {}
    """Bounds for shares of the answers whose `feature_status` has this word: OK, DEFAULTED …"""


class Scenario(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A load test."""

    schema_version: Literal[1]
    """Version of this format."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """What reports call it."""

    target: str = "http://127.0.0.1:8000"
    """The listener: http://, https://, grpc:// or grpcs://, with host and port. `--target` wins."""

    encoding: Literal["json", "binary"] = "json"
    """How tensors travel over HTTP; gRPC always carries raw bytes."""

    connections: Annotated[int, Meta(ge=1, le=10_000)] = 16
    """Connections open at once. Over HTTP each carries one request at a time: with all of them busy
    the next request waits for one, and that wait is part of its latency."""

    processes: Annotated[int, Meta(ge=1, le=64)] = 1
    """Generator processes that share requests and connections. More if one cannot keep up."""

    max_lag: Seconds = Seconds(0.02)
    """The run is invalid if 1 % of the requests or more leave this much later than they were due:
    what is measured then is the generator. Raise it on a machine shared with others only if the
    latencies judged are much longer."""

    seed: int = 1
    """The same seed gives the same schedule, keys and mix."""

    deadline: Seconds | None = None
    """Time a request has from when it was to be sent. Sent along (`x-request-timeout`,
    `grpc-timeout`); `goodput` is measured against it."""

    timeout: Seconds = Seconds(10.0)
    """When to stop waiting for an answer; the request then counts as not answered."""

    warmup: Seconds = Seconds(0.0)
    """Left out of every SLO: what was to be sent this soon after the start."""

    headers: dict[str, str] = {}
    """Headers (gRPC: metadata) of every request. A token belongs in $SLUICE_TOKEN, not here."""

    requests: Annotated[list[RequestKind], Meta(min_length=1)]
    """The mix."""

    phases: Annotated[list[Phase], Meta(min_length=1)]
    """What happens, one after the other."""

    slos: list[Slo] = []
    """What must hold for exit 0."""

    labels: dict[str, Any] = {}
    """Anything worth keeping with the result, such as a commit; copied to reports."""
