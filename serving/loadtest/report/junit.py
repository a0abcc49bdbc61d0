"""The verdict as JUnit XML, as CI systems read it: one test case an SLO, one for the run. Pure.

The dialect is what Jenkins, GitLab, GitHub's reporters and Buildkite share: `testsuites` >
`testsuite` > `properties`, `testcase` > `failure`, `error`, `skipped`. An SLO that is missed is a
failure. A run that says nothing is an error, and SLOs that seem met in it are skipped: they are no
good news.
"""

from typing import Final

from serving.loadtest.checks import Check
from serving.loadtest.report.document import Document
from serving.report.svg import element, escaped

__all__ = ["RUN_CASE", "to_junit"]

RUN_CASE: Final = "the run is a measurement"
"""Name of the case about the run itself."""

_NOT_CONCLUDED: Final = "the run is invalid, so this says nothing about the target"


def to_junit(report: Document) -> str:
    """The document, with its XML declaration; to be written as UTF-8."""
    # Without an SLO the run's case is the only one: a suite that is empty would look like success.
    cases = [_run_case(report)]
    seen: dict[str, int] = {}
    for check in report.slos:
        title = f"{check.name} {check.wanted}"
        seen[title] = seen.get(title, 0) + 1
        title += f" ({seen[title]})" if seen[title] > 1 else ""
        cases.append(_case(report, title, *_outcome(report, check)))
    failures = sum(not check.ok for check in report.slos)
    skipped = sum(check.ok for check in report.slos) if report.invalid else 0
    counts = {
        "tests": len(cases),
        "failures": failures,
        "errors": int(bool(report.invalid)),
        "time": f"{report.seconds:.3f}",
    }
    suite = element(
        "testsuite",
        element("properties", *_properties(report)),
        *cases,
        element("system-out", escaped(_summary(report))),
        name=f"sluice loadtest {report.scenario}",
        **counts,
        skipped=skipped,
        timestamp=report.started[:19],
    )
    suites = element("testsuites", suite, name="sluice loadtest", **counts)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{suites}\n'


def _run_case(report: Document) -> str:
    if not report.invalid:
        return _case(report, RUN_CASE)
    words = "; ".join(report.invalid)
    return _case(
        report, RUN_CASE, element("error", escaped(words), message=words, type="InvalidRun")
    )


def _outcome(report: Document, check: Check) -> tuple[str, ...]:
    if not check.ok:
        said = f"{check.words}\nwanted: {check.wanted}\nmeasured: {check.measured}"
        return (element("failure", escaped(said), message=check.words, type="SloMissed"),)
    return (element("skipped", message=_NOT_CONCLUDED),) if report.invalid else ()


def _case(report: Document, title: str, *children: str) -> str:
    return element(
        "testcase",
        *children,
        classname=f"sluice.loadtest.{report.scenario}",
        name=title,
        time=f"{report.seconds:.3f}",
    )


def _properties(report: Document) -> list[str]:
    facts = {
        "target": report.target,
        "protocol": report.protocol,
        "seed": str(report.seed),
        "outcome": report.outcome,
        **{f"label.{key}": value for key, value in report.labels.items()},
        **{f"version.{key}": value for key, value in report.versions.items()},
        **{f"machine.{key}": value for key, value in report.machine.items()},
    }
    return [element("property", name=key, value=value) for key, value in facts.items()]


def _summary(report: Document) -> str:
    lines = [f"{check.name}: {check.measured} (wanted {check.wanted})" for check in report.slos]
    figures = report.whole.figures
    lines.append(f"{figures.scheduled} requests, {figures.failed} of them without success")
    return "\n".join(lines)
