"""Errors, slow requests, features that were not fresh: how many times as often with the canary."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from msgspec.structs import replace

from serving.rollout.evidence.first_events import ratio_of_users
from serving.rollout.evidence.latency import log_not_slower, log_slower, worst
from serving.rollout.evidence.power import missing_for_proof, seconds_to
from serving.rollout.evidence.relative_risk import estimate, ratio_bounds, total
from serving.rollout.judged.case import Case, between, finite, number, reached
from serving.rollout.looks import EventBook
from serving.rollout.standing import RuleStanding

__all__ = ["crowded", "event_rule", "unit_of"]

_LEAST_LEFT: Final = 0.05
"""Of what `prove` allows above 1; with less left no number of events is a proof in practice."""

_Counts = Mapping[float, tuple[int, int]]


def event_rule(case: Case, book: EventBook) -> RuleStanding:
    """Judge `error_rate`, `latency` or `feature_health`."""
    signals = _signals(case, book)
    bounds: list[_Counts] = [book.events(signal) for signal in signals] or [{}]
    shown = worst(bounds, case.tolerance)
    counts = bounds[shown]
    events, units = total(counts), book.keys
    unit = unit_of(book)
    canary, production = (events[0], units[0]), (events[1], units[1])
    if not signals and case.rule.metric == "latency" and case.rule.exceeds is None:
        return case.standing("no_data", "production's percentiles are not known yet")
    if not units[0] or not units[1]:
        return case.standing(
            "no_data", _missing(units), canary=canary, production=production, unit=unit
        )
    if book.crowded(case.rule.name):
        return replace(
            crowded(case), canary_events=events[0], production_events=events[1],
            canary_units=units[0], production_units=units[1],
        )  # fmt: skip
    log_e = log_slower(bounds, case.tolerance)
    # Each end at the error that its own decision has: above the tolerance means proven.
    low, high = ratio_bounds(counts, case.share / len(bounds), case.alpha)
    found = case.standing("ok", "", log_e=log_e, canary=canary, production=production, unit=unit)
    found = replace(found, value=finite(estimate(counts)), low=finite(low), high=finite(high))
    if log_e >= -math.log(case.share):
        found.verdict = "regressed"
        end = f"proven worse than {_times(case.tolerance)}"
    elif case.rule.prove is not None:
        end = _proof(case, book, found, bounds, case.rule.prove)
    else:
        end = "nothing is proven against it"
    found.words = f"{_said(case, signals, shown, found)}: {end}"
    return found


def _signals(case: Case, book: EventBook) -> list[str]:
    """Of a latency all bounds there are: one that nobody was beyond yet is one of them too."""
    name = case.rule.name
    if case.rule.metric == "latency" and case.traffic is not None and case.rule.exceeds is None:
        frozen = [f"{name}:{at}" for at in range(len(case.traffic.latency_bounds.get(name, [])))]
        return frozen or book.signals(name)
    return book.signals(name)


def unit_of(book: EventBook) -> Literal["keys", "requests"]:
    """What `keys` counts: requests, where no request had a key."""
    return "keys" if book.keyed else "requests"


def crowded(case: Case) -> RuleStanding:
    """A rule that has seen so many keys that new ones look like old ones."""
    return case.standing(
        "undecided",
        "more than 8 million keys had it and cannot be told apart any more: it decides nothing",
    )


def _proof(
    case: Case, book: EventBook, found: RuleStanding, bounds: Sequence[_Counts], prove: float
) -> str:
    """Fill in how far the proof is; returns words."""
    log_proof = max(
        log_not_slower(seen, [_null(prove, counts, found.unit, users) for counts in seen])
        for seen, users in _steps(bounds, book)
    )
    nulls = [_null(prove, counts, found.unit, book.keys[1]) for counts in bounds]
    found.proof = reached(log_proof, case.alpha)
    if log_proof >= -math.log(case.alpha):
        found.needed_events, found.eta = 0, 0.0
        return f"proven below {_times(prove)}"
    found.verdict = "undecided"
    words = f"not yet proven below {_times(prove)}"
    if min(nulls) < 1 + _LEAST_LEFT * (prove - 1):
        return f"{words}, and too many keys have had it already for a proof to come"
    if case.rho is None:
        return words
    missing = [
        missing_for_proof(counts, null, case.rho, case.alpha)
        for counts, null in zip(bounds, nulls, strict=True)
    ]
    known = [one for one in missing if one is not None]
    if len(known) < len(missing):
        return words
    found.needed_events = max(known)
    seen = [sum(total(counts)) for counts in bounds]
    found.eta = finite(
        max(
            seconds_to(needed, case.look.rate * events / max(1, sum(seen)))
            for needed, events in zip(known, seen, strict=True)
        )
    )
    return f"{words}; about {found.needed_events:,} more events if the versions are alike"


def _steps(bounds: Sequence[_Counts], book: EventBook) -> Iterator[tuple[Sequence[_Counts], int]]:
    """What was known at the end of each weight, and is now; with production's users until then.

    A weight only rises, so the counts up to it are those of that time. What was proven by few
    users with the event stays proven when nearly everybody has had it.
    """
    rhos = sorted({rho for counts in bounds for rho in counts})
    met = book.exposures()
    for last in rhos[:-1]:
        users = sum(pair[1] for rho, pair in met.items() if rho <= last)
        yield [{rho: c[rho] for rho in c if rho <= last} for c in bounds], users
    yield bounds, book.keys[1]


def _null(prove: float, counts: _Counts, unit: str, users: int) -> float:
    """What has to be refuted: less than `prove` where users count once and many have had it."""
    if unit == "requests":
        return prove
    return ratio_of_users(prove, total(counts)[1] / users) if users else 1.0


def _said(case: Case, signals: Sequence[str], shown: int, found: RuleStanding) -> str:
    what = _bound(case, signals, shown)
    if not found.canary_events and not found.production_events:
        among = f"{found.canary_units:,} and {found.production_units:,} {found.unit}"
        return f"no event{what} yet among {among}"
    ratio = "canary alone" if found.value is None else f"canary {number(found.value)} × production"
    after = f"after {found.canary_events:,} and {found.production_events:,} events{what}"
    return f"{ratio}, {between(found.low, found.high)}, {after}"


def _bound(case: Case, signals: Sequence[str], shown: int) -> str:
    """Which of several bounds of a latency is told of."""
    rule = case.rule
    if rule.metric != "latency":
        return ""
    seconds = rule.exceeds
    if seconds is None and case.traffic is not None and shown < len(signals):
        frozen = case.traffic.latency_bounds.get(rule.name, [])
        place = signals[shown].partition(":")[2]
        if place.isdigit() and int(place) < len(frozen):
            return f" beyond {frozen[int(place)] * 1000:.3g}ms"
    return "" if seconds is None else f" beyond {seconds}"


def _missing(units: tuple[int, int]) -> str:
    if not any(units):
        return "no request that was drawn for one of the two versions yet"
    return f"no request of {'production' if units[0] else 'the canary'} yet to compare with"


def _times(ratio: float) -> str:
    return "production" if ratio == 1 else f"{number(ratio)} × production"
