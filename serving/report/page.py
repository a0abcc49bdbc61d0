"""The report page of one model. Pure: what is known goes in, one HTML document comes out.

It loads nothing and runs nothing, so it can be mailed, kept beside a release and opened years
later. All text that comes from elsewhere is escaped (`serving.report.svg.escaped`). Its size is
bounded by bins times columns times versions: the bins were counted before, no row is in it.
"""

from collections.abc import Mapping, Sequence

import msgspec

from serving.drift.standing import Watched
from serving.performance.report import PerformanceReport
from serving.report.arms import arms_of, sorted_by_role
from serving.report.drift_sections import (
    Watch,
    columns,
    distributions,
    quality,
    rows,
    verdicts,
)
from serving.report.performance_sections import labels, performance, slices
from serving.report.style import STYLE
from serving.report.svg import coded, element, escaped
from serving.report.words import count, moment, span

__all__ = ["ModelReport", "page"]


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page shows."""

    model: str
    at: float
    """When it was asked for, seconds since 1970."""
    sluice: str
    """The gateway's version."""
    command: str
    """What makes this page."""
    words: str = ""
    """Why nothing is watched, if nothing is."""
    watched: Sequence[Watched] = ()
    performance: Mapping[str, PerformanceReport] = {}
    """By what rows are told apart by: `version`, `time`, `slice`."""
    notes: Sequence[str] = ()


_HELP = (
    "Wide grey bars are the reference, bars inside them the first version, marks the others; "
    "rest the pointer on a bin for its numbers. Below: PSI* by window, the dashed line is where "
    "a shift is told, large dots are windows that drifted. ∅ missing, ±∞ infinite, "
    "< and > outside the reference's range, new: a value the reference never had."
)


def page(report: ModelReport) -> str:
    """The document."""
    ordered = sorted_by_role(report.watched)
    arms = arms_of([(one.standing.version, one.standing.role) for one in ordered])
    watch: Watch = list(zip(arms, ordered, strict=True))
    parts = [element("h1", "Drift of ", element("code", escaped(report.model)))]
    if watch:
        parts += [_compared(watch), verdicts(watch)]
    else:
        parts.append(element("p", escaped(report.words or "nothing is known yet")))
    parts += [element("p", escaped(f"⚠ {alert}")) for alert in _alerts(report)]
    if watch:
        parts += [
            element("h2", "Columns"),
            columns(watch),
            element("h2", "Distributions, worst first"),
            element("p", escaped(_HELP), css="dim"),
            distributions(watch),
            element("h2", "Traffic"),
            rows(watch),
            element("h2", "Data quality"),
            quality(watch),
        ]
    for heading, section in (
        ("Performance", performance(report.performance)),
        ("Slices", slices(report.performance)),
        ("Labels", labels(report.performance)),
    ):
        if section:
            parts += [element("h2", heading), section]
    parts += [element("p", coded(note), css="dim") for note in _notes(report)]
    parts.append(_footer(report, watch))
    title = f"Drift of {report.model}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"{element('title', escaped(title))}<style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _compared(watch: Watch) -> str:
    reference = watch[0][1].standing.reference
    words = f"against {count(reference.rows)} rows of {reference.source}"
    return element("p", escaped(words), css="dim")


def _alerts(report: ModelReport) -> list[str]:
    """Each once, whatever rows were told apart by."""
    found = [alert for one in report.performance.values() for alert in one.alerts]
    return list(dict.fromkeys(found))


def _notes(report: ModelReport) -> list[str]:
    found = [note for one in report.performance.values() for note in one.notes]
    return list(dict.fromkeys([*report.notes, *found]))


def _footer(report: ModelReport, watch: Watch) -> str:
    said = [("made", f"{moment(report.at)} by Sluice {report.sluice}")]
    if watch:
        standing = watch[0][1].standing
        reference, options = standing.reference, standing.options
        rows_of = f"{count(reference.rows)} rows, frozen {reference.created}"
        told = f"q below {options.alpha:g} and PSI* above {options.min_effect:g}"
        windows = (
            f"of {span(standing.window_seconds)}, joined until they have {options.min_rows} rows"
        )
        said += [
            ("compared with", f"{reference.source}; {rows_of}"),
            ("told", told),
            ("windows", windows),
        ]
    said.append(("made with", report.command))
    entries = "".join(
        element("dt", escaped(name)) + element("dd", escaped(words)) for name, words in said
    )
    return element("footer", element("dl", entries))
