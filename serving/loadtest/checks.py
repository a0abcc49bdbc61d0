"""One SLO beside what a run has measured: does it hold? Pure."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from serving.loadtest.results import Against, Comparison, Counts, Result
from serving.loadtest.scenario import Bounds, Multiples, Slo
from serving.loadtest.words import chance_words, figure_words, share_words
from serving.report.words import short_time

__all__ = ["Check", "checks", "failures"]

_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
_ROUNDING: Final = 1e-9
_NOTHING: Final = "there is nothing to measure it by"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must hold, and whether it does."""

    name: str
    """Such as `steady: p99`; unique in a verdict unless the scenario says a thing twice."""

    wanted: str
    """Such as `≤ 50 ms`."""

    measured: str
    """Such as `12.3 ms`; `not measured` where there is nothing to compare."""

    ok: bool
    words: str
    """A sentence for people."""

    place: str = ""
    """The phase, or `whole run`."""

    figure: str = ""
    """What of it: `p99`, `error rate`, `version v1`."""

    value: float | None = None
    """`measured` as a number: seconds, a share from 0 to 1, requests a second, or a multiple."""

    at_least: float | None = None
    at_most: float | None = None
    """`wanted` as numbers."""


def checks(result: Result, slo: Slo) -> Iterator[Check]:
    """What an SLO asks for, one after the other; what is not measured does not hold."""
    place = slo.phase or "whole run"
    if slo.phase:
        phase = next((one for one in result.phases if one.name == slo.phase), None)
        counts, seconds = (phase.counts, phase.seconds) if phase else (Counts(), 0.0)
    else:
        counts, seconds = result.whole, result.whole_seconds
    yield from _latencies(place, counts, slo)
    yield from _rates(place, counts, seconds, slo, has_deadline=result.deadline is not None)
    if slo.against is not None:
        yield from _multiples(place, slo.against, result.against)
    yield from _shares(place, "version", counts.versions, counts.ok, slo.versions)
    yield from _shares(place, "role", counts.roles, sum(counts.roles.values()), slo.roles)
    yield from _shares(
        place, "feature status", counts.feature_status, counts.with_features, slo.feature_status
    )


