"""Who is treated differently: each group of a column against everybody else.

A group is told apart only where its interval lies beyond the tolerance, and only after correcting
for how many groups and measures were looked at. A difference that small groups show by chance is
no finding; a large difference that cannot be proven yet is listed as undecided.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from serving.performance.counts import Counts, Moments
from serving.performance.figures import mean, share
from serving.performance.intervals import (
    CONFIDENCE,
    Interval,
    benjamini_hochberg,
    beyond,
    difference,
    ratio,
)

__all__ = ["Gap", "SliceFigure", "SliceReport", "Tolerance", "compare_slices"]

State = Literal["beyond", "within", "undecided", "few"]


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """What is let pass.

    `ratio` of selection rates is the four-fifths rule (29 CFR 1607.4 D), `gap` an absolute
    difference of rates or of calibration; a group or its remainder with fewer than `min_rows`
    rows of the measure is not compared.
    """

    ratio: float = 0.8
    gap: float = 0.1
    min_rows: int = 100


class SliceFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of one group. `low` and `high` are None where too little is known."""

    measure: str
    value: float
    low: float | None
    high: float | None
    rows: int


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """One group against all others.

    `kind` is `difference` (group less others) or `ratio` (group by others). `q` is the share of
    false findings if this and all that are as sure are believed. `state`: `beyond` the tolerance,
    proven; `within` it, the whole interval; `undecided`; or `few` rows, not compared.
    """

    measure: str
    kind: Literal["difference", "ratio"]
    value: float | None
    low: float | None
    high: float | None
    q: float
    state: State


class SliceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One group: its value of the column, its rows, its figures and its gaps."""

    group: str
    rows: int
    figures: list[SliceFigure]
    gaps: list[Gap]


_RATES: Final = ("accuracy", "selection_rate", "recall", "false_positive_rate")
_DIFFERENCES: Final = ("recall", "false_positive_rate", "calibration_gap")
_SIGNED: Final = (-1.0, 1.0)


class _Test(msgspec.Struct):
    """A gap before it is known how many others were looked at."""

    gap: Gap
    p: float | None


def compare_slices(
    groups: Mapping[str, Counts],
    tolerance: Tolerance | None = None,
    confidence: float = CONFIDENCE,
) -> list[SliceReport]:
    """Compare every group of one column with all others, the largest first; of two, the smaller.

    Args:
        groups: counts by the column's value.
        tolerance: what is let pass; the default one if not given.
        confidence: of the intervals; 1 - confidence is the share of false findings.
    """
    allowed = tolerance or Tolerance()
    tests = {
        name: _tests(groups[name], _others(groups, name), allowed, confidence)
        for name in _compared(groups)
    }
    flat = [test for of_group in tests.values() for test in of_group if test.p is not None]
    adjusted = benjamini_hochberg([test.p for test in flat if test.p is not None])
    for test, q in zip(flat, adjusted, strict=True):
        state = "beyond" if q <= 1 - confidence else test.gap.state
        test.gap = msgspec.structs.replace(test.gap, q=q, state=state)
    reports = [
        SliceReport(
            group=name,
            rows=counts.rows,
            figures=_figures(counts, confidence),
            gaps=[test.gap for test in tests.get(name, ())],
        )
        for name, counts in groups.items()
    ]
    return sorted(reports, key=lambda report: (-report.rows, report.group))


def _compared(groups: Mapping[str, Counts]) -> list[str]:
    """All of them; of two only the smaller one: the other's gaps are the same, turned round."""
    if len(groups) != 2:
        return list(groups)
    return [min(groups, key=lambda name: (groups[name].rows, name))]


def _others(groups: Mapping[str, Counts], name: str) -> Counts:
    others = Counts(measures={})
    for other, counts in groups.items():
        if other != name:
            others += counts
    return others


def _interval(measure: str, of: Moments, confidence: float) -> Interval | None:
    return share(of, confidence) if measure in _RATES else mean(of, _SIGNED, confidence)


def _figures(counts: Counts, confidence: float) -> list[SliceFigure]:
    found = []
    for measure in (*_RATES, "calibration_gap"):
        of = counts.measure(measure)
        if of.mean is None:
            continue
        around = _interval(measure, of, confidence)
        found.append(
            SliceFigure(
                measure=measure,
                value=of.mean,
                low=None if around is None else around.low,
                high=None if around is None else around.high,
                rows=of.rows,
            )
        )
    return found


def _tests(own: Counts, others: Counts, allowed: Tolerance, confidence: float) -> list[_Test]:
    tests = [_ratio_test(own, others, allowed, confidence)]
    tests += [_difference_test(one, own, others, allowed, confidence) for one in _DIFFERENCES]
    return [test for test in tests if test is not None]


def _few(measure: str, kind: Literal["difference", "ratio"]) -> _Test:
    return _Test(
        Gap(measure=measure, kind=kind, value=None, low=None, high=None, q=1.0, state="few"), None
    )


def _ratio_test(own: Counts, others: Counts, allowed: Tolerance, confidence: float) -> _Test | None:
    """Selection rates: too low against the others, or the others' too low against this."""
    one, other = own.measure("selection_rate"), others.measure("selection_rate")
    if one.mean is None or other.mean is None:
        return None
    if min(one.rows, other.rows) < allowed.min_rows or other.mean <= 0:
        return _few("selection_rate", "ratio")
    value = one.mean / other.mean
    around = ratio(one.mean, share(one, confidence), other.mean, share(other, confidence))
    lowest, highest = allowed.ratio, 1 / allowed.ratio
    if value < 1:
        p = beyond(value, around.high, lowest, confidence)
    else:
        p = beyond(value, around.low, highest, confidence)
    inside = around.low >= lowest and around.high <= highest
    return _Test(
        Gap(
            measure="selection_rate",
            kind="ratio",
            value=value,
            low=around.low,
            high=around.high if around.high != float("inf") else None,
            q=1.0,
            state="within" if inside else "undecided",
        ),
        p,
    )


def _difference_test(
    measure: str, own: Counts, others: Counts, allowed: Tolerance, confidence: float
) -> _Test | None:
    one, other = own.measure(measure), others.measure(measure)
    if one.mean is None or other.mean is None:
        return None
    of_one, of_other = _interval(measure, one, confidence), _interval(measure, other, confidence)
    if min(one.rows, other.rows) < allowed.min_rows or of_one is None or of_other is None:
        return _few(measure, "difference")
    value = one.mean - other.mean
    around = difference(one.mean, of_one, other.mean, of_other)
    if value < 0:
        p = beyond(value, around.high, -allowed.gap, confidence)
    else:
        p = beyond(value, around.low, allowed.gap, confidence)
    inside = around.low >= -allowed.gap and around.high <= allowed.gap
    return _Test(
        Gap(
            measure=measure,
            kind="difference",
            value=value,
            low=around.low,
            high=around.high,
            q=1.0,
            state="within" if inside else "undecided",
        ),
        p,
    )
