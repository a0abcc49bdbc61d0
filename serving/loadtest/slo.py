"""The verdict: is the run valid, and does what it saw meet what must hold? Pure."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

import msgspec

from serving.loadtest.results import Against, Comparison, Counts, GeneratorCheck, Result
from serving.loadtest.scenario import Bounds, Multiples, Slo
from serving.loadtest.words import chance_words, figure_words
from serving.report.words import short_time

__all__ = ["Check", "Verdict", "judge", "validity"]

_MAX_CPU: Final = 0.95
"""Share of a core; a process busier than that is late, whether or not its lag shows it yet."""

_MAX_WAITED: Final = 0.01
"""Share of requests that may find all connections busy."""

_ROUNDING: Final = 1e-9

_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))


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


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What comes of a run. `outcome` is `met` only if it is valid and every check is."""

    outcome: Literal["met", "missed", "invalid"]
    invalid: list[str]
    """Why nothing can be concluded, and what to change; empty for a valid run."""

    checks: list[Check]


def judge(result: Result, slos: list[Slo]) -> Verdict:
    """Say whether `result` meets `slos`. Raises nothing: what is not measured is not met."""
    invalid = validity(result)
    checks = [_schedule(result), *(check for slo in slos for check in _checks(result, slo))]
    missed = any(not check.ok for check in checks)
    outcome: Literal["met", "missed", "invalid"] = "missed" if missed else "met"
    return Verdict(outcome="invalid" if invalid else outcome, invalid=invalid, checks=checks)


# --- is it a measurement ---------------------------------------------------------------------


def validity(result: Result) -> list[str]:
    """Why the run says nothing about the target, and what to change."""
    whole, generator = result.whole, result.generator
    if result.interrupted:
        return ["the run was stopped before its end"]
    if not whole.scheduled:
        return ["nothing was sent outside warm-up; make a phase longer or its rate higher"]
    if not whole.ok:
        return [f"no request succeeded ({statuses(whole)}): {_first_problem(whole)}"]
    found = []
    late = generator.lag.quantile(0.99)
    if late > generator.max_lag:
        found.append(
            f"the generator fell behind its schedule: 1 % of the requests left "
            f"{short_time(late)} late or more, the latest {short_time(generator.lag.largest)} "
            f"(`max_lag` is {short_time(generator.max_lag)}); {_relief(generator)}"
        )
    if generator.cpu_share > _MAX_CPU:
        found.append(
            f"a generator process used {generator.cpu_share:.0%} of a core; {_relief(generator)}"
        )
    return found


def _relief(generator: GeneratorCheck) -> str:
    return (
        f"lower the rate, or raise `processes` ({generator.processes}) where there are cores free"
    )


