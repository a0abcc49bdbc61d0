"""The report of a load test as one HTML page. Pure: a document goes in, markup comes out.

It loads nothing and runs nothing, so it can be kept with a build and opened years later. All text
that comes from elsewhere is escaped (`serving.report.svg.escaped`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from serving.loadtest.report import charts
from serving.loadtest.report.charts import Line, Mark
from serving.loadtest.report.document import Document, Figures, Latency, Part, Slice
from serving.loadtest.results import Against
from serving.loadtest.words import chance_words, figure_words
from serving.report.style import STYLE
from serving.report.svg import element, escaped
from serving.report.words import count, percent, short_time

__all__ = ["to_html"]

_SAID: Final = {
    "met": ("none", "all SLOs met"),
    "missed": ("trigger", "SLOs missed"),
    "invalid": ("alert", "invalid"),
}
"""By outcome: class of the level, words."""

_COLOURS: Final = {"p50": "production", "p90": "other", "p99": "canary", "max": "shadow"}
"""Quantiles drawn over time, and the class of their colour."""

_QUANTILES: Final = ("p50", "p90", "p99", "p99.9", "max")

_MORE: Final = """
.outcome { margin: .8rem 0 1.2rem } .yes, .no { white-space: nowrap } .yes { color: var(--good); font-weight: 600 }
.no { color: var(--trigger); font-weight: 600 } .wide { margin-bottom: .7rem }
td > .dim { display: inline-block; min-width: 13rem } .wide h3 { margin-top: 0 } .failures { --arm: var(--trigger) }
.wide svg[viewBox^="0 0 1140"] { min-width: 44rem }
.limit { stroke: var(--arm); stroke-width: 1.5; stroke-dasharray: 1 4 }
.facts { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)) }
.facts b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums }
.pair { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)) }
"""  # noqa: E501 - a line of style


def to_html(report: Document) -> str:
    """The document."""
    title = f"Load test of {report.scenario}"
    parts = [
        element("h1", "Load test: ", element("code", escaped(report.scenario))),
        element(
            "p",
            escaped(f"{report.target}, {report.protocol}, {_when(report.started)}, "
                    f"{report.seconds:.4g} s"),
            css="dim",
        ),
        _outcome(report),
        _facts(report.whole.figures),
        element("h2", "SLOs"),
        _slos(report),
        *_against(report.against),
        *_pictures(report),
        *_shares(report.whole.figures),
        *_problems(report.whole.figures),
        *_parts("Phases", report.phases),
        *(_parts("Kinds of requests", report.kinds) if len(report.kinds) > 1 else ()),
        element("h2", "Is it a measurement?"),
        _validity(report),
        _footer(report),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"{element('title', escaped(title))}<style>{STYLE}{_MORE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _when(started: str) -> str:
    return f"{started[:19].replace('T', ' ')} UTC"


def _outcome(report: Document) -> str:
    css, words = _SAID[report.outcome]
    said = [element("span", escaped(words), css="level")]
    missed = [check for check in report.slos if not check.ok]
    if report.outcome == "missed":
        said.append(escaped(f"{len(missed)} of {len(report.slos)}"))
    reasons = [*report.invalid, *(check.words for check in missed)]
    lines = "".join(element("li", escaped(reason)) for reason in reasons)
    return element(
        "section",
        element("header", *said),
        element("ul", lines) if lines else "",
        css=f"card verdict outcome {css}",
    )


def _facts(figures: Figures) -> str:
    latency = figures.latency
    facts = [
        ("requests", count(figures.scheduled)),
        ("successes a second", _or_dash(figures.ok_per_second, lambda value: f"{value:,.1f}")),
        ("without success", _or_dash(figures.error_rate, percent)),
        ("good within the deadline", _or_dash(figures.goodput, percent)),
        ("p50", _or_dash(latency.p50, short_time)),
        ("p99", _or_dash(latency.p99, short_time)),
        ("p99.9", _or_dash(latency.p999, short_time)),
    ]
    cards = [
        element("div", element("b", escaped(value)), element("span", escaped(name), css="dim"),
                css="card")
        for name, value in facts
    ]  # fmt: skip
    return element("div", *cards, css="facts")


def _slos(report: Document) -> str:
    rows = [
        [
            element("span", "✓ met", css="yes")
            if check.ok
            else element("span", "✗ missed", css="no"),
            escaped(check.name),
            escaped(check.wanted),
            escaped(check.measured),
            _dim(check.words),
        ]
        for check in report.slos
    ]
    return _table(["", "SLO", "wanted", "measured", ""], rows, numbers=(2, 3))


def _against(against: Against | None) -> list[str]:
    if against is None:
        return []
    rows = [
        [
            escaped(one.place) if one.figure == "p50" else "",
            escaped(one.figure),
            escaped(figure_words(one.figure, one.before)),
            escaped(figure_words(one.figure, one.now)),
            escaped("–" if one.ratio is None else f"{one.ratio:.3g}"),
            escaped(chance_words(one)),
        ]
        for one in against.figures
        if one.before is not None or one.now is not None
    ]
    said = [f"Before: {_when(against.started)}."]
    said += [
        f"{place} cannot be compared: {reason}." for place, reason in against.incomparable.items()
    ]
    if against.differences:
        said.append(f"The runs differ in {'; '.join(against.differences)}.")
    head = ["", "figure", "before", "now", "ratio", "likely by chance"]
    return [
        element("h2", "Against the run before"),
        element("p", escaped(" ".join(said)), css="dim"),
        _table(head, rows, numbers=range(2, 6)),
    ]


def _pictures(report: Document) -> list[str]:
    slices = report.slices
    if not slices:
        return [element("p", "Nothing was sent, so there is nothing to draw.", css="dim")]
    marks = [] if report.deadline is None else [Mark(name="deadline", value=report.deadline)]
    quantiles = [
        Line(name=name, css=css, values=[getattr(one, name) for one in slices])
        for name, css in _COLOURS.items()
    ]
    amounts = [
        Line(
            name="answered with success",
            css="production",
            values=_rate(slices, lambda one: one.ok),
        ),
        Line(name="without success", css="failures", values=_rate(slices, lambda one: one.failed)),
        # Drawn first: the others lie on it when all is well.
        Line(name="to be sent", css="reference", values=_rate(slices, lambda one: one.scheduled)),
    ]  # fmt: skip
    histogram = report.histogram
    dashed = " Dashed: the deadline." if marks else ""
    limits = list(_limits(report))
    dotted = " Dotted: SLOs of the quantile of that colour." if limits else ""
    return [
        element("h2", "Over time"),
        _card(
            "Latency by when a request was to be sent",
            f"Logarithmic. Successes, and requests without an answer.{dashed}{dotted}",
            _legend(quantiles) + charts.latency(slices, quantiles, [*marks, *limits]),
        ),
        _card("Requests a second", "", _legend(amounts) + charts.rates(slices, amounts)),
        element("h2", "Latency"),
        _card(
            "By percentile",
            f"Without warm-up. Each step to the right: ten times fewer are slower.{dashed}",
            charts.percentiles(histogram, marks)
            or element("p", "No request succeeded.", css="dim"),
        ),
    ]


def _limits(report: Document) -> Iterator[Mark]:
    """SLOs of the quantiles that are drawn, each for as long as its phase lasts."""
    phases = {one.phase for one in report.slices}
    for check in report.slos:
        if check.figure not in _COLOURS or check.at_most is None:
            continue
        everywhere = check.place not in phases  # the whole run
        of = [one for one in report.slices if everywhere or one.phase == check.place]
        yield Mark(
            name=check.name,
            value=check.at_most,
            css=_COLOURS[check.figure],
            start=of[0].start,
            end=of[-1].start + of[-1].seconds,
        )


def _rate(slices: Sequence[Slice], of: Callable[[Slice], int]) -> list[float | None]:
    return [of(one) / one.seconds for one in slices]


def _legend(lines: Sequence[Line]) -> str:
    swatches = (
        element("span", element("i", "\N{ZERO WIDTH SPACE}", css=line.css), escaped(line.name))
        for line in lines
    )
    return element("p", *swatches, css="legend")


def _card(heading: str, words: str, picture: str) -> str:
    said = element("p", escaped(words), css="dim") if words else ""
    return element("section", element("h3", escaped(heading)), said, picture, css="card wide")


def _shares(figures: Figures) -> list[str]:
    cards = [
        _card(heading, words, charts.shares(table, total, bad))
        for heading, words, table, total, bad in (
            ("Statuses", "of all that were sent", figures.statuses, figures.sent, figures.problems),
            ("Versions", "of the answers with success", figures.versions, figures.ok, ()),
            ("Roles", "of the answers with success", figures.roles, figures.ok, ()),
            ("Feature status", "of the answers that have one; an answer may have several",
             figures.feature_status, figures.with_features, ()),
        )
        if table
    ]  # fmt: skip
    return [element("h2", "Shares"), element("div", *cards, css="pair")] if cards else []


def _problems(figures: Figures) -> list[str]:
    if not figures.problems:
        return []
    rows = [
        [
            element("code", escaped(status)),
            escaped(count(figures.statuses.get(status, 0))),
            escaped(words),
        ]
        for status, words in sorted(
            figures.problems.items(), key=lambda one: -figures.statuses.get(one[0], 0)
        )
    ]
    table = _table(["status", "requests", "words of the first"], rows, numbers=(1,))
    return [element("h2", "What failed"), table]


def _parts(heading: str, parts: Sequence[Part]) -> list[str]:
    rows = []
    for part in parts:
        figures = part.figures
        name = escaped(part.name)
        name += " " + element("span", "warm-up", css="dim") if part.warmup else ""
        rows.append(
            [
                name,
                escaped(f"{part.seconds:.4g} s"),
                escaped(count(figures.scheduled)),
                escaped(_or_dash(figures.ok_per_second, lambda value: f"{value:,.1f}/s")),
                escaped(_or_dash(figures.error_rate, percent)),
                escaped(_or_dash(figures.goodput, percent)),
                *(escaped(value) for value in _quantiles(figures.latency)),
            ]
        )
    head = ["", "length", "requests", "successes", "failed", "good", *_QUANTILES]
    table = _table(head, rows, numbers=range(1, len(head)))
    return [element("h2", escaped(heading)), table]


def _validity(report: Document) -> str:
    generator = report.generator
    lag, waits = generator.lag, generator.waits
    waited = (
        f"{count(waits.count)} requests; part of their latency" if waits.count else "none had to"
    )
    late = (
        f"of {count(lag.count)} requests; the generator's own lateness, "
        f"p99 at most {short_time(generator.max_lag)} is fine"
    )
    rows = [
        [escaped(name), *(escaped(value) for value in _quantiles(values)), _dim(words)]
        for name, values, words in (
            ("left later than scheduled", lag, late),
            ("waited for a free connection", waits, waited),
        )
    ]
    if report.invalid:
        answer, words = element("span", "No.", css="no"), "; ".join(report.invalid)
    else:
        answer, words = element("span", "Yes.", css="yes"), "The generator kept its schedule."
    said = element("p", answer, " ", escaped(words))
    used = (
        f"The busiest of {generator.processes} generator processes used "
        if generator.processes > 1
        else "The generator used "
    ) + (
        f"{percent(generator.cpu_share)} of a core; at most {count(generator.most_in_flight)} "
        f"requests were in flight on {count(report.connections)} connections."
    )
    table = _table(["", *_QUANTILES, ""], rows, numbers=range(1, 6))
    return said + element("p", escaped(used), css="dim") + table


def _quantiles(latency: Latency) -> list[str]:
    values = (latency.p50, latency.p90, latency.p99, latency.p999, latency.max)
    return [_or_dash(value, short_time) for value in values]


def _dim(words: str) -> str:
    return element("span", escaped(words), css="dim")


def _or_dash(value: float | None, words: Callable[[float], str]) -> str:
    return "–" if value is None else words(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """A table; `head` is text, cells are markup, `numbers` are the columns set to the right."""
    side = dict.fromkeys(numbers, "n")
    top = element(
        "thead",
        element(
            "tr", *(element("th", escaped(one), css=side.get(at)) for at, one in enumerate(head))
        ),
    )
    body = element(
        "tbody",
        *(
            element("tr", *(element("td", cell, css=side.get(at)) for at, cell in enumerate(row)))
            for row in rows
        ),
    )
    return element("div", element("table", top, body), css="card")


def _footer(report: Document) -> str:
    said: list[tuple[str, str]] = [
        ("machine", _listed(report.machine)),
        ("versions", _listed(report.versions)),
        ("labels", _listed(report.labels)),
        ("seed", str(report.seed)),
        ("made with", report.command),
    ]
    entries = "".join(
        element("dt", escaped(name)) + element("dd", escaped(words))
        for name, words in said
        if words
    )
    return element("footer", element("dl", entries))


def _listed(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
