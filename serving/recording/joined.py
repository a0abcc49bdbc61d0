"""Predictions and what came true of them, joined and counted by DuckDB.

Runs in a process of its own (`serving.control.labels.joiner`), never where requests are answered.

Which label is of which row:

- a label by `prediction_id` and `row` is of that row, and of the same row of the copies that
  shadows were given of that request: their ids share the first two parts (`TIMEHEX~TAG`);
- a label by `entity` and `time` is of the newest answered prediction of that entity at or before
  that time, not older than its tolerance, and of that request's copies;
- of several labels of a row the newest revision holds, of those that came between the prediction
  (less five seconds, for clocks) and the horizon.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.recording.label import EARLY_SECONDS, ENTITY_SEPARATOR
from serving.recording.labels import journal_table, part_files
from serving.recording.views import literal, log_relation, quoted

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "STEM",
    "JoinPlan",
    "LogLacks",
    "entity_expression",
    "fetch",
    "forget",
    "hours_condition",
    "join",
    "label_relation",
    "row_columns",
]

_JOURNAL: Final = "__journal"
_LABEL_COLUMNS: Final = (
    'prediction_id, "row", entity, "time", tolerance, number, "text", label_time, revision'
)
STEM: Final = "regexp_extract({0}, '^[^~]*~[^~]*')"
"""What the prediction ids of one request and its shadow copies share, as SQL of a column."""


class LogLacks(ValueError):
    """The log has no such column. The message names it and what there is."""


class JoinPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What of a model's log is joined, and what its outputs mean.

    `decision` and `score` are as in `PredictionConfig`; `entity` names the keys; `horizon` is in
    seconds; `since` and `until` bound the time of predictions, seconds since 1970; `now` is.
    """

    model: str
    task: str
    decision: str = ""
    score: str = ""
    threshold: float = 0.5
    entity: Sequence[str] = ()
    slices: Sequence[str] = ()
    units: str | None = None
    """Entity key by which versions were drawn, empty if each request was drawn by itself; adds
    what a comparison of versions needs. None: it is not needed."""

    one_of: int = 1
    """Of so many entities (requests, where they have none) one is joined, whichever version it
    met: of a log that is too large."""

    horizon: float
    since: float = 0.0
    until: float
    now: float


def row_columns(connection: "duckdb.DuckDBPyConnection", name: str) -> list[str]:
    """Columns of a view."""
    return [str(row[0]) for row in connection.execute(f"DESCRIBE {quoted(name)}").fetchall()]


def label_relation(
    connection: "duckdb.DuckDBPyConnection", labels: Path, model: str
) -> tuple[str, int]:
    """Register a model's labels, journal and parts together, as a view.

    Returns:
        Its name, and how many places of the journal cannot be read.
    """
    journal, lost = journal_table(labels, model)
    connection.register(_JOURNAL, journal)
    body = f"SELECT {_LABEL_COLUMNS} FROM {_JOURNAL}"  # noqa: S608
    if parts := part_files(labels, model):
        files = ", ".join(literal(str(part)) for part in parts)
        # A batch that is being compacted is in both; each revision counts once.
        body += f"""
            UNION ALL SELECT {_LABEL_COLUMNS} FROM read_parquet([{files}], hive_partitioning=false)
            WHERE revision NOT IN (SELECT revision FROM {_JOURNAL})
        """  # noqa: S608
    connection.execute(f"CREATE OR REPLACE TEMP TABLE __labels AS {body}")
    return "__labels", lost


def join(connection: "duckdb.DuckDBPyConnection", log: Path, plan: JoinPlan) -> int:
    """Make the temporary table `joined`: one row for each answered row of the log.

    With `units` also `unit` (number of who was drawn), `pair` (number of what a row shares with its
    shadow copies), `p` (assignment probability) and `why` (assignment reason).

    Columns: `version`, `digest`, `role`, `made` (seconds since 1970), `w` (weight), `c` (cluster),
    `s` (score), `d` (decision, number), `dt` (decision, text), `slice0`… ; and `labelled`, `y`,
    `yt`, `revision` (of the label), `delay` (seconds), which are null or false without a label.

    Returns:
        How many places of the log cannot be read; their rows are left out.

    Raises:
        LogLacks: an output, a slice or a key that the plan names is not in the log.
        OSError: the log as a whole cannot be read.
    """
    forget(connection)  # of a report that failed
    label_relation(connection, log / "labels", plan.model)
    with log_relation(connection, log, plan.model, since=plan.since, until=plan.until) as opened:
        answered = _answered(connection, plan)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE answered AS {answered}").fetchall()
    connection.execute(f"CREATE OR REPLACE TEMP TABLE told AS {_TOLD}")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE joined AS {_JOINED}",
        {"horizon": plan.horizon, "early": EARLY_SECONDS},
    )
    return len(opened.log.damages)


