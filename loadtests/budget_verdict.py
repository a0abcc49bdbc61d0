"""Whether requests have become dearer than the budget says, and in which station. Pure.

Everything is a ratio to the floor's instructions per request, counted in the same run: another
processor, Python or numpy moves both.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

__all__ = [
    "Budget",
    "Counts",
    "Growth",
    "LoadCounts",
    "Tolerance",
    "judge",
    "ratios",
    "table",
    "words",
]

_SIXTEEN, _ALONE = "sixteen in flight", "alone"


class Counts(msgspec.Struct, forbid_unknown_fields=True):
    """What one request of a case costs: instructions, or (in a budget) multiples of the floor.

    `sixteen` and `alone` are requests with as many in flight. `stations` are counted alone; they
    add up to about `alone`.
    """

    sixteen: float
    alone: float
    stations: dict[str, float]


class LoadCounts(msgspec.Struct):
    """What was counted of one model: instructions per request of its floor and of each case.

    `burdened` is the first case again with work that nobody needs, if that was asked for; of the
    first model only.
    """

    name: str
    floor: float
    cases: dict[str, Counts]
    burdened: Counts | None = None


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much growth passes: of a whole request, of one station.

    A station's growth counts only if it is also `share` of the request that it is part of.
    """

    total: float = 0.08
    station: float = 0.15
    share: float = 0.03


class Budget(msgspec.Struct, forbid_unknown_fields=True):
    """What `budget.yaml` holds. `counted_with` are the versions of what else is counted."""

    counted_with: dict[str, str]
    cases: dict[str, Counts]
    tolerance: Tolerance = Tolerance()


class Growth(msgspec.Struct, frozen=True):
    """One figure of a case that moved: `what` is a station, or how many are in flight."""

    case: str
    what: str
    budget: float
    now: float

    @property
    def share(self) -> float:
        """By which part of itself it grew; negative if it shrank."""
        return self.now / self.budget - 1 if self.budget > 0 else float("inf")

    def __str__(self) -> str:
        return f"{self.what} {self.budget:.2f} → {self.now:.2f} of the floor ({self.share:+.1%})"


def ratios(loads: Sequence[LoadCounts], *, burdened: bool = False) -> dict[str, Counts]:
    """Every case in multiples of its floor; with `burdened`, the first as it was then."""
    found = {}
    for load in loads:
        for number, (name, counts) in enumerate(load.cases.items()):
            taken = load.burdened if burdened and not number and load.burdened else counts
            found[name] = Counts(
                sixteen=round(taken.sixteen / load.floor, 4),
                alone=round(taken.alone / load.floor, 4),
                stations={
                    station: round(count / load.floor, 4)
                    for station, count in taken.stations.items()
                },
            )
    return found


def _whole(case: str, budget: Counts, now: Counts) -> list[Growth]:
    return [
        Growth(case, _ALONE, budget.alone, now.alone),
        Growth(case, _SIXTEEN, budget.sixteen, now.sixteen),
    ]


def _stations(case: str, budget: Counts, now: Counts) -> list[Growth]:
    """Every station of either, in a request's order."""
    return [
        Growth(case, name, budget.stations.get(name, 0.0), now.stations.get(name, 0.0))
        for name in dict.fromkeys([*now.stations, *budget.stations])
    ]


def judge(budget: Budget, now: Mapping[str, Counts]) -> list[Growth]:
    """Everything that grew beyond its tolerance.

    A case that the budget does not have, or that was not counted, is a growth from or to nothing.
    """
    allowed, grown = budget.tolerance, []
    for case in dict.fromkeys([*budget.cases, *now]):
        before, after = budget.cases.get(case), now.get(case)
        if before is None or after is None:
            grown.append(
                Growth(case, _ALONE, before.alone if before else 0.0, after.alone if after else 0.0)
            )
            continue
        grown += [one for one in _whole(case, before, after) if one.share > allowed.total]
        grown += [
            one
            for one in _stations(case, before, after)
            if one.share > allowed.station and one.now - one.budget > allowed.share * before.alone
        ]
    return grown


def words(budget: Budget, now: Mapping[str, Counts], with_: Mapping[str, str]) -> list[str]:
    """What to tell a person: what grew and where, what shrank, what else is different."""
    grown = judge(budget, now)
    said = []
    for case in dict.fromkeys(one.case for one in grown):
        said += _case_words(case, budget, now, [one for one in grown if one.case == case])
    if grown:
        said.append(
            "If it is wanted: `python loadtests/budget.py --update`, and the reason in the commit."
        )
    said += [
        f"{case} costs less: {one}. Lower the budget (--update), or the next growth goes unseen."
        for case in budget.cases.keys() & now.keys()
        for one in _whole(case, budget.cases[case], now[case])
        if one.share < -budget.tolerance.total
    ]
    said += [
        f"counted with {name} {with_.get(name, 'none')}, the budget with {version}"
        for name, version in budget.counted_with.items()
        if with_.get(name) != version
    ]
    return said


def _case_words(
    case: str, budget: Budget, now: Mapping[str, Counts], grown: Sequence[Growth]
) -> list[str]:
    before, after = budget.cases.get(case), now.get(case)
    if before is None:
        return [f"{case} is not in the budget"]
    if after is None:
        return [f"{case} is in the budget, but nothing was counted of it"]
    whole = [one for one in grown if one.what in (_ALONE, _SIXTEEN)]
    stations = [one for one in grown if one not in whole]
    said = [
        f"{case} costs more: {one}; up to {budget.tolerance.total:+.0%} passes" for one in whole
    ]
    said += [f"{case}: it grew in the station {one}" for one in stations]
    if not stations:
        most = max(_stations(case, before, after), key=lambda one: one.now - one.budget)
        said.append(
            f"{case}: no station grew much by itself, most of all {most}"
            if any(one.what == _ALONE for one in whole)
            else f"{case}: alone it costs what it did; look at what requests share (batches,"
            " turns of the loop)"
        )
    return said


_ROW: Final = "{:<12} {:<18} {:>8} {:>8} {:>8}"


def table(budget: Budget, now: Mapping[str, Counts]) -> list[str]:
    """A row a figure: case, what, budget, now, change."""
    rows = [_ROW.format("case", "what", "budget", "now", "change")]
    nothing = Counts(0.0, 0.0, {})
    for case, after in now.items():
        before = budget.cases.get(case, nothing)
        for one in [*_whole(case, before, after), *_stations(case, before, after)]:
            change = f"{one.share:+.1%}" if one.budget > 0 else "new"
            rows.append(_ROW.format(case, one.what, f"{one.budget:.3f}", f"{one.now:.3f}", change))
    return rows
