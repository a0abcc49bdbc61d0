"""What becomes of labels: which are known already, and which have a prediction in the log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from serving.recording.joined import (
    STEM,
    entity_expression,
    fetch,
    hours_condition,
    label_relation,
    row_columns,
)
from serving.recording.label import EARLY_SECONDS, Label
from serving.recording.views import log_relation, quoted

if TYPE_CHECKING:
    import duckdb

__all__ = ["label_states", "look_up"]

_CANDIDATES: Final = "__candidates"
_SLACK_SECONDS: Final = 60.0
"""Between the time in a prediction_id and that of its row."""


def look_up(
    connection: "duckdb.DuckDBPyConnection",
    log: Path,
    model: str,
    labels: Sequence[Label],
    entity: Sequence[str],
) -> tuple[Mapping[int, float | str], Mapping[int, float]]:
    """Compare labels of one model with what is kept.

    Returns:
        By place in `labels`: the value that is kept for this key, where there is one; and when
        its prediction was made (seconds since 1970), where that is in the log.
    """
    label_relation(connection, log / "labels", model)
    connection.register(_CANDIDATES, _candidates(labels))
    kept: dict[int, float | str] = {}
    for row in fetch(
        connection,
        """
        SELECT c.place, arg_max({'n': l.number, 't': l."text"}, l.revision) AS told
        FROM __candidates c JOIN __labels l ON c.prediction_id = l.prediction_id
            AND c."row" = l."row" AND c.entity = l.entity
            AND c.asked = epoch_us(l."time")
        GROUP BY c.place
        """,
    ):
        told = row["told"]
        kept[row["place"]] = told["t"] if told["n"] is None else told["n"]
    since, until = _times(labels)
    with log_relation(connection, log, model, since=since, until=until):
        columns = row_columns(connection, model)
        made = _by_id(connection, model, labels, columns)
        if entity and all(f"entity.{name}" in columns for name in entity):
            made |= _by_entity(connection, model, labels, columns, entity)
    return kept, made


def _times(labels: Sequence[Label]) -> tuple[float, float]:
    """Between which times the predictions of labels were made, seconds since 1970."""
    by_id = [int(one.prediction_id.partition("~")[0], 16) / 1e3 for one in labels if not one.entity]
    by_entity = [one for one in labels if one.entity]
    since = [made - _SLACK_SECONDS for made in by_id]
    since += [one.time / 1e6 - one.tolerance for one in by_entity]
    until = [made + _SLACK_SECONDS for made in by_id] + [one.time / 1e6 for one in by_entity]
    return max(min(since, default=0.0), 0.0), max(until, default=0.0)


def _candidates(labels: Sequence[Label]) -> Any:
    return pa.table(
        {
            "place": pa.array(range(len(labels)), pa.int64()),
            "prediction_id": pa.array([one.prediction_id for one in labels], pa.string()),
            "row": pa.array([one.row for one in labels], pa.int32()),
            "entity": pa.array([one.entity for one in labels], pa.string()),
            "asked": pa.array([one.time for one in labels], pa.int64()),
            "tolerance": pa.array([one.tolerance for one in labels], pa.float64()),
        }
    )


def _by_id(
    connection: "duckdb.DuckDBPyConnection",
    model: str,
    labels: Sequence[Label],
    columns: Sequence[str],
) -> dict[int, float]:
    made = [int(one.prediction_id.partition("~")[0], 16) / 1e3 for one in labels if not one.entity]
    if not made:
        return {}
    since, until = min(made) - _SLACK_SECONDS, max(made) + _SLACK_SECONDS
    query = f"""
        SELECT c.place, min(epoch(r.event_time)) AS made
        FROM {quoted(model)} r JOIN __candidates c
            ON {STEM.format("r.prediction_id")} = {STEM.format("c.prediction_id")}
            AND r."row" = c."row"
        WHERE c.entity = '' AND r.code = 'OK' AND {_between(columns, since, until)}
        GROUP BY c.place
    """  # noqa: S608 - names are quoted, numbers are numbers
    return {row["place"]: row["made"] for row in fetch(connection, query)}


def _by_entity(
    connection: "duckdb.DuckDBPyConnection",
    model: str,
    labels: Sequence[Label],
    columns: Sequence[str],
    entity: Sequence[str],
) -> dict[int, float]:
    meant = [one for one in labels if one.entity]
    if not meant:
        return {}
    since = min(one.time / 1e6 - one.tolerance for one in meant)
    until = max(one.time / 1e6 for one in meant)
    query = f"""
        SELECT c.place, max(epoch(r.event_time)) AS made
        FROM {quoted(model)} r JOIN __candidates c
            ON {entity_expression(entity)} = c.entity
        WHERE c.entity <> '' AND r.code = 'OK' AND r.role <> 'shadow'
            AND epoch_us(r.event_time) <= c.asked
            AND epoch(r.event_time) >= c.asked / 1e6 - c.tolerance
            AND {_between(columns, max(since, 0.0), until)}
        GROUP BY c.place
    """  # noqa: S608 - names are quoted, numbers are numbers
    return {row["place"]: row["made"] for row in fetch(connection, query)}


def _between(columns: Sequence[str], since: float, until: float) -> str:
    return (
        f"r.event_time BETWEEN to_timestamp({since!r}) AND to_timestamp({until!r}) "
        + hours_condition(columns, since, until)
    )


def label_states(connection: "duckdb.DuckDBPyConnection", horizon: float) -> dict[str, int]:
    """How many labels of a model are kept, and what has become of them. Needs `join` before.

    Returns:
        `kept` keys that have a label; `joined` of them with an answered prediction in time;
        `late` only after the horizon; `early` only before it was made; `orphan` without one.
    """
    [row] = fetch(
        connection,
        """
        WITH fates AS (
            SELECT bool_or(t.told_at - a.made BETWEEN -$early AND $horizon) AS joined,
                bool_or(t.told_at - a.made > $horizon) AS late, count(a.id) AS found
            FROM __labels l LEFT JOIN told t ON t.revision = l.revision
                LEFT JOIN answered a ON a.stem = t.stem AND a.prow = t.prow
            GROUP BY l.prediction_id, l."row", l.entity, l."time"
        )
        SELECT count(*) AS kept, count(*) FILTER (joined) AS joined,
            count(*) FILTER (NOT joined AND late) AS late,
            count(*) FILTER (NOT joined AND NOT late) AS early,
            count(*) FILTER (found = 0) AS orphan
        FROM fates
        """,
        early=EARLY_SECONDS,
        horizon=horizon,
    )
    return {name: int(value) for name, value in row.items()}
