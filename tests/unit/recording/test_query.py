"""SQL over the log: what is answered, what is refused, and what it may cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import log_files_kit as kit
import pyarrow as pa
import pytest

from serving.recording import query_child
from serving.recording.layout import LogFolder
from serving.recording.query import Query, QueryFailed
from serving.recording.reading import OpenLog
from serving.recording.schema import HEAD
from serving.recording.statements import QueryRefused, the_query
from serving.recording.views import log_relation, register

SECOND = pa.schema([*kit.SCHEMA, ("feature.NEW", pa.string())]).set(
    kit.SCHEMA.get_field_index("output.probabilities"),
    pa.field("output.probabilities", pa.float32()),
)
"""The columns of a second version: one more, and one that is no list any more."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Five rows in every kind of file, of two versions with different columns."""
    kit.parquet(tmp_path, [kit.row(1), kit.row(2, kit.EPOCH + kit.HOUR)])
    kit.segment(tmp_path, [kit.row(3)], number=1)
    kit.segment(tmp_path, [kit.row(4)], number=2, sealed=False)
    last = kit.row(5, version="v2") | {"output.probabilities": 0.5, "feature.NEW": "x"}
    kit.segment(tmp_path, [last], version="v2", number=3, schema=SECOND)
    return tmp_path


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory."""
    with duckdb.connect(":memory:") as made:
        yield made


def ask(log: Path, sql: str, **more: Any) -> list[dict[str, Any]]:
    """The rows of an answer."""
    with Query(log, sql, **({"memory": 256 << 20, "timeout": 60.0} | more)) as query:
        return pa.Table.from_batches(list(query.batches())).to_pylist()


def test_versions_with_different_columns_are_one_table(
    log: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """What one lacks is null; a single value meets lists as a list of one."""
    with OpenLog(LogFolder(log)) as opened:
        register(connection, opened, ["employment"])
        rows = connection.execute(
            "SELECT person_id, AGEP, probabilities, NEW FROM employment ORDER BY person_id"
        ).fetchall()

    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert [row[3] for row in rows] == [None, None, None, None, "x"]
    assert rows[0][2] == [0.25, 0.75]
    assert rows[4][2] == [0.5]


def test_all_models_are_one_view_of_what_they_have_in_common(
    log: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """Counting does not need a model's name."""
    kit.segment(log, [kit.row(6, model="fraud-eu")], model="fraud-eu", number=4)
    with OpenLog(LogFolder(log)) as opened:
        register(connection, opened, opened.models)
        counts = connection.execute(
            "SELECT model, count(*) FROM predictions GROUP BY 1 ORDER BY 1"
        ).fetchall()
        [[person]] = connection.execute('SELECT "entity.person_id" FROM log."fraud-eu"').fetchall()

    assert counts == [("employment", 5), ("fraud-eu", 1)]
    assert person == 6


def test_rows_outside_a_time_range_are_left_out(
    log: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """Not only files."""
    opened = log_relation(
        connection, log, "employment", since=kit.EPOCH + 0.5, until=kit.EPOCH + 2.0 * kit.HOUR
    )
    with opened:
        rows = connection.execute('SELECT "entity.person_id" FROM employment').fetchall()

    assert rows == [(2,)]


def test_what_every_row_has_can_be_asked_for_whatever_the_time_range(
    log: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """Files of the range may be none, or older than a column."""
    for since in (None, kit.EPOCH + 1000 * kit.HOUR):
        with OpenLog(LogFolder(log), since=since) as opened:
            register(connection, opened, ["employment"], since=since)
            columns = connection.execute("DESCRIBE predictions").fetchall()
        assert {name for name, *_ in columns} == set(HEAD.names)


def test_a_model_without_rows_is_a_view_without_rows(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """Whoever joins with it need not ask first."""
    with log_relation(connection, tmp_path, "nothing yet"):
        rows = connection.execute('SELECT code, event_time FROM "nothing yet"').fetchall()

    assert rows == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "FROM employment",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a;",
        "DESCRIBE employment",
        "SHOW TABLES",
        "/* why */ EXPLAIN ANALYZE SELECT 1",
    ],
)
def test_what_reads_is_taken(sql: str) -> None:
    """Also questions about the columns, and about the plan."""
    assert the_query(sql) == sql


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("COPY (SELECT 1) TO 'x'", "COPY"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'x'", "COPY"),
        ("-- c\nEXPLAIN ANALYZE INSERT INTO x VALUES (1)", "INSERT"),
        ("ATTACH 'x'", "ATTACH"),
        ("INSTALL httpfs", "LOAD"),
        ("SET memory_limit='1TB'", "SET"),
        ("DROP VIEW employment", "DROP"),
        ("CREATE TABLE x AS SELECT 1", "CREATE"),
        ("EXPORT DATABASE 'x'", "EXPORT"),
        ("PRAGMA version", "PRAGMA"),
        ("CALL duckdb_settings()", "CALL"),
        ("SELECT 1; DROP TABLE x", "one statement"),
        ("", "no statement"),
        ("SELEC 1", "syntax error"),
    ],
)
def test_what_does_more_than_read_is_refused(sql: str, words: str) -> None:
    """By what kind of statement it is, not by looking for words in it."""
    with pytest.raises(QueryRefused, match=words):
        the_query(sql)