def failures(counts: Counts) -> str:
    """`503: 120, timeout: 3`, the most frequent first; successes are not among them."""
    table = {name: count for name, count in counts.statuses.items() if name in counts.problems}
    if counts.unsent:
        table["unsent"] = counts.unsent
    ordered = sorted(table.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{status}: {count}" for status, count in ordered)


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its bounds; `show` writes its numbers."""

    place: str
    figure: str
    show: Callable[[float], str]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def wanted(self) -> str:
        return " and ".join(
            f"{sign} {self.show(bound)}"
            for sign, bound in (("≥", self.at_least), ("≤", self.at_most))
            if bound is not None
        )

    def met_by(self, value: float, detail: str, why: str = _NOTHING) -> Check:
        """The check of a value; NaN is not measured, and `why` says why."""
        if math.isnan(value):
            return self.not_measured(why)
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        ok = low <= value <= high
        words = f"is {self.show(value)}, {'as' if ok else 'not'} {self.wanted}"
        words += f": {detail}" if detail else ""
        return self._check(self.show(value), words, ok=ok, value=value)

    def not_measured(self, why: str) -> Check:
        """The check of nothing."""
        return self._check("not measured", f"was not measured: {why}", ok=False)

    def _check(self, measured: str, words: str, *, ok: bool, value: float | None = None) -> Check:
        name = f"{self.place}: {self.figure}"
        return Check(
            name=name,
            wanted=self.wanted,
            measured=measured,
            ok=ok,
            words=f"{name} {words}",
            place=self.place,
            figure=self.figure,
            value=value,
            at_least=self.at_least,
            at_most=self.at_most,
        )


def _latencies(place: str, counts: Counts, slo: Slo) -> Iterator[Check]:
    limits = {"p50": slo.p50, "p90": slo.p90, "p99": slo.p99, "p99.9": slo.p999, "max": slo.max}
    for name, share in _QUANTILES:
        if (limit := limits[name]) is not None:
            count = counts.latency.count
            few = 0 < count * (1 - share) < 1 - _ROUNDING
            yield _Asked(place=place, figure=name, show=short_time, at_most=float(limit)).met_by(
                counts.latency.quantile(share),
                f"the slowest of {count}" if few else "",
                "no request succeeded",
            )
    if (limit := slo.rejected_p99) is not None:
        asked = _Asked(place=place, figure="rejected p99", show=short_time, at_most=float(limit))
        yield asked.met_by(counts.rejected.quantile(0.99), "", "no answer was an error")


def _rates(
    place: str, counts: Counts, seconds: float, slo: Slo, *, has_deadline: bool
) -> Iterator[Check]:
    scheduled = counts.scheduled
    good = counts.good if has_deadline else math.nan
    if slo.error_rate is not None:
        asked = _Asked(place=place, figure="error rate", show=share_words, at_most=slo.error_rate)
        why = f" ({failures(counts)})" if counts.failed else ""
        detail = f"{counts.failed} of {scheduled} requests failed{why}"
        yield asked.met_by(counts.failed / scheduled if scheduled else math.nan, detail)
    if slo.goodput is not None:
        asked = _Asked(place=place, figure="goodput", show=share_words, at_least=slo.goodput)
        detail = f"{counts.good} of {scheduled} requests succeeded within the deadline"
        yield asked.met_by(good / scheduled if scheduled else math.nan, detail)
    for figure, least, count in (
        ("goodput a second", slo.goodput_rps, good),
        ("throughput", slo.throughput, counts.ok),
    ):
        if least is not None:
            asked = _Asked(place=place, figure=figure, show=_per_second, at_least=least)
            measured = scheduled and seconds
            yield asked.met_by(
                count / seconds if measured else math.nan, f"{count} successes in {seconds:.1f} s"
            )


def _multiples(place: str, wanted: Multiples, against: Against | None) -> Iterator[Check]:
    known = {} if against is None else {(one.place, one.figure): one for one in against.figures}
    for figure, least, most in (
        ("p50", None, wanted.p50),
        ("p90", None, wanted.p90),
        ("p99", None, wanted.p99),
        ("p99.9", None, wanted.p999),
        ("throughput", wanted.throughput, None),
    ):
        if least is None and most is None:
            continue
        asked = _Asked(
            place=place,
            figure=f"{figure} against before",
            show=_multiple,
            at_least=least,
            at_most=most,
        )
        found = known.get((place, figure))
        if found is not None and found.ratio is not None:
            yield asked.met_by(found.ratio, _before_and_now(found))
        elif found is not None:
            yield asked.not_measured(found.reason)
        elif against is not None:
            yield asked.not_measured("the run before had no such phase")
        else:
            yield asked.not_measured("no run before was named (--against)")


def _before_and_now(one: Comparison) -> str:
    before, now = (figure_words(one.figure, value) for value in (one.before, one.now))
    likely = chance_words(one)
    return f"{before} before, {now} now" + (f"; chance leaves {likely} likely" if likely else "")


def _shares(
    place: str, what: str, table: Mapping[str, int], total: int, wanted: Mapping[str, Bounds]
) -> Iterator[Check]:
    known = ", ".join(f"{one} {share_words(count / total)}" for one, count in sorted(table.items()))
    for key, bounds in wanted.items():
        asked = _Asked(
            place=place,
            figure=f"{what} {key}",
            show=share_words,
            at_least=bounds.at_least,
            at_most=bounds.at_most,
        )
        seen = _count(table, key)
        if not table or not total:
            yield asked.not_measured(_NOTHING)
        elif not seen and what == "version" and bounds.at_least is None:
            # A name with a mistake in it would meet every `at_most`.
            yield asked.not_measured(
                f"no answer came from it ({known}); if none is fine too, add `at_least: 0`"
            )
        else:
            yield asked.met_by(seen / total, f"of {total} answers: {known}")


def _count(table: Mapping[str, int], key: str) -> int:
    """Answers under a key; `v1` counts those of `employment:v1` and of any other model's v1."""
    return sum(count for name, count in table.items() if name == key or name.endswith(f":{key}"))


def _per_second(rate: float) -> str:
    return f"{rate:.1f}".removesuffix(".0") + "/s"


def _multiple(ratio: float) -> str:
    return f"{ratio:.3g} ×"
