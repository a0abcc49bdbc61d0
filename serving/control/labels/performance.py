"""A model's performance report, made from its log and its labels. Runs in the joiner."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.control.labels.joiner_orders import Report, Told
from serving.performance.calibration import CalibrationPoint, calibration_curve
from serving.performance.counts import Counts, Moments
from serving.performance.coverage import coverage, delay_curve, differing
from serving.performance.figures import figures
from serving.performance.measures import Rows, count_delays, count_rows
from serving.performance.report import (
    Group,
    LabelStates,
    PerformanceReport,
    SliceComparison,
    coverage_alerts,
    slice_alerts,
)
from serving.performance.slices import compare_slices
from serving.recording.counted import groups_of, parts_of, top_values
from serving.recording.joined import JoinPlan, fetch, forget, join
from serving.recording.label_states import label_states
from serving.recording.labels import journal_table
from serving.recording.views import literal

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
    """Join, count, conclude. Raises LogLacks, OSError, duckdb.Error."""
    plan = order.plan
    damages = join(connection, log, plan)
    states = label_states(connection, plan.horizon)
    forget(connection, result=False)
    [total] = fetch(
        connection,
        "SELECT count(*) AS rows, count(*) FILTER (labelled) AS labelled, min(made) AS since, "
        "max(made) AS until, count(*) FILTER (s IS NOT NULL AND NOT s BETWEEN 0 AND 1) AS unfit "
        "FROM joined",
    )
    counter = _Counter(connection, plan)
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
        for keys, counts in versions
        if (one := coverage(f"{keys['version']} ({keys['role']})", counts.measure("coverage")))
    ]
    alerts = coverage_alerts(covered, differing(_answering(versions)), order.min_coverage)
    grid = [seconds for seconds in _DELAYS if seconds < plan.horizon] + [plan.horizon]
    points = list(zip(grid, counter.delays(grid), strict=True))
    report = PerformanceReport(
        model=plan.model,
        task=plan.task,
        by=order.by,
        since=total["since"] or 0.0,
        until=total["until"] or 0.0,
        rows=total["rows"],
        labelled=total["labelled"],
        groups=[
            Group(
                **keys,
                rows=counts.rows,
                labelled=counts.labelled,
                figures=figures(counts),
                calibration=_calibration(counts) if order.by in _VERSION else [],
            )
            for keys, counts in shown
        ],
        slices=comparisons,
        coverage=covered,
        delay=delay_curve(points),
        labels=LabelStates(
            **states,
            unreadable=journal_table(log / "labels", plan.model)[1],
        ),
        alerts=alerts + slice_alerts(comparisons),
        notes=_notes(total, damages),
    )
    forget(connection)
    return Told(report=report)


def _calibration(counts: Counts) -> list[CalibrationPoint]:
    if counts.scores is None:
        return []
    return calibration_curve(counts.scores, counts.measure("calibration_gap").effective)


_Found = tuple[dict[str, Any], Counts]
"""A group's keys and its counts."""


class _Counter:
    """Counts the joined rows by one set of keys after another, part by part."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", plan: JoinPlan) -> None:
        self.connection = connection
        self._plan = plan

    def _parts(self, keys: Mapping[str, str], where: str = "true") -> Iterator[Rows]:
        plan = self._plan
        for columns in parts_of(
            self.connection, keys, now=plan.now, horizon=plan.horizon, where=where
        ):
            yield Rows(**columns)

    def groups(self, keys: Mapping[str, str]) -> list[_Found]:
        """One for each combination of keys that is there."""
        found = groups_of(self.connection, keys)
        totals = [Counts(measures={}) for _ in found]
        for rows in self._parts(keys):
            parts = count_rows(rows, len(found), self._plan.task)
            totals = [one + other for one, other in zip(totals, parts, strict=True)]
        return list(zip(found, totals, strict=True))

    def delays(self, seconds: Sequence[float]) -> list[Moments]:
        """Labelled within each delay. Shadows are left out: their labels are those of others."""
        groups_of(self.connection, {})
        totals = [Moments() for _ in seconds]
        for rows in self._parts({}, "j.role <> 'shadow'"):
            parts = count_delays(rows, seconds)
            totals = [one + other for one, other in zip(totals, parts, strict=True)]
        return totals


def _slices(counter: _Counter, columns: Sequence[str], versions: Sequence[_Found]) -> list[_Found]:
    """Groups of every slice column, with `column` and `value` among their keys."""
    found: list[_Found] = []
    if not versions:
        return found
    for place, column in enumerate(columns):
        values, more = top_values(counter.connection, f"slice{place}", _VALUES)
        value = f"coalesce(slice{place}, '{_NONE}')"
        if more:
            kept = ", ".join(literal(one) for one in [*values, _NONE])
            value = f"if({value} IN ({kept}), {value}, '{_OTHERS}')"
        found += [
            ({**keys, "column": column}, counts)
            for keys, counts in counter.groups({**_VERSION, "value": value})
        ]
    return found


def _compared(slices: Sequence[_Found], order: Report) -> list[SliceComparison]:
    compared: dict[tuple[str, str, str], dict[str, Counts]] = {}
    for keys, counts in slices:
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
    for keys, counts in versions:
        if keys["role"] != "shadow":
            version = keys["version"]
            covered[version] = covered.get(version, Moments()) + counts.measure("coverage")
    return covered


def _notes(total: Mapping[str, Any], damages: int) -> list[str]:
    notes = []
    if damages:
        places = "1 place" if damages == 1 else f"{damages} places"
        notes.append(f"{places} of the log cannot be read; `sluice log verify` names them")
    if not total["rows"]:
        return [*notes, "no prediction of this model is in the log for this time"]
    if not total["labelled"]:
        notes.append("no prediction has a label yet; `sluice labels load` brings them")
    if total["unfit"]:
        notes.append(f"{total['unfit']} scores are outside 0 to 1 and left out")
    return notes