_STEPS: Final = ("__labels", "answered", "told")
"""Tables on the way to `joined`; together they are larger."""


def forget(connection: "duckdb.DuckDBPyConnection", *, result: bool = True) -> None:
    """Give memory back: of the steps to `joined`, and of itself and what was made of it."""
    for table in (*_STEPS, *(("joined", "groups") if result else ())):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


_TOLD: Final = f"""
    SELECT {STEM.format("prediction_id")} AS stem, "row" AS prow, number, "text", revision,
        epoch(label_time) AS told_at
    FROM __labels WHERE prediction_id <> ''
    UNION ALL
    SELECT r.stem, r.prow, l.number, l."text", l.revision, epoch(l.label_time)
    FROM (SELECT *, epoch("time") AS made FROM __labels WHERE entity <> '') l
    ASOF JOIN (SELECT ek, made, stem, prow FROM answered WHERE role <> 'shadow' AND ek <> '') r
        ON l.entity = r.ek AND l.made >= r.made
    WHERE l.made - r.made <= l.tolerance
"""  # noqa: S608 - no part of it comes from outside

_JOINED: Final = """
    WITH newest AS (
        SELECT a.id,
            arg_max({'n': t.number, 't': t."text", 'told_at': t.told_at}, t.revision) AS told,
            max(t.revision) AS revision
        FROM answered a JOIN told t ON a.stem = t.stem AND a.prow = t.prow
        WHERE t.told_at <= a.made + $horizon AND t.told_at >= a.made - $early
        GROUP BY a.id
    )
    SELECT a.* EXCLUDE (stem, prow, ek, id), n.id IS NOT NULL AS labelled,
        n.told.n AS y, n.told.t AS yt, n.revision AS revision,
        if(n.id IS NULL, NULL, greatest(n.told.told_at - a.made, 0)) AS delay
    FROM answered a LEFT JOIN newest n ON a.id = n.id
"""


def _answered(connection: "duckdb.DuckDBPyConnection", plan: JoinPlan) -> str:
    """The query for the log's own part."""
    columns = row_columns(connection, plan.model)
    kinds = _kinds(connection, plan.model)
    empty = not any(name.startswith(("feature.", "entity.", "output.")) for name in columns)
    keys = [name for name in sorted(plan.entity) if f"entity.{name}" in columns]
    entity = "''"
    if keys and len(keys) == len(plan.entity):
        entity = f"coalesce({entity_expression(keys)}, '')"
    score, decision, words = "NULL::DOUBLE", "NULL::DOUBLE", "NULL::VARCHAR"
    if not empty:
        if plan.score:
            score = f"{_output(plan.score, columns, plan.model)}::DOUBLE"
        if plan.decision:
            output = _output(plan.decision, columns, plan.model)
            if kinds[f"output.{plan.decision.partition('[')[0]}"].startswith("VARCHAR"):
                words = output
            else:
                decision = f"{output}::DOUBLE"
        elif plan.task == "binary" and plan.score:
            decision = f"({score} >= {plan.threshold!r})::INTEGER::DOUBLE"
    chosen = [
        f"{'NULL' if empty else _slice(name, kinds, plan.model)}::VARCHAR AS slice{place}"
        for place, name in enumerate(plan.slices)
    ]
    hours = hours_condition(columns, plan.since, plan.until)
    drawn = _drawn(plan, columns, empty=empty)
    cluster = "hash(if(ek = '', stem, ek))"
    # By entity, so that a label of one never lacks the row that it is of.
    thinned = f"{cluster} % {plan.one_of} = 0" if plan.one_of > 1 else "true"
    stem = STEM.format("prediction_id")
    digest = "coalesce(digest, '')" if "digest" in columns else "''"
    return f"""
        SELECT *, row_number() OVER () AS id, {cluster} AS c FROM (
            SELECT {stem} AS stem, "row" AS prow, version, {digest} AS digest, role,
                epoch(event_time) AS made,
                coalesce(sample_weight, 1.0)::DOUBLE AS w, {entity} AS ek,
                {score} AS s, {decision} AS d, {words} AS dt
                {"".join(", " + one for one in [*chosen, *drawn])}
            FROM {quoted(plan.model)}
            WHERE code = 'OK' AND event_time >= to_timestamp({plan.since!r})
                AND event_time <= to_timestamp({plan.until!r}) {hours}
        ) WHERE {thinned}
    """  # noqa: S608 - names are quoted, numbers are numbers


