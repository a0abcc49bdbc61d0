"""`sluice log`: what people and programs are shown."""

import csv
import io
import json
from pathlib import Path

import log_files_kit as kit
import parquet_log
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from serving.cli.app import app
from serving.files import try_lock
from serving.recording.layout import LogFolder


def log(*arguments: object) -> Result:
    """Call `sluice log` with these arguments."""
    return CliRunner().invoke(app, ["log", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose log has three rows, one of them a shadow's."""
    folder = tmp_path / "predictions"
    kit.ledger(folder, offered=3, logged=3).close()
    rows = [kit.row(1), kit.row(2, kit.EPOCH + 1, role="shadow", version="v2"), kit.row(3)]
    rows[1]["status.person_profile"] = "STALE|CACHED"
    kit.segment(folder, rows)
    return tmp_path


def test_a_row_is_a_line(data: Path) -> None:
    """When, which version, how it ended, whom and what; features that were not fresh are named."""
    result = log("tail", "--data", data, "-n", 1)

    assert result.stdout == (
        "2025-10-09 09:00:01.000  employment/v2  shadow  OK  2.0ms  person_id=2  →  label=0  "
        "probabilities=[0.25, 0.75]  (person_profile: STALE|CACHED)\n"
    )


def test_rows_are_json_for_programs(data: Path) -> None:
    """One document a line."""
    lines = log("tail", "--data", data, "--role", "production", "--json").stdout.splitlines()

    assert [json.loads(line)["entity"] for line in lines] == [{"person_id": 1}, {"person_id": 3}]


def test_a_model_that_is_mistyped_is_told_the_near_one(data: Path) -> None:
    """With exit code 1."""
    result = log("tail", "employmnt", "--data", data)

    assert result.exit_code == 1
    assert "did you mean `employment`?" in result.stderr


def test_without_a_log_it_says_how_to_have_one(tmp_path: Path) -> None:
    """The option is not on by default."""
    result = log("verify", "--data", tmp_path)

    assert result.exit_code == 1
    assert "`log: {}` in gateway.yaml switches it on" in result.stderr


def test_the_log_is_where_the_configuration_says(data: Path) -> None:
    """A worker leaves what it read in the data directory."""
    (data / "predictions").rename(data / "elsewhere")
    (data / "gateway.json").write_text('{"schema_version": 1, "log": {"path": "elsewhere"}}')

    assert log("tail", "--data", data).exit_code == 0


def test_an_answer_is_a_table(data: Path) -> None:
    """Numbers to the right, lists as lists."""
    sql = "SELECT person_id, probabilities, NULL AS nothing FROM employment ORDER BY 1"
    result = log("query", sql, "--data", data)

    assert [line.rstrip() for line in result.stdout.splitlines()[:2]] == [
        "person_id  probabilities  nothing",
        "        1  [0.25, 0.75]",
    ]


def test_a_table_hides_what_a_terminal_would_obey(data: Path) -> None:
    """A value is data."""
    result = log("query", "SELECT chr(27) || '[31mred' AS a", "--data", data)

    assert "\x1b" not in result.stdout
    assert "[31mred" in result.stdout


def test_an_answer_is_csv(data: Path) -> None:
    """Lists and structures are JSON in a cell, times ISO 8601."""
    sql = "SELECT person_id, probabilities, event_time FROM employment WHERE person_id = 1"
    result = log("query", sql, "--format", "csv", "--data", data)

    assert list(csv.reader(io.StringIO(result.stdout))) == [
        ["person_id", "probabilities", "event_time"],
        ["1", "[0.25,0.75]", "2025-10-09T09:00:00+00:00"],
    ]


def test_an_answer_is_json(data: Path) -> None:
    """Sums are numbers, what is no number is null."""
    sql = (
        "SELECT sum(person_id) AS s, 'nan'::FLOAT AS n, event_time AS t FROM employment GROUP BY t"
    )
    result = log("query", f"{sql} ORDER BY t", "--json", "--data", data)

    assert json.loads(result.stdout) == [
        {"s": 4, "n": None, "t": "2025-10-09T09:00:00Z"},
        {"s": 2, "n": None, "t": "2025-10-09T09:00:01Z"},
    ]


def test_an_answer_without_rows_is_one_too(data: Path) -> None:
    """In every format."""
    sql = "SELECT person_id FROM employment WHERE false"

    assert json.loads(log("query", sql, "--json", "--data", data).stdout) == []
    assert log("query", sql, "--format", "csv", "--data", data).stdout == "person_id\n"


def test_an_answer_is_a_file_that_is_whole(data: Path, tmp_path: Path) -> None:
    """Parquet for whoever goes on with it; nothing is left of one that failed."""
    target = tmp_path / "rows.parquet"
    words = ("--format", "parquet", "-o", target, "--data", data)
    failed = log("query", "SELECT 1 / (person_id - person_id), error('no') FROM employment", *words)
    left = [path.name for path in tmp_path.iterdir()]
    log("query", "FROM employment", *words)

    assert failed.exit_code == 1
    assert sorted(left) == ["predictions"]
    assert pq.read_table(target).num_rows == 3
    assert target.stat().st_mode & 0o777 == 0o600


def test_what_is_damaged_costs_the_exit_code(data: Path) -> None:
    """The answer is given all the same."""
    [path] = data.rglob("*.arrows")
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF
    path.write_bytes(content)
    result = log("query", "SELECT count(*) AS n FROM employment", "--data", data)

    assert result.exit_code == 1
    assert result.stdout.split() == ["n", "2"]
    assert "are damaged and left out" in result.stderr


def test_a_query_that_would_write_is_refused(data: Path) -> None:
    """By name."""
    result = log("query", "COPY employment TO 'x'", "--data", data)

    assert result.exit_code == 1
    assert "the log can only be read" in result.stderr


@pytest.mark.parametrize("since", ["yesterday", "5", "-2h", "2h30"])
def test_a_time_that_is_none_is_wrong_usage(data: Path, since: str) -> None:
    """It says what one looks like."""
    result = log("query", "FROM employment", f"--since={since}", "--data", data)

    assert result.exit_code == 2
    assert "2h or 7d" in result.stderr


def test_since_takes_a_time_in_utc(data: Path) -> None:
    """And with a zone, of that zone."""
    for since in ("2025-10-09T09:00:01", "2025-10-09T11:00:01+02:00"):
        sql = "SELECT person_id AS p FROM employment"
        result = log("query", sql, "--since", since, "--json", "--data", data)
        assert json.loads(result.stdout) == [{"p": 2}]


def test_models_are_listed_with_what_there_is(data: Path) -> None:
    """Of Parquet and segments together."""
    kit.parquet(data / "predictions", [kit.row(4, kit.EPOCH + kit.HOUR)], number=1)
    [one] = json.loads(log("models", "--data", data, "--json").stdout)

    assert (one["rows"], one["parquet_files"], one["segments"]) == (4, 1, 1)
    assert one["versions"] == ["v1"]
    assert (one["oldest"], one["newest"]) == ("2025-10-09T09:00:00Z", "2025-10-09T10:00:00Z")


def test_a_sound_log_is_0(data: Path) -> None:
    """With the books as a table."""
    result = log("verify", "--data", data)

    assert result.exit_code == 0
    assert "node/worker-0-11-aa" in result.stdout
    assert "1 files" in result.stdout


def test_a_damaged_log_is_1(data: Path) -> None:
    """And every damage is named."""
    [path] = data.rglob("*.arrows")
    path.write_bytes(path.read_bytes()[:-40])
    result = log("verify", "--data", data)
    verdict = json.loads(log("verify", "--data", data, "--json").stdout)

    assert result.exit_code == 1
    assert "employment~v1~0.arrows" in result.stdout
    assert verdict["sound"] is False
    assert verdict["damages"][0]["length"] > 0


def test_nobody_is_erased_unasked(data: Path) -> None:
    """Without a terminal, `--yes` it has to be."""
    result = log("erase", "--subject", "person_id=1", "--data", data)

    assert result.exit_code == 2
    assert "give --yes" in result.stderr


def test_an_erasure_shows_its_receipt(data: Path) -> None:
    """Rows, files, digests."""
    result = log("erase", "--subject", "person_id=1", "--data", data, "--yes", "--json")
    receipt = json.loads(result.stdout)

    assert result.exit_code == 0
    assert receipt["rows"] == 1
    assert receipt["files"][0]["sha256_before"] != receipt["files"][0]["sha256_after"]
    assert "person_id=1" not in (data / "predictions" / "erasures.jsonl").read_text()


def test_labels_that_are_held_make_an_erasure_incomplete(data: Path) -> None:
    """It says what to do."""
    (data / "predictions" / "labels").mkdir()
    lock = try_lock(data / "predictions" / "labels" / "lock")
    result = log("erase", "--subject", "person_id=1", "--data", data, "--yes")

    assert lock is not None
    assert result.exit_code == 1
    assert "erase again when it answers" in result.stderr


def test_a_subject_is_a_key_and_a_value(data: Path) -> None:
    """A bare number is of which key?"""
    assert log("erase", "--subject", "42", "--data", data, "--yes").exit_code == 2


def test_a_target_that_is_none_is_wrong_usage(data: Path) -> None:
    """With what targets there are."""
    result = log("ship", "ftp://host", "--data", data)

    assert result.exit_code == 2
    assert "s3://BUCKET/PREFIX" in result.stderr


def test_options_of_a_target_come_from_a_file_too(data: Path, tmp_path: Path) -> None:
    """A password on a command line is seen by everybody."""
    file = tmp_path / "options"
    file.write_text("# of librdkafka\nno.such.setting = 1\n")
    result = log("ship", "kafka://h:1/t", "--options", file, "--data", data)

    assert result.exit_code == 1
    assert "no.such.setting" in result.stderr


def test_the_folder_of_a_log_can_be_named_itself(data: Path) -> None:
    """Such as a copy on another machine."""
    assert log("models", "--log", LogFolder(data / "predictions").root).exit_code == 0


def test_a_log_that_may_not_be_read_is_told_in_words(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no traceback."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "lock")

    monkeypatch.setattr("serving.recording.lock.os.open", refuse)
    result = log("verify", "--data", data)

    assert result.exit_code == 1
    assert "the prediction log: [Errno 13] Permission denied: 'lock'" in result.stderr


def test_a_row_of_a_file_that_lacks_a_column_is_shown_without_it(data: Path) -> None:
    """Such as one of an older release."""
    parquet_log.write_log(data / "predictions", [parquet_log.row(kit.EPOCH + 5, 9, model="old")])
    result = log("tail", "old", "--data", data)

    assert result.stdout.startswith("2025-10-09 09:00:05.000  old/v1  production  OK  person_id=9")
