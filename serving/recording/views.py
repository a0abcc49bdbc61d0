"""The prediction log as views that DuckDB can be asked of.

- `"MODEL"`: every row of a model, columns by their plain names (`plain_names.py`);
- `log."MODEL"`: the same with the log's own names (`feature.AGEP`);
- `predictions`: the columns that every row has, of all models.

Rows of versions with different columns are united by name; where one lacks a column it is null.
Segments are copied into the connection's memory; Parquet files are read where they are.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec
import pyarrow as pa

from serving.recording.layout import LogFolder
from serving.recording.plain_names import plain_names
from serving.recording.reading import OpenLog
from serving.recording.schema import HEAD

if TYPE_CHECKING:
    import duckdb

__all__ = ["ALL_MODELS", "Relation", "literal", "log_relation", "quoted", "register", "run"]

ALL_MODELS: Final = "predictions"
_OWN_NAMES: Final = "log"
_PARTS: Final = "parts"
_NUMBERS: Final = itertools.count()


class _Part(msgspec.Struct, frozen=True):
    """Rows of one schema: something to select from."""

    source: str
    schema: pa.Schema


_Source = Callable[[Sequence[pa.Table]], str]
"""Makes a query for everything in tables of one schema."""


class Relation:
    """What a view of a model's log is made of; a context manager that lets it go."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", log: OpenLog) -> None:
        self.log = log
        self._connection = connection
        self._names: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def source(self, tables: Sequence[pa.Table]) -> str:
        """A query for everything in tables of one schema, where they are."""
        name = f"__rows{next(_NUMBERS)}"
        self._connection.register(name, pa.concat_tables(tables).combine_chunks())
        self._names.append(name)
        return f"SELECT * FROM {name}"  # noqa: S608 - ours

    def close(self) -> None:
        """Let files and memory go."""
        for name in self._names:
            self._connection.unregister(name)
        self._names.clear()
        self.log.close()


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def run(connection: "duckdb.DuckDBPyConnection", statement: str) -> None:
    """Carry out a statement to its end, which DuckDB waits for before it takes another."""
    connection.execute(statement).fetchall()


def log_relation(
    connection: "duckdb.DuckDBPyConnection",
    log_dir: Path,
    model: str,
    *,
    since: float | None = None,
    until: float | None = None,
) -> "Relation":
    """Register a temporary view named like the model over its rows, with the log's own names.

    A model without rows gets a view without rows. Segments are not copied: their columns are read
    from Arrow's memory as far as they are asked for.

    Args:
        connection: to DuckDB; it must be allowed to read files.
        log_dir: the log.
        model: by name.
        since: only rows from then on, seconds since 1970.
        until: only rows up to then.

    Returns:
        The files; a context manager. The view can be asked as long as it is open.

    Raises:
        OSError: the log cannot be read.
    """
    relation = Relation(connection, OpenLog(LogFolder(log_dir), {model}, since=since, until=until))
    try:
        columns = _unite(_parts(relation.log, model, relation.source))
        body = f"SELECT * FROM ({columns}) {_within(since, until)}"  # noqa: S608 - quoted
        run(connection, f"CREATE OR REPLACE TEMP VIEW {quoted(model)} AS {body}")
    except BaseException:
        relation.close()
        raise
    return relation


