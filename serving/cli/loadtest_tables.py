"""A load test's outcome for people: what happened, phase by phase, and the verdict."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from serving.cli.output import plain_table
from serving.loadtest.words import chance_words, figure_words
from serving.report.words import short_time

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from serving.loadtest.results import Against, Counts, PhaseResult, Result
    from serving.loadtest.slo import Verdict

__all__ = ["shown"]


def shown(result: "Result", verdict: "Verdict") -> "Group":
    """Everything, the verdict last."""
    from rich.console import Group

    return Group(*_parts(result, verdict))


def _parts(result: "Result", verdict: "Verdict") -> Iterator["RenderableType"]:
    from rich.text import Text

    yield Text(
        f"{result.scenario} against {result.target} ({result.protocol}), "
        f"{result.seconds:.1f} s, {result.connections} connections, seed {result.seed}"
    )
    yield Text()
    yield _phases(result)
    for name, table in _tables(result.whole):
        total = sum(table.values())
        words = ", ".join(
            f"{key} {count / total:.1%}" for key, count in sorted(table.items(), key=_most)
        )
        yield Text(f"{name}: {words}", style="dim")
    for status, words in result.whole.problems.items():
        yield Text(f"{status}: {words}", style="dim")
    lag = result.generator.lag
    if lag.count:
        yield Text(
            f"generator: requests left {short_time(lag.quantile(0.99))} late (p99), "
            f"{short_time(lag.largest)} at most; {result.generator.cpu_share:.0%} of a core",
            style="dim",
        )
    if result.against is not None:
        yield Text()
        yield from _against(result.against)
    yield Text()
    for check in verdict.checks:
        mark = Text("✓ ", style="green") if check.ok else Text("✗ ", style="bold red")
        yield mark + Text(check.words)
    for reason in verdict.invalid:
        yield Text("✗ ", style="bold red") + Text(reason)
    yield _verdict(result, verdict)


def _verdict(result: "Result", verdict: "Verdict") -> "RenderableType":
    from rich.text import Text

    missed = sum(not check.ok for check in verdict.checks)
    words = {
        "met": "met: every check holds",
        "missed": f"missed: {missed} of {len(verdict.checks)} checks",
        "invalid": "invalid: this run says nothing about the target",
    }[verdict.outcome]
    if verdict.outcome == "invalid" and result.whole.scheduled and not result.whole.ok:
        words = "invalid: no request succeeded"
    if verdict.outcome == "met" and len(verdict.checks) == 1:
        words = "met, but the scenario has no `slos`: only the schedule was judged"
    return Text(words, style="bold green" if verdict.outcome == "met" else "bold red")


def _phases(result: "Result") -> "Table":
    from rich.table import Table

    table: Table = plain_table(
        *("phase", "seconds", "requests", "ok/s", "ok", "good", "p50", "p90", "p99", "p99.9", "max")
    )
    for phase in result.phases:
        table.add_row(
            f"{phase.name} (warm-up)" if phase.warmup else phase.name, *_figures(phase, result)
        )
    return table


def _figures(phase: "PhaseResult", result: "Result") -> Iterator[str]:
    counts = phase.counts
    yield f"{phase.seconds:.1f}"
    yield str(counts.scheduled)
    yield f"{counts.ok / phase.seconds:.1f}" if phase.seconds else "-"
    yield f"{counts.ok / counts.scheduled:.2%}" if counts.scheduled else "-"
    has = counts.scheduled and result.deadline is not None
    yield f"{counts.good / counts.scheduled:.2%}" if has else "-"
    for seconds in counts.latency.quantiles((0.5, 0.9, 0.99, 0.999, 1.0)):
        yield "-" if math.isnan(seconds) else short_time(seconds)


def _against(against: "Against") -> Iterator["RenderableType"]:
    from rich.text import Text

    table = plain_table("against before", "figure", "before", "now", "ratio", "by chance")
    place = ""
    for one in against.figures:
        if one.before is None and one.now is None:
            continue
        table.add_row(
            "" if one.place == place else one.place,
            one.figure,
            figure_words(one.figure, one.before),
            figure_words(one.figure, one.now),
            "-" if one.ratio is None else f"{one.ratio:.3g}",
            chance_words(one),
        )
        place = one.place
    yield table
    for place, reason in against.incomparable.items():
        yield Text(f"{place} cannot be compared: {reason}", style="yellow")
    for difference in against.differences:
        yield Text(f"the runs differ in {difference}", style="dim")


def _tables(counts: "Counts") -> Iterator[tuple[str, dict[str, int]]]:
    if counts.scheduled > counts.ok:
        unsent = {"unsent": counts.unsent} if counts.unsent else {}
        yield "status", {**counts.statuses, **unsent}
    for name, table in (("answered by", counts.versions), ("role", counts.roles)):
        if table:
            yield name, table
    if counts.feature_status:
        yield "feature status", counts.feature_status


def _most(one: tuple[str, int]) -> tuple[int, str]:
    return -one[1], one[0]
