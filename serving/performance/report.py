"""What is told of a model's performance: values, ready to be shown, and the words for alerts."""

from collections.abc import Sequence
from typing import Final

import msgspec

from serving.performance.calibration import CalibrationPoint
from serving.performance.coverage import Coverage, DelayPoint
from serving.performance.figures import Figure
from serving.performance.slices import Gap, SliceReport

__all__ = [
    "Group",
    "LabelStates",
    "PerformanceReport",
    "SliceComparison",
    "coverage_alerts",
    "slice_alerts",
]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are told apart by version and role, and perhaps by a slice or by time.

    `column` and `value` name the slice; `bucket` is the beginning of the time bucket, seconds since
    1970. `rows` is how many were answered, `labelled` how many of them have a label. `calibration`
    is told of versions and roles only, and only where a score is known.
    """

    version: str = ""
    role: str = ""
    column: str = ""
    value: str = ""
    bucket: float | None = None
    rows: int
    labelled: int
    figures: list[Figure]
    calibration: list[CalibrationPoint] = []


class SliceComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of one column, as one version in one role treats them."""

    version: str
    role: str
    column: str
    groups: list[SliceReport]


class LabelStates(msgspec.Struct, frozen=True, kw_only=True):
    """Labels that are kept, and what has become of them.

    `late`: only after the horizon. `early`: only before the prediction was made. `orphan`: no
    such prediction was answered, yet or any more. `unreadable` places of the journal are skipped.
    """

    kept: int = 0
    joined: int = 0
    late: int = 0
    early: int = 0
    orphan: int = 0
    unreadable: int = 0


class PerformanceReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one model. Times are seconds since 1970.

    `alerts` are findings that somebody should act on, `notes` what a reader must know.
    """

    model: str
    task: str
    by: str
    since: float
    until: float
    rows: int
    labelled: int
    groups: list[Group]
    slices: list[SliceComparison]
    coverage: list[Coverage]
    delay: list[DelayPoint]
    labels: LabelStates
    alerts: list[str]
    notes: list[str]


_WORDS: Final = {
    "selection_rate": "selection rate",
    "recall": "true positive rate",
    "false_positive_rate": "false positive rate",
    "calibration_gap": "calibration gap",
}


def slice_alerts(comparisons: Sequence[SliceComparison]) -> list[str]:
    """One sentence a gap that is beyond the tolerance, proven."""
    return [
        f"{one.version} ({one.role}), {one.column}={group.group}: {_gap_words(gap)}"
        for one in comparisons
        for group in one.groups
        for gap in group.gaps
        if gap.state == "beyond"
    ]


def _gap_words(gap: Gap) -> str:
    what = _WORDS[gap.measure]
    high = "∞" if gap.high is None else f"{gap.high:.3f}"
    around = f"({gap.low:.3f} to {high})"
    if gap.kind == "ratio":
        return f"{what} is {gap.value:.3f} times that of the others {around}"
    return f"{what} differs from the others' by {gap.value:+.3f} {around}"


def coverage_alerts(found: Sequence[Coverage], differing: Sequence[str], least: float) -> list[str]:
    """Too few labels, surely; or versions whose figures cannot be compared for want of them."""
    alerts = [
        f"{one.name}: {one.value:.1%} of predictions past the horizon have a label "
        f"({one.low:.1%} to {one.high:.1%}), fewer than the {least:.1%} of min_coverage"
        for one in found
        if one.high < least
    ]
    if differing:
        alerts.append(
            f"label coverage of {', '.join(differing)} differs from the other versions': "
            "their figures are of differently chosen rows"
        )
    return alerts
