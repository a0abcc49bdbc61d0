"""A model's performance report, made from its log and its labels. Runs in the joiner."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from serving.control.joiner_orders import Report, Told
from serving.performance.counts import BINS, PER_UNIT, UNITS, Counts, Moments, ScoreBins
from serving.performance.coverage import coverage, delay_curve, differing
from serving.performance.figures import figures
from serving.performance.report import (
    Group,
    LabelStates,
    PerformanceReport,
    SliceComparison,
    coverage_alerts,
    slice_alerts,
)
from serving.performance.slices import compare_slices
from serving.recording.counted import (
    SUMS,
    Bin,
    Measure,
    count,
    count_scores,
    delays,
    measures_of,
    top_values,
)
from serving.recording.joined import fetch, join
from serving.recording.label_states import label_states
from serving.recording.labels import journal_table

if TYPE_CHECKING:
    import duckdb

__all__ = ["measure"]

_DELAYS: Final = (60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0, 30 * 86400.0)
_VALUES: Final = 50
"""Values of a slice column that are told apart; the others count together."""

_OTHERS: Final = "(others)"
_NONE: Final = "(none)"
_BUCKETS: Final = 1000
_VERSION: Final = {"version": "version", "role": "role"}


def measure(connection: "duckdb.DuckDBPyConnection", log: Path, order: Report) -> Told:
    """Join, count, conclude. Raises LogLacks, duckdb.Error."""
    plan = order.plan
    join(connection, log, plan)
    [total] = fetch(
        connection,
        "SELECT count(*) AS rows, count(*) FILTER (labelled) AS labelled, min(made) AS since, "
        "max(made) AS until, count(*) FILTER (s IS NOT NULL AND NOT s BETWEEN 0 AND 1) AS unfit "
        "FROM joined",
    )
    due = Measure(name="coverage", value="labelled", where=f"made < {plan.now - plan.horizon!r}")
    measures = [*measures_of(plan.task, scored=bool(plan.score)), due]
    counter = _Counter(connection, measures, scored=bool(plan.score) and plan.task == "binary")
    versions = counter.groups(_VERSION)
    slices = _slices(counter, plan.slices, versions) if order.by == "slice" else []
    comparisons = _compared(slices, order) if plan.task == "binary" else []
    shown = versions
    if order.by == "role":
        shown = counter.groups({"role": "role"})
    elif order.by == "slice":
        shown = slices
    elif order.by == "time":
        # Of a year by the hour the page would be the problem: buckets grow.
        span = (total["until"] or 0.0) - (total["since"] or 0.0)
        bucket = order.bucket * max(1, int(span / order.bucket / _BUCKETS) + 1)
        shown = counter.groups({**_VERSION, "bucket": f"floor(made / {bucket!r}) * {bucket!r}"})
    covered = [
        one
        for keys, counts, _ in versions
        if (one := coverage(f"{keys['version']} ({keys['role']})", counts.measure("coverage")))
    ]
    alerts = coverage_alerts(covered, differing(_answering(versions)), order.min_coverage)
    grid = [seconds for seconds in _DELAYS if seconds < plan.horizon] + [plan.horizon]
    delayed = delays(connection, grid, plan.now)
    points = [(seconds, _moments(delayed[0], str(place))) for place, seconds in enumerate(grid)]
    report = PerformanceReport(
        model=plan.model,
        task=plan.task,
        by=order.by,
        since=total["since"] or 0.0,
        until=total["until"] or 0.0,
        rows=total["rows"],
        labelled=total["labelled"],
        groups=[
            Group(**keys, rows=size[0], labelled=size[1], figures=figures(counts))
            for keys, counts, size in shown
        ],
        slices=comparisons,
        coverage=covered,
        delay=delay_curve(points),
        labels=LabelStates(
            **label_states(connection, plan.horizon),
            unreadable=journal_table(log / "labels", plan.model)[1],
        ),
        alerts=alerts + slice_alerts(comparisons),
        notes=_notes(total),
    )
    return Told(report=report)


_Found = tuple[dict[str, Any], Counts, tuple[int, int]]
"""A group's keys, its counts, and its rows: all, and those with a label."""


class _Counter:
    """Counts the joined rows by one set of keys after another."""

    def __init__(
        self, connection: "duckdb.DuckDBPyConnection", measures: list[Measure], *, scored: bool
    ) -> None:
        self.connection = connection
        self._measures = measures
        self._scored = scored

    def groups(self, keys: Mapping[str, str]) -> list[_Found]:
        """One for each combination of keys that is there."""
        scores = (
            count_scores(self.connection, keys, per_unit=PER_UNIT, units=UNITS)
            if self._scored
            else {}
        )
        found = []
        for row in count(self.connection, keys, self._measures):
            named = {name: row[name] for name in keys}
            bins = scores.get(tuple(named.values()))
            counts = Counts(
                measures={one.name: _moments(row, one.name) for one in self._measures},
                scores=_bins(bins) if bins else None,
            )
            found.append((named, counts, (row["rows"], row["labelled"])))
        return found


def _moments(row: Mapping[str, Any], name: str) -> Moments:
    return Moments(**{one: row[f"{name}.{one}"] for one in SUMS})


def _bins(found: Sequence[Bin]) -> ScoreBins:
    place = np.array([one.place for one in found])
    columns = []
    for name in ("positive", "negative", "score"):
        column = np.zeros(BINS)
        column[place] = [getattr(one, name) for one in found]
        columns.append(column)
    return ScoreBins(positive=columns[0], negative=columns[1], score=columns[2])


def _slices(counter: _Counter, columns: Sequence[str], versions: Sequence[_Found]) -> list[_Found]:
    """Groups of every slice column, with `column` and `value` among their keys."""
    found: list[_Found] = []
    if not versions:
        return found
    for place, column in enumerate(columns):
        values, more = top_values(counter.connection, f"slice{place}", _VALUES)
        value = f"coalesce(slice{place}, '{_NONE}')"
        if more:
            kept = ", ".join("'" + one.replace("'", "''") + "'" for one in [*values, _NONE])
            value = f"if({value} IN ({kept}), {value}, '{_OTHERS}')"
        for keys, counts, size in counter.groups({**_VERSION, "value": value}):
            found.append(({**keys, "column": column}, counts, size))
    return found


def _compared(slices: Sequence[_Found], order: Report) -> list[SliceComparison]:
    compared: dict[tuple[str, str, str], dict[str, Counts]] = {}
    for keys, counts, _ in slices:
        of = keys["version"], keys["role"], keys["column"]
        compared.setdefault(of, {})[keys["value"]] = counts
    return [
        SliceComparison(
            version=version,
            role=role,
            column=column,
            groups=compare_slices(groups, order.tolerance),
        )
        for (version, role, column), groups in compared.items()
    ]


def _answering(versions: Sequence[_Found]) -> dict[str, Moments]:
    """Coverage by version, shadows left out: their rows have the labels of who answered."""
    covered: dict[str, Moments] = {}
    for keys, counts, _ in versions:
        if keys["role"] != "shadow":
            version = keys["version"]
            covered[version] = covered.get(version, Moments()) + counts.measure("coverage")
    return covered


def _notes(total: Mapping[str, Any]) -> list[str]:
    if not total["rows"]:
        return ["no prediction of this model is in the log for this time"]
    notes = []
    if not total["labelled"]:
        notes.append("no prediction has a label yet; `sluice labels load` brings them")
    if total["unfit"]:
        notes.append(f"{total['unfit']} scores are outside 0 to 1 and left out")
    return notes