def _drawn(plan: JoinPlan, columns: Sequence[str], *, empty: bool) -> list[str]:
    """What tells who was drawn, and how, as SQL columns."""
    if plan.units is None:
        return []
    stem, column = STEM.format("prediction_id"), f"entity.{plan.units}"
    if plan.units and not empty and column not in columns:
        raise LogLacks(
            f"the log of '{plan.model}' has no key '{plan.units}', by which versions are drawn"
        )
    reason = "assignment_reason" if "assignment_reason" in columns else "NULL::VARCHAR"
    chance = "assignment_probability" if "assignment_probability" in columns else "NULL::DOUBLE"
    unit = stem
    if plan.units and not empty:
        key = f"{quoted(column)}::VARCHAR"
        unit = f"if({reason} = 'random' OR {key} IS NULL, {stem}, 'k' || {key})"
    return [
        f"hash({unit}) AS unit",
        f'hash({stem}, "row") AS pair',
        f"{chance} AS p",
        f"{reason} AS why",
    ]


def _kinds(connection: "duckdb.DuckDBPyConnection", name: str) -> Mapping[str, str]:
    found = connection.execute(f"DESCRIBE {quoted(name)}").fetchall()
    return {str(row[0]): str(row[1]) for row in found}


def _output(name: str, columns: Sequence[str], model: str) -> str:
    """`NAME` or `NAME[COLUMN]` of the outputs, as SQL."""
    bare, bracket, index = name.partition("[")
    if f"output.{bare}" not in columns:
        there = [one.removeprefix("output.") for one in columns if one.startswith("output.")]
        raise LogLacks(
            f"the log of '{model}' has no output '{bare}'; it has {', '.join(there) or 'none'}"
        )
    place = quoted(f"output.{bare}")
    return f"{place}[{int(index.rstrip(']')) + 1}]" if bracket else place


def _slice(name: str, kinds: Mapping[str, str], model: str) -> str:
    """A feature, a key or an output by its bare name, or a column by the log's; 1.0 reads `1`."""
    for candidate in (f"feature.{name}", f"entity.{name}", f"output.{name}", name):
        if candidate in kinds:
            column = quoted(candidate)
            if kinds[candidate] in ("FLOAT", "DOUBLE"):
                whole = f"try_cast({column} AS BIGINT)"
                return f"if({whole} = {column}, {whole}::VARCHAR, {column}::VARCHAR)"
            return column
    raise LogLacks(f"the log of '{model}' has no column '{name}' to tell slices by")


def entity_expression(keys: Sequence[str]) -> str:
    """The text of a row's entity in SQL, as `serving.recording.label.entity_text` writes it."""
    separator = f" || chr({ord(ENTITY_SEPARATOR)}) || "
    parts = [
        f"{literal(name + '=')} || {quoted('entity.' + name)}::VARCHAR" for name in sorted(keys)
    ]
    return separator.join(parts)


def hours_condition(columns: Sequence[str], since: float, until: float) -> str:
    """A condition that leaves folders of other hours unopened, where there are folders."""
    if "hour" not in columns:
        return ""
    first, last = (
        datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H") for moment in (since, until)
    )
    return f"AND \"hour\" BETWEEN '{first}' AND '{last}'"


def fetch(
    connection: "duckdb.DuckDBPyConnection", query: str, **values: Any
) -> list[dict[str, Any]]:
    """Rows of a query by column name."""
    answer = connection.execute(query, values or None)
    names = [str(column[0]) for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
