"""What Locust's users have seen, as the `Result` that `sluice loadtest` judges and reports. Pure.

Locust keeps milliseconds and no more; here is counted by itself, from the time each request was to
be sent. Counts of several processes add up.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from serving.loadtest.histogram import Histogram
from serving.loadtest.results import (
    Counts,
    GeneratorCheck,
    KindCounts,
    PhaseResult,
    Result,
    SecondResult,
)

__all__ = ["Outcome", "Seen", "Span", "feature_words", "result_of"]

SUCCESS: Final = ("200", "OK")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request. Times are seconds, `due` from the start of the run."""

    kind: str
    due: float
    latency: float
    """From `due` to the end of the answer, or until nobody waited any longer."""

    lag: float
    """How late it left though its user was free."""

    waited: float = 0.0
    """How long its user was still busy with the one before."""

    status: str
    """`200`, `OK`, `503`; `timeout`, `refused`, `closed`, `unreadable` without an answer."""

    answered: bool
    problem: str = ""
    version: str = ""
    role: str = ""
    features: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0


class Seen(msgspec.Struct, kw_only=True):
    """Counts by kind and second of the run, and how the users kept their own schedule."""

    counts: dict[str, dict[int, Counts]] = {}
    lag: Histogram = msgspec.field(default_factory=Histogram)
    waits: Histogram = msgspec.field(default_factory=Histogram)
    cpu_share: float = 0.0
    """Of the busiest process."""

    most_in_flight: int = 0

    def add(self, one: Outcome, deadline: float | None, patience: float = 0.0) -> None:
        """Count an outcome; who got no answer would have waited for one at least `patience`."""
        counts = self._at(one.kind, one.due)
        ok = one.answered and one.status in SUCCESS
        counts.scheduled += 1
        counts.sent += 1
        counts.answered += one.answered
        counts.ok += ok
        counts.good += ok and (deadline is None or one.latency <= deadline)
        _count(counts.statuses, one.status)
        if ok or not one.answered:
            counts.latency.add(one.latency if ok else max(one.latency, patience))
        else:
            counts.rejected.add(one.latency)
        if ok:
            _count(counts.versions, one.version)
            _count(counts.roles, one.role)
            counts.with_features += bool(one.features)
            for word in feature_words(one.features):
                _count(counts.feature_status, word)
        else:
            counts.problems.setdefault(one.status, one.problem or one.status)
        counts.bytes_sent += one.bytes_sent
        counts.bytes_received += one.bytes_received
        self.lag.add(max(0.0, one.lag))
        if one.waited > 0:
            self.waits.add(one.waited)

    def unsent(self, kind: str, due: float) -> None:
        """Count a request that was to be sent, and whose user was never free again."""
        counts = self._at(kind, due)
        counts.scheduled += 1
        counts.unsent += 1

    def merge(self, other: "Seen") -> None:
        """Add what another process has seen."""
        for kind, seconds in other.counts.items():
            for second, counts in seconds.items():
                self._at(kind, second).merge(counts)
        self.lag.merge(other.lag)
        self.waits.merge(other.waits)
        self.cpu_share = max(self.cpu_share, other.cpu_share)
        self.most_in_flight += other.most_in_flight

    def _at(self, kind: str, due: float) -> Counts:
        return self.counts.setdefault(kind, {}).setdefault(max(0, int(due)), Counts())


def feature_words(status: str) -> set[str]:
    """The words of `feature_status`: `OK`, or `view=OK|NULLS,other=TIMEOUT`."""
    return {
        word
        for view in status.split(",")
        for word in view.rpartition("=")[2].strip().split("|")
        if word
    }


def _count(table: dict[str, int], key: str) -> None:
    if key:
        table[key] = table.get(key, 0) + 1


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """When the users ran (seconds since 1970), for how long, and how much of it is warm-up."""

    started: float
    seconds: float
    warmup: float = 0.0


def result_of(
    seen: Seen,
    span: Span,
    *,
    scenario: str,
    target: str,
    protocol: str,
    phase: str = "locust",
    users: int = 1,
    processes: int = 1,
    deadline: float | None = None,
    max_lag: float = 0.02,
    interrupted: bool = False,
    labels: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Result:
    """The run as `sluice loadtest` would have it: one phase, and before it the warm-up, if any.

    A second counts as warm-up if it began in it.
    """
    warm, whole = Counts(), Counts()
    kinds: list[KindCounts] = []
    seconds: dict[int, Counts] = {}
    for name, by_second in sorted(seen.counts.items()):
        of_kind = Counts()
        for second, counts in by_second.items():
            seconds.setdefault(second, Counts()).merge(counts)
            (warm if second < span.warmup else of_kind).merge(counts)
        whole.merge(of_kind)
        kinds.append(KindCounts(name=name, counts=of_kind))
    warmup = min(math.ceil(span.warmup), span.seconds)
    phases = [PhaseResult(name=phase, seconds=span.seconds - warmup, counts=whole)]
    if warmup:
        phases.insert(0, PhaseResult(name="warm-up", seconds=warmup, warmup=True, counts=warm))
    return Result(
        scenario=scenario,
        target=target,
        protocol=protocol,
        started=span.started,
        seconds=span.seconds,
        seed=0,
        connections=users,
        deadline=deadline,
        phases=phases,
        whole=whole,
        whole_seconds=span.seconds - warmup,
        per_second=[
            SecondResult(
                second=second,
                phase="warm-up" if second < span.warmup else phase,
                warmup=second < span.warmup,
                counts=counts,
            )
            for second, counts in sorted(seconds.items())
        ],
        kinds=kinds,
        generator=GeneratorCheck(
            processes=processes,
            max_lag=max_lag,
            cpu_share=seen.cpu_share,
            lag=seen.lag,
            waits=seen.waits,
            most_in_flight=seen.most_in_flight,
        ),
        interrupted=interrupted,
        labels=dict(labels or {}),
        versions=dict(versions or {}),
    )
