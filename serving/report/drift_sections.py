"""The page's parts about drift and data quality: verdicts, columns, traffic. Pure."""

from collections.abc import Sequence
from typing import Final

from serving.drift.report import ColumnDrift
from serving.drift.standing import Distribution, Standing, Watched
from serving.drift.verdict import LEVELS
from serving.report.arms import Arm, legend
from serving.report.charts import (
    ArmBins,
    Course,
    Rows,
    course,
    histogram,
    share_bars,
    strip,
    traffic,
)
from serving.report.svg import coded, element, escaped
from serving.report.words import count, moment, number, percent, probability

__all__ = ["Watch", "columns", "distributions", "level", "quality", "rows", "verdicts", "who"]

Watch = Sequence[tuple[Arm, Watched]]

_WORDS: Final = {"none": "no drift"}


def level(name: str, words: str | None = None) -> str:
    """A level as a badge."""
    return element("span", escaped(words or _WORDS.get(name, name)), css=f"level {name}")


def who(arm: Arm) -> str:
    """An arm's name, underlined in its colour."""
    return element("span", escaped(arm.name), css=f"who {arm.css}")


def verdicts(watch: Watch) -> str:
    """What is concluded of each version, with its reasons."""
    found = []
    for arm, one in watch:
        verdict, drift = one.verdict, one.standing.drift
        reasons = "".join(element("li", coded(reason)) for reason in verdict.reasons)
        said = element("ul", reasons) if reasons else element("p", coded(drift.words))
        when = ""
        if drift.start is not None and drift.end is not None:
            when = f", {moment(drift.start)} to {moment(drift.end)}"
        if not one.standing.is_current:
            when += "; no traffic since"
        found.append(
            element(
                "section",
                element("header", who(arm), level(verdict.level, verdict.level)),
                said,
                element("p", f"{count(drift.rows)} rows{when}", css="dim"),
                css=f"card verdict {verdict.level}",
            )
        )
    return element("div", *found, css="verdicts")


def columns(watch: Watch) -> str:
    """A table of columns for each version: all of the first, of others those that drift."""
    return "".join(_table(arm, one.standing, whole=at == 0) for at, (arm, one) in enumerate(watch))


def _table(arm: Arm, standing: Standing, *, whole: bool) -> str:
    drift, threshold = standing.drift, standing.options.min_effect
    shown = [one for one in drift.columns if whole or one.level != "none"]
    rest = len(drift.columns) - len(shown)
    heading = element("h3", who(arm))
    below = f"{rest} columns without drift." if rest else ""
    if drift.missing:
        below += f" Not counted: {', '.join(drift.missing)}."
    if standing.not_compared:
        names = ", ".join(standing.not_compared)
        below += f" Not compared, for the reference is of another model file: {names}."
    note = element("p", escaped(below.strip()), css="dim") if below else ""
    if not shown:
        return heading + note
    head = "".join(
        element("th", escaped(name), css="n" if right else None)
        for name, right in (
            ("column", False), ("level", False), ("PSI*", True), ("q", True), ("since", False),
            ("what moved most", False), (f"PSI* of {drift.windows} windows", False),
        )
    )  # fmt: skip
    body = "".join(_row(one, threshold) for one in shown)
    table = element("table", element("thead", element("tr", head)), element("tbody", body))
    return heading + element("div", table, css="card") + note


def _row(column: ColumnDrift, threshold: float) -> str:
    badge = level(column.level) if column.level != "none" else element("span", "–", css="dim")
    since = moment(column.since) if column.since is not None else ""
    return element(
        "tr",
        element("td", element("code", escaped(column.name))),
        element("td", badge),
        element("td", number(column.psi_star), css="n"),
        element("td", escaped(probability(column.q)), css="n"),
        element("td", escaped(since), css="since"),
        element("td", coded(column.direction)),
        element("td", strip(column.course, column.drifting, threshold)),
    )


def distributions(watch: Watch) -> str:
    """A card for each column, the worst first: its bins, and its course over the windows."""
    arms = [arm for arm, _ in watch]
    cards = [
        _card(name, [(arm, one.standing) for arm, one in watch]) for name in _worst_first(watch)
    ]
    return legend(arms, reference=True) + element("div", *cards, css="cards")


def _worst_first(watch: Watch) -> list[str]:
    worst: dict[str, tuple[int, float]] = {}
    for _, one in watch:
        for column in one.standing.drift.columns:
            found = (LEVELS.index(column.level), column.psi_star)
            worst[column.name] = max(found, worst.get(column.name, found))
        for shown in one.standing.distributions:
            worst.setdefault(shown.name, (0, -1.0))  # not compared: the last
    return sorted(worst, key=lambda name: (-worst[name][0], -worst[name][1], name))


def _card(name: str, standings: Sequence[tuple[Arm, Standing]]) -> str:
    bins: list[ArmBins] = []
    courses: list[Course] = []
    judged: list[ColumnDrift] = []
    drawn: Distribution | None = None
    for arm, standing in standings:
        counted = next((one for one in standing.distributions if one.name == name), None)
        if counted is not None:
            drawn = drawn or counted
            if counted.bins == drawn.bins:  # else its reference was changed a moment ago
                bins.append(ArmBins(arm=arm, rows=counted.window))
        column = next((one for one in standing.drift.columns if one.name == name), None)
        if column is not None:
            judged.append(column)
            starts = standing.drift.starts
            courses.append(
                Course(arm=arm, starts=starts, values=column.course, drifting=column.drifting)
            )
    if drawn is None:
        return ""
    worst = max((one.level for one in judged), key=LEVELS.index, default="none")
    moved = next((one.direction for one in judged if one.direction), "")
    options, seconds = standings[0][1].options, standings[0][1].window_seconds
    return element(
        "section",
        element(
            "header",
            element("h4", element("code", escaped(name))),
            level(worst) if worst != "none" else "",
        ),
        element("p", coded(moved), css=f"moved {worst}"),
        histogram(drawn, bins),
        course(name, courses, options.min_effect, seconds),
        css="card",
    )


def rows(watch: Watch) -> str:
    """Traffic by window."""
    seconds = watch[0][1].standing.window_seconds
    found = [Rows(arm=arm, windows=one.standing.rows_by_window) for arm, one in watch]
    return element("div", traffic(found, seconds), css="card")


def quality(watch: Watch) -> str:
    """What is wrong with the data, by version."""
    return "".join(_quality(arm, one.standing) for arm, one in watch)


def _quality(arm: Arm, standing: Standing) -> str:
    found = standing.quality
    if found is None:
        return element("p", who(arm), " nothing was counted")
    if not found.findings:
        return element("p", who(arm), escaped(f" {found.words}"))
    head = "".join(
        element("th", name, css="n" if right else None)
        for name, right in (
            ("what", False), ("finding", False), ("rows", True), ("share", True),
            ("usually", True), ("share above what is usual", False), ("q", True),
        )
    )  # fmt: skip
    body = "".join(
        element(
            "tr",
            element("td", coded(one.subject)),
            element("td", escaped(one.words)),
            element("td", count(one.rows), css="n"),
            element("td", percent(one.share), css="n"),
            element("td", percent(one.expected), css="n"),
            element("td", share_bars(one.share, one.expected)),
            element("td", escaped(probability(one.q)), css="n"),
        )
        for one in found.findings
    )
    table = element("table", element("thead", element("tr", head)), element("tbody", body))
    return element("h3", who(arm)) + element("div", table, css="card")
