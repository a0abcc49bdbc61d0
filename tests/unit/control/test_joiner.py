from pathlib import Path

import duckdb
import parquet_log
import pytest
from parquet_log import START, row

from serving.control.labels.joiner import answer, connect
from serving.control.labels.joiner_orders import Failed, Report, Told
from serving.performance.slices import Tolerance
from serving.recording.joined import JoinPlan

NOW = START + 86400.0


def report(**plan: object) -> Report:
    """An order for a report of `demo`."""
    given = {
        "model": "demo", "task": "binary", "score": "probabilities[1]", "horizon": 3600.0,
        "until": NOW, "now": NOW,
    }  # fmt: skip
    return Report(
        plan=JoinPlan(**(given | plan)),  # type: ignore[arg-type]
        by="version", bucket=3600.0, min_coverage=0.0, tolerance=Tolerance(),
    )  # fmt: skip


def test_it_reads_its_log_and_nothing_else(tmp_path: Path) -> None:
    """No file beside the log, no extension, no way to change that."""
    log = tmp_path / "log"
    log.mkdir()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    connection = connect(log)

    for query in (
        f"FROM read_csv('{tmp_path}/secret.csv')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(query)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["secret.csv"]


def test_a_report_that_needs_too_much_memory_is_refused_and_the_next_one_is_not(
    tmp_path: Path,
) -> None:
    """Words that say what to do; what was half made is given back."""
    rows = [row(START + one / 10, one) for one in range(20_000)]
    parquet_log.write_log(tmp_path, rows)
    connection = connect(tmp_path, memory="4MB")

    refused = answer(connection, tmp_path, report())
    taken = answer(connection, tmp_path, report(until=START + 1.0))

    assert isinstance(refused, Failed)
    assert "ask for a shorter time" in refused.words
    assert isinstance(taken, Told)
    assert taken.report.rows == 11


def test_a_broken_file_of_the_log_is_left_out_and_told_of(tmp_path: Path) -> None:
    """The rows of the others count."""
    parquet_log.write_log(tmp_path, [row(START, 1)], "broken")
    [part] = tmp_path.rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    parquet_log.write_log(tmp_path, [row(START, 2)], "whole")

    told = answer(connect(tmp_path), tmp_path, report())

    assert isinstance(told, Told)
    assert told.report.rows == 1
    assert told.report.notes[0].startswith("1 place of the log cannot be read; `sluice log verify`")


def test_a_log_that_cannot_be_opened_is_our_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller learns no path; the log of control does."""
    (tmp_path / "lock").mkdir()

    failed = answer(connect(tmp_path), tmp_path, report())

    assert failed == Failed(words="the log cannot be read; control's log says why", ours=True)
    assert "lock" in capsys.readouterr().err


def test_names_with_quotes_are_names(tmp_path: Path) -> None:
    """A key, a slice and a folder may be called anything."""
    log = tmp_path / "it's"
    odd = {"entity.o'k": 1, 'feature.a"b': 2.0}
    parquet_log.write_log(log, [row(START, 1, **odd)])
    order = report(entity=["o'k"], slices=['a"b'])

    told = answer(connect(log), log, Report(
        plan=order.plan, by="slice", bucket=1.0, min_coverage=0.0, tolerance=Tolerance(),
    ))  # fmt: skip

    assert isinstance(told, Told), told
    assert [(one.column, one.value) for one in told.report.groups] == [('a"b', "2")]
