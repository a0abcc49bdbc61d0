"""The page's parts about performance: over time, calibration, slices, labels. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from serving.performance.figures import Figure
from serving.performance.report import Group, PerformanceReport, SliceComparison
from serving.report.arms import Arm, arms_of, legend
from serving.report.drift_sections import who
from serving.report.interval_charts import (
    Estimate,
    ForestRow,
    Trend,
    calibration,
    covered,
    delays,
    forest,
    trend,
)
from serving.report.svg import element, escaped
from serving.report.words import between, count, number, percent

__all__ = ["labels", "performance", "slices"]

_SHARES: Final = (
    "accuracy", "selection_rate", "recall", "false_positive_rate", "precision", "base_rate",
    "coverage",
)  # fmt: skip
_TRENDS: Final = (
    "accuracy", "auc", "brier", "calibration_gap", "selection_rate", "base_rate",
    "absolute_error", "rmse", "bias",
)  # fmt: skip
"""What is drawn over time, where it is known."""


def performance(reports: Mapping[str, PerformanceReport]) -> str:
    """Figures by version, their course and the calibration; empty without a figure."""
    whole, by_time = reports.get("version"), reports.get("time")
    groups = [group for group in whole.groups if group.figures] if whole is not None else []
    if not groups:
        return ""
    arms = arms_of([(group.version, group.role) for group in groups])
    parts = [legend(arms), _figures(groups, arms)]
    cards = _trends(by_time, arms) if by_time is not None else []
    curves = [
        (arm, group.calibration)
        for arm in arms
        for group in groups
        if (group.version, group.role) == (arm.version, arm.role) and group.calibration
    ]
    if curves:
        cards.insert(0, _card("calibration", calibration(curves), tall=True))
    return "".join(parts) + element("div", *cards, css="cards")


def _card(name: str, picture: str, *, tall: bool = False) -> str:
    heading = element("header", element("h4", escaped(name)))
    return element("section", heading, picture, css="card tall" if tall else "card")


def _words_of(name: str) -> Callable[[float], str]:
    return percent if name in _SHARES else number


def _figures(groups: Sequence[Group], arms: Sequence[Arm]) -> str:
    """One line a figure, one column a version."""
    of = {(group.version, group.role): group for group in groups}
    shown = [(arm, of[arm.version, arm.role]) for arm in arms if (arm.version, arm.role) in of]
    names = list(dict.fromkeys(one.name for _, group in shown for one in group.figures))
    head = element("th", "figure, 95 % interval") + "".join(
        element("th", who(arm), css="n") for arm, _ in shown
    )
    sizes = [
        (
            "predictions, of them labelled",
            [f"{count(group.rows)}, {count(group.labelled)}" for _, group in shown],
        )
    ]
    sizes += [(_spoken(name), [_cell(name, group.figures) for _, group in shown]) for name in names]
    body = "".join(
        element(
            "tr",
            element("td", escaped(name)),
            *(element("td", escaped(cell), css="n") for cell in cells),
        )
        for name, cells in sizes
    )
    table = element("table", element("thead", element("tr", head)), element("tbody", body))
    return element("div", table, css="card", style="margin-bottom:.7rem")


def _cell(name: str, figures: Sequence[Figure]) -> str:
    one = next((figure for figure in figures if figure.name == name), None)
    if one is None:
        return "–"
    words = _words_of(name)
    if one.low is None or one.high is None:
        return f"{words(one.value)} (too few)"
    return f"{words(one.value)} ({between(words(one.low), words(one.high))})"


def _spoken(name: str) -> str:
    return {"auc": "AUC", "rmse": "RMSE", "brier": "Brier score"}.get(name, name.replace("_", " "))


def _trends(report: PerformanceReport, arms: Sequence[Arm]) -> list[str]:
    cards = []
    for name in _TRENDS:
        found = []
        for arm in arms:
            points = [
                (group.bucket, _estimate(one))
                for group in report.groups
                if (group.version, group.role) == (arm.version, arm.role)
                and group.bucket is not None
                for one in group.figures
                if one.name == name
            ]
            if points:
                points.sort(key=lambda point: point[0])
                found.append(Trend(arm=arm, points=points))
        if found:
            cards.append(_card(_spoken(name), trend(_spoken(name), found, share=name in _SHARES)))
    return cards


def _estimate(one: Figure) -> Estimate:
    return Estimate(value=one.value, low=one.low, high=one.high, rows=one.rows)


def slices(reports: Mapping[str, PerformanceReport]) -> str:
    """Who is treated differently: a picture for each version and column; empty without slices."""
    report = reports.get("slice")
    if report is None or not report.slices:
        return ""
    arms = arms_of([(one.version, one.role) for one in report.slices])
    whole = reports.get("version")
    parts = []
    for one in report.slices:
        arm = next(arm for arm in arms if (arm.version, arm.role) == (one.version, one.role))
        of_all = [] if whole is None else whole.groups
        parts.append(_slice(one, arm, of_all))
    return "".join(parts)


def _slice(one: SliceComparison, arm: Arm, of_all: Sequence[Group]) -> str:
    names = list(dict.fromkeys(figure.measure for group in one.groups for figure in group.figures))
    if not names:
        return ""
    all_rows = next(
        (
            group.figures
            for group in of_all
            if (group.version, group.role) == (arm.version, arm.role)
        ),
        [],
    )
    overall = [next((f.value for f in all_rows if f.name == name), None) for name in names]
    rows = []
    for group in one.groups:
        by_name = {figure.measure: figure for figure in group.figures}
        beyond = {gap.measure for gap in group.gaps if gap.state == "beyond"}
        estimates = [
            Estimate(value=f.value, low=f.low, high=f.high, rows=f.rows)
            if (f := by_name.get(name)) is not None
            else None
            for name in names
        ]
        rows.append(
            ForestRow(
                name=group.group,
                rows=group.rows,
                estimates=estimates,
                beyond=[name in beyond for name in names],
            )
        )
    heading = element("h3", element("code", escaped(one.column)), " ", who(arm))
    picture = forest(one.column, arm, [_spoken(name) for name in names], rows, overall)
    return heading + element("div", picture, css="card")


def labels(reports: Mapping[str, PerformanceReport]) -> str:
    """How many predictions have a label, and how long labels take; empty without labels."""
    report = reports.get("version")
    if report is None or not report.labels.kept:
        return ""
    states = report.labels
    said = (
        f"{count(report.labelled)} of {count(report.rows)} predictions have a label. "
        f"{count(states.kept)} labels are kept: {count(states.orphan)} without a prediction, "
        f"{count(states.late)} later than the horizon, {count(states.early)} before it was made."
    )
    cards = []
    if report.coverage:
        roles = {f"{group.version} ({group.role})": group for group in report.groups}
        arms = {arm.name: arm.css for arm in arms_of([(g.version, g.role) for g in roles.values()])}
        css = [arms.get(one.name, "other") for one in report.coverage]
        cards.append(_card("labelled, of those past the horizon", covered(report.coverage, css)))
    if len(report.delay) > 1:
        cards.append(_card("labelled, by time since the prediction", delays(report.delay)))
    return element("p", escaped(said)) + element("div", *cards, css="cards")