def register(
    connection: "duckdb.DuckDBPyConnection",
    log: OpenLog,
    models: Collection[str],
    *,
    since: float | None = None,
    until: float | None = None,
    told: Callable[[int, int], None] | None = None,
) -> None:
    """Make the views of the models, and of all of them together.

    Args:
        connection: to DuckDB; after this it needs no more than `allowed_paths` of the log's
            Parquet files.
        log: what was opened; damaged files are left out and noted there.
        models: by name.
        since: only rows from then on, seconds since 1970.
        until: only rows up to then.
        told: is called with how many models are done, of how many.
    """
    for schema in (_PARTS, _OWN_NAMES):
        run(connection, f"CREATE SCHEMA IF NOT EXISTS {schema}")
    heads = []
    for done, model in enumerate(sorted(models)):
        if told is not None:
            told(done, len(models))
        parts = _parts(log, model, lambda tables: _copied(connection, tables))
        own = f"{_OWN_NAMES}.{quoted(model)}"
        rows = f"SELECT * FROM ({_unite(parts)}) {_within(since, until)}"  # noqa: S608 - quoted
        run(connection, f"CREATE OR REPLACE VIEW {own} AS {rows}")
        columns = list(dict.fromkeys(name for part in parts for name in part.schema.names))
        chosen = ", ".join(f"{quoted(c)} AS {quoted(n)}" for c, n in plain_names(columns).items())
        name = f"{ALL_MODELS}_model" if model == ALL_MODELS else model
        run(connection, f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT {chosen} FROM {own}")  # noqa: S608
        head = ", ".join(quoted(name) for name in HEAD.names if name in columns)
        heads.append(f"SELECT {head} FROM {own}")  # noqa: S608 - quoted
    body = " UNION ALL BY NAME ".join(heads) or _copied(connection, [HEAD.empty_table()])
    run(connection, f"CREATE OR REPLACE VIEW {ALL_MODELS} AS {body}")


def _within(since: float | None, until: float | None) -> str:
    """A condition for rows of a time range; empty for all."""
    sides = []
    if since is not None:
        sides.append(f"event_time >= make_timestamptz({round(since * 1e6)})")
    if until is not None:
        sides.append(f"event_time <= make_timestamptz({round(until * 1e6)})")
    return f"WHERE {' AND '.join(sides)}" if sides else ""


def _parts(log: OpenLog, model: str, source: _Source) -> list[_Part]:
    """Everything that holds rows of a model, one entry a schema and kind of file."""
    files: dict[pa.Schema, list[Path]] = {}
    for file in [one for one in log.parquet if one.name.model == model]:
        if (metadata := log.metadata(file)) is not None:
            schema = metadata.schema.to_arrow_schema().remove_metadata()
            files.setdefault(schema, []).append(file.pinned)
    parts = [_Part(_parquet(paths), schema) for schema, paths in files.items()]
    tables: dict[pa.Schema, list[pa.Table]] = {}
    for segment in [one for one in log.segments if one.name.model == model]:
        contents = log.contents(segment)
        if contents.batches:
            table = pa.Table.from_batches(contents.batches, contents.schema)
            tables.setdefault(table.schema, []).append(table)
    parts += [_Part(source(found), schema) for schema, found in tables.items()]
    # What every row has can be asked for, even if no file of the time has it.
    if not set(HEAD.names) <= {name for part in parts for name in part.schema.names}:
        parts.append(_Part(source([HEAD.empty_table()]), HEAD))
    return parts


def _parquet(paths: Iterable[Path]) -> str:
    """A query for everything in files of one schema."""
    files = ", ".join(literal(str(path)) for path in paths)
    return f"SELECT * FROM read_parquet([{files}], hive_partitioning=false)"  # noqa: S608


def _copied(connection: "duckdb.DuckDBPyConnection", tables: Sequence[pa.Table]) -> str:
    """A query for everything in tables of one schema, which are copied."""
    count = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = ?"
    [(number,)] = connection.execute(count, [_PARTS]).fetchall()
    name = f"{_PARTS}.part{number}"
    # In one piece: of hundreds of small batches DuckDB holds a vector a column and batch.
    connection.register("__arrow", pa.concat_tables(tables).combine_chunks())
    try:
        run(connection, f"CREATE TABLE {name} AS SELECT * FROM __arrow")  # noqa: S608 - ours
    finally:
        connection.unregister("__arrow")
    return f"SELECT * FROM {name}"  # noqa: S608 - ours


def _unite(parts: Sequence[_Part]) -> str:
    """All parts as one query, by name. A single value meets lists as a list of one."""
    listed = {field.name for part in parts for field in part.schema if pa.types.is_list(field.type)}
    united = []
    for part in parts:
        single = [f.name for f in part.schema if f.name in listed and not pa.types.is_list(f.type)]
        fixes = ", ".join(
            f"CASE WHEN {name} IS NULL THEN NULL ELSE [{name}] END AS {name}"
            for name in map(quoted, single)
        )
        united.append(
            f"SELECT * REPLACE ({fixes}) FROM ({part.source})"  # noqa: S608 - quoted
            if fixes
            else part.source
        )
    return " UNION ALL BY NAME ".join(united)
