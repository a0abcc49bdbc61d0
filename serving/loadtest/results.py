"""What a load test has seen: the input of the verdict and of every report."""

import msgspec

from serving.loadtest.histogram import Histogram

__all__ = [
    "Against",
    "Comparison",
    "Counts",
    "GeneratorCheck",
    "KindCounts",
    "PhaseResult",
    "Result",
    "SecondResult",
]


class Counts(msgspec.Struct, kw_only=True):
    """What became of some requests.

    `scheduled` = `sent` + `unsent`, and `sent` = the sum of `statuses`.

    `latency` counts from the time a request was to be sent. It has answers with success, and the
    requests that got no answer, with the scenario's `timeout` at least, however soon that was
    known. `rejected` has answers with an error: a quick refusal must not make a slow server look
    fast.
    """

    scheduled: int = 0
    """Requests that were to be sent."""

    sent: int = 0
    """Requests that left, or tried to."""

    unsent: int = 0
    """Requests that found no free connection until their time was over."""

    answered: int = 0
    """Requests that got an answer, whatever it said."""

    ok: int = 0
    """Answers with success: HTTP 200, gRPC OK."""

    good: int = 0
    """Answers with success within the deadline; all of `ok` where there is none."""

    statuses: dict[str, int] = {}
    """By status: `200`, `503`, `OK`, `RESOURCE_EXHAUSTED`; `timeout`, `refused`, `closed`,
    `unreadable` for those without an answer."""

    problems: dict[str, str] = {}
    """By status other than success: the words of the first one."""

    versions: dict[str, int] = {}
    """Successes by `model:version` that answered, as the answer says."""

    roles: dict[str, int] = {}
    """Successes by the answer's `model_role`."""

    feature_status: dict[str, int] = {}
    """Successes by word of the answer's `feature_status`; one answer may have several words."""

    with_features: int = 0
    """Successes that had a `feature_status`: the whole of which the words are shares."""

    bytes_sent: int = 0
    """Bytes of requests: over HTTP with headers, over gRPC of messages."""

    bytes_received: int = 0
    """Bytes of answers, counted alike."""

    latency: Histogram = msgspec.field(default_factory=Histogram)
    rejected: Histogram = msgspec.field(default_factory=Histogram)

    def merge(self, other: "Counts") -> None:
        """Add what another has counted."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _TABLES:
            mine, more = getattr(self, name), getattr(other, name)
            for key, count in more.items():
                mine[key] = mine.get(key, 0) + count
        for status, words in other.problems.items():
            self.problems.setdefault(status, words)
        self.latency.merge(other.latency)
        self.rejected.merge(other.rejected)

    @property
    def failed(self) -> int:
        """Requests without success, unsent ones included."""
        return self.scheduled - self.ok


_NUMBERS = (
    *("scheduled", "sent", "unsent", "answered", "ok", "good"),
    *("with_features", "bytes_sent", "bytes_received"),
)
_TABLES = ("statuses", "versions", "roles", "feature_status")


class PhaseResult(msgspec.Struct, kw_only=True):
    """One phase. Requests belong to the phase in which they were to be sent."""

    name: str
    seconds: float
    """How long it counted: without the part that was warm-up, unless all of it was."""

    warmup: bool = False
    """Counts for no SLO."""

    counts: Counts


class SecondResult(msgspec.Struct, kw_only=True):
    """The requests that were to be sent in one second of the run."""

    second: int
    """From the start of the run, 0 first."""

    phase: str
    """The phase at its start."""

    warmup: bool = False
    counts: Counts


class KindCounts(msgspec.Struct, kw_only=True):
    """The requests of one kind of the mix, warm-up left out."""

    name: str
    counts: Counts


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of this run beside that of a run before; null where there is nothing to compare."""

    place: str
    """A phase's name, or `whole run`."""

    figure: str
    """`p50` to `p99.9` in seconds, `throughput` in successes a second, `error rate`, `goodput`."""

    before: float | None
    now: float | None
    ratio: float | None = None
    """`now` by `before`, of latencies and throughput."""

    low: float | None = None
    """The least ratio that chance leaves likely (95 % intervals of both); null: no bound."""

    high: float | None = None
    """The largest one."""

    reason: str = ""
    """Why there is no ratio."""


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """A run before, and this one beside it."""

    started: str
    """When the run before began, UTC."""

    differences: list[str]
    """In what else the two runs differ, such as `connections: 16, now 32`."""

    figures: list[Comparison]

    @property
    def incomparable(self) -> dict[str, str]:
        """By place: why no figure of it has a ratio."""
        # Throughput lacks its ratio only where latency has none either.
        return {
            one.place: one.reason
            for one in self.figures
            if one.figure == "throughput" and one.reason
        }


class GeneratorCheck(msgspec.Struct, kw_only=True):
    """How well the generator kept its own schedule, over the whole run.

    `lag` is how late a request was handed to its connection, the wait for a free connection not
    included; `waits` is that wait, of requests that had to.
    """

    processes: int = 1
    max_lag: float = 0.02
    """Seconds that `lag` may be at the 99th percentile before the run is invalid."""

    cpu_share: float = 0.0
    """CPU seconds by wall seconds of the busiest generator process; 1.0 is a whole core."""

    lag: Histogram = msgspec.field(default_factory=Histogram)
    waits: Histogram = msgspec.field(default_factory=Histogram)
    most_in_flight: int = 0


class Result(msgspec.Struct, kw_only=True):
    """One run."""

    scenario: str
    target: str
    protocol: str
    """`http json`, `http binary` or `grpc`."""

    started: float
    """Wall clock, seconds since 1970."""

    seconds: float
    """Length of the schedule, from the first phase's start to the last one's end."""

    seed: int
    connections: int
    deadline: float | None = None
    """Seconds."""

    phases: list[PhaseResult]
    whole: Counts
    """All but warm-up."""

    whole_seconds: float
    """Length of all but warm-up."""

    per_second: list[SecondResult] = []
    kinds: list[KindCounts] = []
    generator: GeneratorCheck
    against: Against | None = None
    """The run before that it was compared with."""

    interrupted: bool = False
    """The run was stopped before its end (Ctrl-C)."""

    labels: dict[str, str] = {}
    versions: dict[str, str] = {}
    """Of the programs that measured: sluice, python."""