def test_an_answer_comes_from_a_process_of_its_own(log: Path) -> None:
    """Columns that share a name are told apart."""
    assert ask(log, "SELECT count(*) AS n, sum(label) AS n FROM employment") == [{"n": 5, "n_2": 3}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM employment a, range(1) b",
        "SELECT count(*) AS n FROM EMPLOYMENT AS e JOIN predictions USING (prediction_id, row)",
        "SELECT count(*) AS n FROM main.employment",
        "SELECT count(*) AS n FROM log.employment",
        "SELECT count(*) AS n FROM query_table('employ' || 'ment')",
        "WITH x AS (FROM employment) SELECT count(*) AS n FROM x, (FROM employment)",
        "SELECT (SELECT count(*) FROM employment) AS n",
    ],
)
def test_a_model_is_found_however_it_is_named(log: Path, sql: str) -> None:
    """With an alias, a schema, in a subquery, or put together."""
    assert ask(log, sql)[0]["n"] in (5, 25)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('{log}/writers.jsonl')",
        "SELECT * FROM glob('{log}/*')",
        "SELECT * FROM '/etc/passwd.parquet'",
    ],
)
def test_no_other_file_can_be_read(log: Path, sql: str) -> None:
    """Not even one of the log's folder that holds no rows."""
    (log / "writers.jsonl").write_text("{}")
    with pytest.raises(QueryFailed, match="only the log can be read"):
        ask(log, sql.format(log=log))


def test_rows_that_came_one_by_one_need_no_more_than_together(tmp_path: Path) -> None:
    """A quiet gateway writes many batches of a row or two; each would cost as much as 2,048."""
    kit.segment(tmp_path, [kit.row(number) for number in range(1, 3001)])

    [row] = ask(tmp_path, "SELECT count(*) AS n FROM employment", memory=96 << 20)

    assert row == {"n": 3000}


def test_a_query_that_needs_too_much_memory_ends_with_words(log: Path) -> None:
    """And not with a machine that swaps."""
    with pytest.raises(QueryFailed, match="needs more than 64 MiB"):
        ask(log, "SELECT list(i) FROM range(100000000) t(i)", memory=64 << 20)


def test_a_query_that_takes_too_long_is_ended(log: Path) -> None:
    """The answer's reader is told so."""
    with pytest.raises(QueryFailed, match="within 2 s"):
        ask(log, "SELECT sum(random()) FROM range(1000000000000)", timeout=2.0)


def test_a_name_that_does_not_exist_is_told_with_those_that_do(log: Path) -> None:
    """The list of models is short."""
    with pytest.raises(QueryFailed, match=r'there is predictions, "employment"'):
        ask(log, "FROM employmnt")


def test_a_damaged_parquet_file_costs_its_own_rows(log: Path) -> None:
    """What can be read is answered, and the damage named."""
    [bad] = log.glob("parquet/*/hour=2025-10-09T09/*.parquet")
    data = bytearray(bad.read_bytes())
    data[-4:] = b"XXXX"
    bad.write_bytes(data)
    with Query(log, "SELECT person_id FROM employment", memory=256 << 20, timeout=60.0) as query:
        table = pa.Table.from_batches(list(query.batches()))

    assert sorted(table["person_id"].to_pylist()) == [2, 3, 4, 5]
    assert [damage.file for damage in query.damages] == [str(bad.relative_to(log))]


def test_damage_inside_a_parquet_file_is_found_when_it_is_read(log: Path) -> None:
    """Its footer says nothing of it; the query is made again without the file."""
    [bad] = log.glob("parquet/*/hour=2025-10-09T09/*.parquet")
    data = bytearray(bad.read_bytes())
    data[4:400] = b"\xff" * 396
    bad.write_bytes(data)
    with Query(log, "FROM employment", memory=256 << 20, timeout=60.0) as query:
        table = pa.Table.from_batches(list(query.batches()))

    assert sorted(table["person_id"].to_pylist()) == [2, 3, 4, 5]
    assert [damage.file for damage in query.damages] == [str(bad.relative_to(log))]


def reader_of(*sizes: int) -> pa.RecordBatchReader:
    """Batches of so many bytes; then the file turns out to be damaged."""
    schema = pa.schema([("text", pa.string())])

    def batches() -> Iterator[pa.RecordBatch]:
        for size in sizes:
            yield pa.record_batch({"text": ["x" * size]}, schema=schema)
        raise duckdb.Error("don't know what type")

    return pa.RecordBatchReader.from_batches(schema, batches())


@pytest.mark.parametrize(("sizes", "begun"), [((1000, 1000), False), ((40 << 20, 1000), True)])
def test_an_answer_begins_late_so_that_it_can_be_made_again(
    sizes: tuple[int, ...], begun: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Only a large one is out before its end is known."""
    out = query_child._Out()
    with pytest.raises(Exception, match="don't know what type"):
        out.send(reader_of(*sizes))

    assert out.begun == begun
    assert bool(capfdbinary.readouterr().out) == begun


def test_leaving_ends_the_process(log: Path) -> None:
    """Ctrl-C is an exception like any other."""
    with (
        pytest.raises(KeyboardInterrupt),
        Query(
            log, "SELECT sum(random()) FROM range(1000000000000)", memory=64 << 20, timeout=60.0
        ) as query,
    ):
        raise KeyboardInterrupt

    assert query._process.poll() is not None