def statuses(counts: Counts) -> str:
    """`503: 120, timeout: 3`, the most frequent first."""
    table = {**counts.statuses, **({"unsent": counts.unsent} if counts.unsent else {})}
    ordered = sorted(table.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{status}: {count}" for status, count in ordered) or "nothing sent"


def _first_problem(counts: Counts) -> str:
    if not counts.statuses:
        return "no connection was free; raise `connections`"
    worst = max(counts.statuses, key=lambda status: counts.statuses[status])
    return counts.problems.get(worst) or "it gave no words"


def _schedule(result: Result) -> Check:
    """Every run's own SLO: the target takes requests as fast as the schedule has them."""
    waits, whole = result.generator.waits, result.whole
    waited = waits.count / max(result.generator.lag.count, 1)
    ok = waited <= _MAX_WAITED and not whole.unsent
    wanted, measured = f"≤ {_share(_MAX_WAITED)} wait", f"{_share(waited)} wait"
    words = "requests found a free connection when they were due"
    if not ok:
        words = (
            f"{_share(waited)} of the requests waited for a free connection, 1 % of these "
            f"{short_time(waits.quantile(0.99))} or longer, {whole.unsent} in vain: the target is "
            f"slower than the schedule; lower the rate, or raise `connections` "
            f"({result.connections})"
        )
    return Check(name="schedule", wanted=wanted, measured=measured, ok=ok, words=words)


# --- does it hold ----------------------------------------------------------------------------


def _checks(result: Result, slo: Slo) -> Iterator[Check]:
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


def _latencies(place: str, counts: Counts, slo: Slo) -> Iterator[Check]:
    limits = {"p50": slo.p50, "p90": slo.p90, "p99": slo.p99, "p99.9": slo.p999, "max": slo.max}
    for name, share in _QUANTILES:
        if (limit := limits[name]) is not None:
            measured, count = counts.latency.quantile(share), counts.latency.count
            few = f" (the slowest of {count})" if 0 < count * (1 - share) < 1 - _ROUNDING else ""
            yield _at_most(f"{place}: {name}", measured, float(limit), "no request succeeded", few)
    if slo.rejected_p99 is not None:
        measured = counts.rejected.quantile(0.99)
        why = "no answer was an error"
        yield _at_most(f"{place}: rejected p99", measured, float(slo.rejected_p99), why)


def _at_most(name: str, measured: float, limit: float, why: str, more: str = "") -> Check:
    if math.isnan(measured):
        return _not_measured(name, f"≤ {short_time(limit)}", why)
    ok = measured <= limit
    return Check(
        name=name,
        wanted=f"≤ {short_time(limit)}",
        measured=short_time(measured),
        ok=ok,
        words=f"{name} is {short_time(measured)}, "
        f"{'within' if ok else 'over'} {short_time(limit)}{more}",
    )


def _rates(
    place: str, counts: Counts, seconds: float, slo: Slo, *, has_deadline: bool
) -> Iterator[Check]:
    scheduled = counts.scheduled
    if slo.error_rate is not None:
        name, wanted = f"{place}: error rate", f"≤ {_share(slo.error_rate)}"
        share = counts.failed / scheduled if scheduled else math.nan
        detail = f"{counts.failed} of {scheduled} requests failed ({statuses(counts)})"
        ok = share <= slo.error_rate
        yield _compare(name, wanted, share, ok=ok, detail=detail, shown=_share)
    if slo.goodput is not None:
        name, wanted = f"{place}: goodput", f"≥ {_share(slo.goodput)}"
        share = counts.good / scheduled if scheduled and has_deadline else math.nan
        detail = f"{counts.good} of {scheduled} requests succeeded within the deadline"
        ok = share >= slo.goodput
        yield _compare(name, wanted, share, ok=ok, detail=detail, shown=_share)
    per_second = (
        ("goodput a second", slo.goodput_rps, counts.good if has_deadline else None),
        ("throughput", slo.throughput, counts.ok),
    )
    for word, least, count in per_second:
        if least is not None:
            rate = count / seconds if count is not None and scheduled and seconds else math.nan
            detail = f"{count} successes in {seconds:.1f} s"
            name, wanted = f"{place}: {word}", f"≥ {least:g}/s"
            ok = rate >= least
            yield _compare(name, wanted, rate, ok=ok, detail=detail, shown=_per_second)


def _multiples(place: str, wanted: Multiples, against: Against | None) -> Iterator[Check]:
    limits = {
        "p50": wanted.p50,
        "p90": wanted.p90,
        "p99": wanted.p99,
        "p99.9": wanted.p999,
        "throughput": wanted.throughput,
    }
    known = {} if against is None else {(one.place, one.figure): one for one in against.figures}
    for figure, limit in limits.items():
        if limit is None:
            continue
        least = figure == "throughput"
        name = f"{place}: {figure} against before"
        span = f"{'≥' if least else '≤'} {limit:g} ×"
        found = known.get((place, figure))
        if found is None or found.ratio is None:
            why = "--against names no run before" if against is None else "it had no such phase"
            yield _not_measured(name, span, found.reason if found is not None else why)
            continue
        ok = found.ratio >= limit if least else found.ratio <= limit
        yield Check(
            name=name,
            wanted=span,
            measured=f"{found.ratio:.3g} ×",
            ok=ok,
            words=f"{place}: {figure} is {found.ratio:.3g} × what it was, "
            f"{'as' if ok else 'not'} {span}: {_before_and_now(found)}",
        )


def _before_and_now(one: Comparison) -> str:
    before, now = (figure_words(one.figure, value) for value in (one.before, one.now))
    likely = chance_words(one)
    return f"{before} before, {now} now{f'; chance leaves {likely} likely' if likely else ''}"


def _shares(
    place: str, what: str, table: Mapping[str, int], total: int, wanted: Mapping[str, Bounds]
) -> Iterator[Check]:
    for key, bounds in wanted.items():
        name = f"{place}: {what} {key}"
        known = ", ".join(f"{one} {_share(count / total)}" for one, count in sorted(table.items()))
        seen = _count(table, key)
        share = seen / total if total and table else math.nan
        if not seen and what == "version" and bounds.at_least is None:
            # A name with a mistake in it would meet every `at_most`.
            why = f"no answer came from it ({known or 'no answer at all'}); if none is fine too, "
            yield _not_measured(
                name, f"≤ {_share(bounds.at_most or 0.0)}", why + "add `at_least: 0`"
            )
            continue
        low = 0.0 if bounds.at_least is None else bounds.at_least
        high = 1.0 if bounds.at_most is None else bounds.at_most
        span = " and ".join(
            [f"≥ {_share(low)}"] * (bounds.at_least is not None)
            + [f"≤ {_share(high)}"] * (bounds.at_most is not None)
        )
        ok = low <= share <= high
        detail = f"of {total} answers: {known}" if total else ""
        yield _compare(name, span, share, ok=ok, detail=detail, shown=_share)


def _count(table: Mapping[str, int], key: str) -> int:
    """Answers under a key; `v1` counts those of `employment:v1` and of any other model's v1."""
    return sum(count for name, count in table.items() if name == key or name.endswith(f":{key}"))


def _compare(
    name: str, wanted: str, value: float, *, ok: bool, detail: str, shown: Callable[[float], str]
) -> Check:
    if math.isnan(value):
        return _not_measured(name, wanted, "there is nothing to measure it by")
    measured = shown(value)
    return Check(
        name=name,
        wanted=wanted,
        measured=measured,
        ok=ok,
        words=f"{name} is {measured}, {'as' if ok else 'not'} {wanted}: {detail}",
    )


def _not_measured(name: str, wanted: str, why: str) -> Check:
    return Check(
        name=name,
        wanted=wanted,
        measured="not measured",
        ok=False,
        words=f"{name} was not measured: {why}",
    )


def _share(share: float) -> str:
    return f"{share * 100:.4g} %"


def _per_second(rate: float) -> str:
    return f"{rate:.1f}/s"
