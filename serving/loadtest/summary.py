"""From the outcome of each request to counts by phase, second and kind. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.loadtest.histogram import Histogram
from serving.loadtest.outcomes import Words
from serving.loadtest.plan import Plan, PlannedPhase
from serving.loadtest.results import Counts, GeneratorCheck, KindCounts, PhaseResult, SecondResult
from serving.loadtest.wire import Report, unpack

__all__ = ["Ended", "Summary", "collect", "summarise"]

_TEXTS: Final = ("status", "version", "role", "features")


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """All requests of a run that came to be due, in the order of `times`, and how they ended.

    `arrays` are those of `outcomes.Outcomes`, numbers of texts being places in `texts`; `place` is
    each request's in the plan.
    """

    place: NDArray[np.int64]
    times: NDArray[np.float64]
    arrays: Mapping[str, NDArray[Any]]
    texts: list[str]
    problems: Mapping[str, str]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The counted part of a `Result`."""

    phases: list[PhaseResult]
    whole: Counts
    whole_seconds: float
    per_second: list[SecondResult]
    kinds: list[KindCounts]
    generator: GeneratorCheck


def collect(plan: Plan, reports: Sequence[Report]) -> Ended:
    """Put together what the processes report; process p of P had every P-th request from p on."""
    words, problems = Words(), dict[str, str]()
    places: list[NDArray[Any]] = []
    parts: dict[str, list[NDArray[Any]]] = {}
    for number, report in enumerate(reports):
        places.append(np.arange(report.count) * len(reports) + number)
        known = np.array([words.number(text) for text in report.texts], np.uint16)
        for name, packed in report.arrays.items():
            array = unpack(packed)
            parts.setdefault(name, []).append(known[array] if name in _TEXTS else array)
        for status, text in report.problems.items():
            problems.setdefault(status, text)
    place = np.concatenate(places)
    order = np.argsort(place)
    return Ended(
        place=place[order],
        times=plan.times[place[order]],
        arrays={name: np.concatenate(one)[order] for name, one in parts.items()},
        texts=words.texts,
        problems=problems,
    )


def summarise(
    plan: Plan,
    ended: Ended,
    kinds: Sequence[str],
    *,
    warmup: float,
    deadline: float | None,
    timeout: float,
    generator: GeneratorCheck,
) -> Summary:
    """Count.

    Args:
        plan: what was to be sent.
        ended: what became of it.
        kinds: names of the kinds.
        warmup: seconds from the start that count for nothing.
        deadline: seconds a success may take to be good; None: any.
        timeout: seconds that a request without an answer counts with at least.
        generator: what is known of the generator but its lag and waits, which are added.
    """
    counter = _Counter(ended, deadline, timeout)
    phase = plan.phase[ended.place]
    warm_phase = np.array([one.warmup for one in plan.phases])[phase]
    warm = warm_phase | (ended.times < warmup)
    phases = [
        _phase(one, counter, ended, phase == number, warmup)
        for number, one in enumerate(plan.phases)
    ]
    kind = plan.kind[ended.place]
    lag = ended.arrays["lag"].astype(np.float64)
    wait = ended.arrays["wait"].astype(np.float64)
    unsent = ended.arrays["status"] == 0
    wait[unsent] = (ended.arrays["ended"] - ended.times)[unsent]
    return Summary(
        phases=phases,
        whole=counter.count(~warm),
        whole_seconds=sum(one.seconds for one in phases if not one.warmup),
        per_second=_seconds(plan, counter, ended, warmup),
        kinds=[
            KindCounts(name=name, counts=counter.count(~warm & (kind == number)))
            for number, name in enumerate(kinds)
        ],
        generator=msgspec.structs.replace(
            generator, lag=Histogram.of(lag), waits=Histogram.of(wait[wait > 0])
        ),
    )


def _phase(
    phase: PlannedPhase, counter: "_Counter", ended: Ended, mine: NDArray[np.bool_], warmup: float
) -> PhaseResult:
    warm = phase.warmup or phase.end <= warmup
    start = phase.start if warm else max(phase.start, warmup)
    return PhaseResult(
        name=phase.name,
        seconds=phase.end - start,
        warmup=warm,
        counts=counter.count(mine & (ended.times >= start)),
    )


def _seconds(plan: Plan, counter: "_Counter", ended: Ended, warmup: float) -> list[SecondResult]:
    length = math.ceil(plan.phases[-1].end - 1e-9)
    if len(ended.times) < len(plan.times):  # it was stopped
        length = min(length, int(ended.times[-1]) + 1) if len(ended.times) else 0
    edges = np.searchsorted(ended.times, np.arange(length + 1, dtype=np.float64))
    found = []
    for second in range(length):
        phase = next((one for one in plan.phases if one.start <= second < one.end), plan.phases[-1])
        found.append(
            SecondResult(
                second=second,
                phase=phase.name,
                warmup=phase.warmup or second + 1 <= warmup,
                counts=counter.count(slice(int(edges[second]), int(edges[second + 1]))),
            )
        )
    return found


class _Counter:
    """Counts any part of the requests."""

    def __init__(self, ended: Ended, deadline: float | None, timeout: float) -> None:
        self._ended = ended
        self._deadline = deadline
        took = ended.arrays["ended"] - ended.times
        answered = ended.arrays["answered"]
        # However soon that was known: who gets no answer waits as long as anybody waits for one.
        self._took = np.where(answered, took, np.maximum(took, timeout))
        self._rejected = answered & ~ended.arrays["ok"]

    def count(self, part: NDArray[np.bool_] | slice) -> Counts:
        arrays = {name: array[part] for name, array in self._ended.arrays.items()}
        took, rejected, ok = self._took[part], self._rejected[part], arrays["ok"]
        good = ok if self._deadline is None else ok & (took <= self._deadline)
        unsent = int((arrays["status"] == 0).sum())
        statuses = self._table(arrays["status"])
        versions = self._table(arrays["version"])
        features = self._table(arrays["features"])
        return Counts(
            scheduled=len(ok),
            sent=len(ok) - unsent,
            unsent=unsent,
            answered=int(arrays["answered"].sum()),
            ok=int(ok.sum()),
            good=int(good.sum()),
            statuses=statuses,
            problems={
                status: words
                for status, words in self._ended.problems.items()
                if status in statuses
            },
            versions=versions,
            roles=self._table(arrays["role"]),
            feature_status=_by_word(features),
            with_features=sum(features.values()),
            bytes_sent=int(arrays["bytes_sent"].sum(dtype=np.int64)),
            bytes_received=int(arrays["bytes_received"].sum(dtype=np.int64)),
            latency=Histogram.of(took[~rejected]),
            rejected=Histogram.of(took[rejected]),
        )

    def _table(self, numbers: NDArray[np.uint16]) -> dict[str, int]:
        counts = np.bincount(numbers, minlength=1)
        found = {
            self._ended.texts[number]: int(counts[number]) for number in np.flatnonzero(counts)
        }
        found.pop("", None)  # said nothing
        return found


def _by_word(statuses: Mapping[str, int]) -> dict[str, int]:
    """`profile=DEFAULTED|NOT_FOUND,household=OK` counts once for each of its words."""
    found: dict[str, int] = {}
    for status, count in statuses.items():
        words = {word for view in status.split(",") for word in view.rpartition("=")[2].split("|")}
        for word in sorted(words):
            found[word] = found.get(word, 0) + count
    return found
