"""Production's requests of the prediction log, for `sluice rollout simulate --from-log`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serving.cli.output import CommandError
from serving.cli.rollout.planned import Planned
from serving.drift.counting import output_column
from serving.recording.query import Query
from serving.recording.views import quoted
from serving.rollout.simulate.history import Rows, history_of
from serving.rollout.simulate.replay import replayed
from serving.rollout.simulate.verdicts import Answer

__all__ = ["from_the_log"]

_MEMORY: Final = 1 << 30
_TIMEOUT: Final = 300.0
_FRESH: Final = ("OK", "CACHED")
_NOT_THE_VERSIONS: Final = (
    "INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "CANCELLED",
    "UNIMPLEMENTED",
)  # fmt: skip
"""Requests that count for neither version: the caller's doing, or nobody knows the end."""

_LEAST: Final = 100
Told = Callable[[str, int, int], None]


def from_the_log(
    found: Planned,
    folder: Path,
    *,
    since: float | None,
    until: float | None,
    runs: int,
    seed: int,
    told: Told,
) -> Answer:
    """Split production's requests anew, `runs` times, and see what stops.

    Raises:
        CommandError: the log has too few requests of the model's production version.
        QueryFailed: it cannot be read.
    """
    table = _read(found, folder, since, until, told)
    if len(table) < _LEAST:
        raise CommandError(
            f"the log has {len(table)} requests that production's version of `{found.model}` "
            f"answered; {_LEAST} are the least",
            "give an earlier --since, or leave out --from-log",
        )
    return replayed(
        found.rollout,
        history_of(_rows(table), found.rollout),
        runs=runs,
        seed=seed,
        told=lambda done, total: told("splits of the log", done, total),
    )


def _read(
    found: Planned, folder: Path, since: float | None, until: float | None, told: Told
) -> pa.Table:
    """One row a request, in order of time, with the columns that `_rows` reads."""
    view = f"log.{quoted(found.model)}"
    told("reading the log", 0, 1)
    columns = {row[0]: row[1] for row in _asked(folder, f"DESCRIBE {view}", since, until)}
    codes = ", ".join(f"'{code}'" for code in _NOT_THE_VERSIONS)
    sql = f"""
        SELECT epoch(event_time) AS at, {_key(found, columns)} AS key, code <> 'OK' AS failed,
               total_seconds AS seconds, {_not_fresh(columns)} AS not_fresh,
               {_prediction(found, columns)} AS prediction
        FROM {view}
        WHERE role = 'production' AND "row" = 0 AND code NOT IN ({codes})
        ORDER BY event_time
    """  # noqa: S608 - names are quoted
    with Query(folder, sql, memory=_MEMORY, timeout=_TIMEOUT, since=since, until=until) as asked:
        table = pa.Table.from_batches(list(asked.batches()))
    told("reading the log", 1, 1)
    return table


def _asked(
    folder: Path, sql: str, since: float | None, until: float | None
) -> Iterator[Sequence[Any]]:
    with Query(folder, sql, memory=_MEMORY, timeout=_TIMEOUT, since=since, until=until) as asked:
        for batch in asked.batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _key(found: Planned, columns: dict[str, Any]) -> str:
    """What a user is told by: the assignment's key, as logged; nothing if it is not."""
    key = found.config.traffic.assignment.key if found.config.traffic.assignment else ""
    name = f"entity.{key}"
    return f"CAST({quoted(name)} AS VARCHAR)" if name in columns else "NULL"


def _not_fresh(columns: dict[str, Any]) -> str:
    views = [name for name in columns if name.startswith("status.")]
    fresh = ", ".join(f"'{status}'" for status in _FRESH)
    told = " OR ".join(f"coalesce({quoted(name)} NOT IN ({fresh}), false)" for name in views)
    return f"({told})" if told else "NULL"


def _prediction(found: Planned, columns: dict[str, Any]) -> str:
    """The score where there is one, else the class."""
    prediction = found.config.monitoring.prediction if found.config.monitoring else None
    if prediction is None:
        return "NULL"
    name, place = output_column(prediction.score or prediction.decision)
    column = f"output.{name}"
    if column not in columns:
        return "NULL"
    listed = str(columns[column]).endswith("[]")
    return f"{quoted(column)}[{place + 1}]" if listed else quoted(column)


def _rows(table: pa.Table) -> Rows:
    keys = table["key"].combine_chunks()
    codes = np.asarray(keys.dictionary_encode().indices.fill_null(-1), np.int64)
    alone = codes < 0
    codes = np.where(alone, codes.max(initial=0) + 1 + np.cumsum(alone), codes)
    values, classes = _values(table["prediction"].combine_chunks())
    not_fresh = table["not_fresh"].combine_chunks()
    said = not_fresh.null_count < len(not_fresh)
    return Rows(
        at=np.asarray(table["at"], np.float64),
        key=codes,
        failed=np.asarray(table["failed"], np.bool_),
        seconds=np.nan_to_num(np.asarray(table["seconds"], np.float64)),
        not_fresh=np.asarray(pc.fill_null(not_fresh, False), np.bool_) if said else None,
        prediction=values,
        classes=classes,
    )


def _values(column: pa.Array) -> tuple["np.typing.NDArray[np.float64] | None", bool]:
    """Numbers as they are, anything else numbered by value; whether those are classes."""
    if column.null_count == len(column):
        return None, False
    if pa.types.is_floating(column.type):
        return np.asarray(column.cast(pa.float64()).fill_null(np.nan)), False
    numbered = column.dictionary_encode().indices.cast(pa.float64())
    return np.asarray(numbered.fill_null(np.nan), np.float64), True
