"""Which class or tenth of the scores the canary predicts too often or too rarely."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from serving.rollout.evidence.relative_risk import ratio_bounds, total
from serving.rollout.evidence.shift import (
    Bin,
    critical_psi,
    log_shift,
    log_within,
    moved,
    psi,
)
from serving.rollout.judged.case import Case, finite, number, reached
from serving.rollout.judged.events import crowded, unit_of
from serving.rollout.looks import EventBook
from serving.rollout.standing import RuleStanding

__all__ = ["prediction_shift"]

_SHOWN_ERROR: Final = 0.01
"""Of the critical value that is shown beside the index."""

_Counts = Mapping[float, tuple[int, int]]


def prediction_shift(case: Case, book: EventBook) -> RuleStanding:
    """Judge `prediction_shift`; the ratio and its interval are those of the bin that moved most."""
    signals = _signals(case, book)
    bins: list[_Counts] = [book.events(signal) for signal in signals]
    totals = [total(counts) for counts in bins]
    canary, production = [pair[0] for pair in totals], [pair[1] for pair in totals]
    units = sum(canary), sum(production)
    if not units[0] or not units[1]:
        return case.standing("no_data", "no predictions of both versions yet")
    if book.crowded(case.rule.name):
        return replace(crowded(case), canary_units=units[0], production_units=units[1])
    log_e = log_shift(bins, case.tolerance)
    [most] = moved(bins, case.tolerance, most=1) or [Bin(0, None, 0.0)]
    low, high = ratio_bounds(bins[most.place], *[case.share / (2 * len(bins))] * 2)
    found = case.standing(
        "ok",
        "",
        log_e=log_e,
        canary=(canary[most.place], units[0]),
        production=(production[most.place], units[1]),
        unit=unit_of(book),
    )
    found = replace(found, value=finite(most.ratio), low=finite(low), high=finite(high))
    critical = critical_psi(units[0], units[1], len(bins), _SHOWN_ERROR)
    index = f"PSI {number(psi(canary, production))}"
    if math.isfinite(critical):
        index += f", by chance at most {number(critical)}"
    if log_e >= -math.log(case.share):
        found.verdict = "regressed"
        named = "; ".join(_name(case, signals, one) for one in moved(bins, case.tolerance))
        found.words = f"{named}: proven beyond {number(case.tolerance)} × either way ({index})"
        return found
    end = "nothing is proven against it"
    if (prove := case.rule.prove) is not None:
        log = log_within(bins, prove)
        found.proof = reached(log, case.alpha)
        if log >= -math.log(case.alpha):
            end = f"every bin is proven within {number(prove)} × either way"
        else:
            found.verdict = "undecided"
            end = f"not yet proven within {number(prove)} × either way"
    found.words = f"{len(bins)} bins, {units[0]:,} and {units[1]:,} predictions ({index}): {end}"
    return found


def _signals(case: Case, book: EventBook) -> list[str]:
    """Of scores all bins there are, of classes those seen."""
    name, seen = case.rule.name, set(book.signals(case.rule.name))
    if case.traffic is not None and (edges := case.traffic.bins.get(name)):
        seen |= {f"{name}:{at}" for at in range(len(edges) + 1)}
    return sorted(seen, key=_order)


def _order(signal: str) -> tuple[int, str]:
    """Bins by their number, classes by their name."""
    place = signal.partition(":")[2]
    return (int(place), "") if place.isdigit() else (-1, place)


def _name(case: Case, signals: Sequence[str], one: Bin) -> str:
    ratio = "" if one.ratio is None else f" {number(one.ratio)} × as often as production"
    if one.ratio == math.inf:
        ratio = " by the canary alone"
    return f"{_bin(case, signals[one.place])} predicted{ratio}"


def _bin(case: Case, signal: str) -> str:
    place = signal.partition(":")[2]
    edges = case.traffic.bins.get(case.rule.name, []) if case.traffic is not None else []
    if not edges or not place.isdigit() or int(place) > len(edges):
        return f"`{place}`"
    at = int(place)
    if at == 0:
        return f"scores below {number(edges[0])}"
    if at == len(edges):
        return f"scores from {number(edges[-1])}"
    return f"scores from {number(edges[at - 1])} to {number(edges[at])}"
