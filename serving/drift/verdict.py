"""What to make of it all: nothing, a note, an alert, or a request for training. Pure.

Drift is not harm. A model may do as well as ever on people who have changed (the demo's four
census years), and badly on people who have not. So three levels, each with its own evidence:

    inform    a column drifted
    alert     the score or an important column drifts in 2 of 3 windows; data quality is broken;
              the estimated loss has grown; labels do not come; records were lost
    trigger   harm: the realised loss has grown beyond its tolerance, with labels enough, and the
              losses one by one show a change; or, where labels are structurally late, the
              estimated loss has grown and the score drifts too
"""

import math
from typing import Final, Literal

import msgspec

from serving.drift.quality import Quality
from serving.drift.report import DriftReport

__all__ = ["LEVELS", "Evidence", "Level", "Loss", "Tolerances", "Verdict", "judge"]

Level = Literal["none", "inform", "alert", "trigger"]

LEVELS: Final[tuple[Level, ...]] = ("none", "inform", "alert", "trigger")
"""From the least to the gravest."""

_ORDER: Final[dict[Level, int]] = {level: place for place, level in enumerate(LEVELS)}
_Z: Final = 1.96


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """A mean loss over the window, beside the reference period's."""

    metric: str
    rows: int
    """Rows it is the mean of; labels, if it is realised."""
    now: float
    error: float
    """Standard error of `now`."""
    reference: float
    reference_error: float = 0.0

    @property
    def growth(self) -> float:
        """By how much it is larger than in the reference period."""
        return self.now - self.reference

    @property
    def least_growth(self) -> float:
        """Lower end of the growth's 95 % interval."""
        return self.growth - _Z * math.hypot(self.error, self.reference_error)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known at one moment; None or 0 where nothing is."""

    drift: DriftReport | None = None
    quality: Quality | None = None
    realised: Loss | None = None
    change_seen: bool | None = None
    """Whether the losses, one by one, show a change for the worse; None: nobody watches them."""
    estimated: Loss | None = None
    coverage: float | None = None
    """Share of the predictions past the horizon that have a label."""
    due: int = 0
    """Predictions past the horizon."""
    lost_records: int = 0
    """Records the prediction log dropped in the window."""


class Tolerances(msgspec.Struct, frozen=True, kw_only=True):
    """Where levels begin; the words are `monitoring`'s."""

    tolerance: float = 0.02
    min_labels: int = 1000
    min_coverage: float = 0.0
    score: str = ""
    labels_are_late: bool = False
    """Labels cannot come in time to tell; estimates may then ask for training."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The level and every reason for it, the gravest first."""

    level: Level
    reasons: list[str]
    evidence: Literal["", "realised", "estimated"] = ""
    """For `trigger`: what the harm was seen in."""
    quality_broken: bool = False
    labels: int = 0


def judge(evidence: Evidence, tolerances: Tolerances | None = None) -> Verdict:
    """Weigh the evidence of one moment."""
    limits = tolerances or Tolerances()
    found: list[tuple[Level, str]] = []
    _drift(evidence, found)
    _quality(evidence, limits, found)
    harm = _harm(evidence, limits, found)
    level: Level = max((one for one, _ in found), key=_ORDER.__getitem__, default="none")
    found.sort(key=lambda pair: -_ORDER[pair[0]])
    return Verdict(
        level=level,
        reasons=[words for _, words in found],
        evidence=harm,
        quality_broken=evidence.quality is not None and evidence.quality.broken,
        labels=evidence.realised.rows if evidence.realised else 0,
    )


def _drift(evidence: Evidence, found: list[tuple[Level, str]]) -> None:
    report = evidence.drift
    if report is None or report.level == "none":
        return
    found.extend(
        ("alert", f"`{column.name}` keeps drifting{column.direction and ': '}{column.direction}")
        for column in report.columns
        if column.level == "alert"
    )
    if report.level == "inform":
        found.append(("inform", report.words))


def _quality(evidence: Evidence, limits: Tolerances, found: list[tuple[Level, str]]) -> None:
    if evidence.quality is not None and evidence.quality.broken:
        found.append(("alert", f"data quality: {evidence.quality.words}"))
    if evidence.lost_records:
        found.append(("alert", f"{evidence.lost_records} records were not logged"))
    coverage = evidence.coverage
    if coverage is not None and evidence.due and coverage < limits.min_coverage:
        words = f"{coverage:.1%} of {evidence.due} predictions have their label"
        found.append(("alert", f"{words}; min_coverage is {limits.min_coverage:.1%}"))


def _harm(
    evidence: Evidence, limits: Tolerances, found: list[tuple[Level, str]]
) -> Literal["", "realised", "estimated"]:
    realised, estimated = evidence.realised, evidence.estimated
    if realised is not None and _has_grown(realised, limits):
        doubt = ""
        if realised.rows < limits.min_labels:
            doubt = f"{realised.rows} labels are fewer than min_labels, {limits.min_labels}"
        elif evidence.change_seen is False:
            doubt = "the losses one by one show no change yet, so it may be chance"
        if not doubt:
            found.append(("trigger", _grown(realised, limits)))
            return "realised"
        found.append(("alert", f"{_grown(realised, limits)}; but {doubt}"))
    if estimated is not None and _has_grown(estimated, limits):
        words = f"estimated {_grown(estimated, limits)}"
        known = realised is not None and realised.rows >= limits.min_labels
        if limits.labels_are_late and not known and _score_drifts(evidence, limits):
            found.append(("trigger", f"{words}, and the score drifts"))
            return "estimated"
        found.append(("alert", words))
    return ""


def _has_grown(loss: Loss, limits: Tolerances) -> bool:
    return loss.growth > limits.tolerance and loss.least_growth > 0


def _grown(loss: Loss, limits: Tolerances) -> str:
    return (
        f"{loss.metric} is {loss.now:.4g}, {loss.growth:.4g} more than the reference's "
        f"{loss.reference:.4g}; tolerance {limits.tolerance:.4g}"
    )


def _score_drifts(evidence: Evidence, limits: Tolerances) -> bool:
    columns = evidence.drift.columns if evidence.drift is not None else []
    return any(one.name == limits.score and one.level != "none" for one in columns)
