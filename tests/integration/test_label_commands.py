import csv
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import parquet_log
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_kit import LabelGateway
from parquet_log import START, prediction_id, row

BEGAN = datetime.fromtimestamp(START, UTC)


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LabelGateway]:
    """A gateway that has answered about people 0 to 59, a minute apart; files are made here."""
    made = LabelGateway(tmp_path)
    parquet_log.write_log(
        made.log, [row(START + 60 * one, one, score=one / 60) for one in range(60)]
    )
    await made.start()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield made
    await made.close()


def ids(numbers: Any) -> list[str]:
    """Prediction ids of some people."""
    return [prediction_id(START + 60 * one, one) for one in numbers]


def put(name: str, content: str) -> None:
    """A file in the working directory."""
    Path(name).write_text(content)


def rejects(name: str) -> dict[str, str]:
    """Reasons by row."""
    with Path(name).open() as stream:
        return {one["row"]: one["reason"] for one in csv.DictReader(stream)}


async def test_a_parquet_file_by_id_is_loaded_and_shows_in_every_report(
    gateway: LabelGateway,
) -> None:
    """Loaded, loaded again (all repeated), and figures are there with their intervals."""
    table = {
        "prediction_id": ids(range(60)),
        "label": [one >= 30 for one in range(60)],
        "label_time": [BEGAN + timedelta(hours=2)] * 60,
    }
    pq.write_table(pa.table(table), "outcomes.parquet")

    first = await gateway.sluice("labels", "load", "outcomes.parquet")
    again = await gateway.sluice("labels", "load", "outcomes.parquet", "--json")
    status = await gateway.sluice("labels", "status", "demo")
    shown = await gateway.sluice("performance", "demo")

    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("60 labels: 60 joined; ")
    assert json.loads(again.stdout)["repeated"] == 60
    assert "60 of 60 predictions have a label; 60 labels kept, 0 without" in status.stdout
    assert "v1 (production)  60                100.0%    94.0% – 100.0%" in status.stdout
    assert "accuracy             100.0%" in shown.stdout
    assert "94.0% – 100.0%" in shown.stdout


async def test_a_csv_file_by_key_and_time_with_other_names(gateway: LabelGateway) -> None:
    """Columns are renamed; keys are typed as the model says; rows may be wrong in many ways."""
    put(
        "export.csv",
        "who,when,outcome,known\n"
        "3,2026-01-01T00:10Z,1,2026-01-02\n"
        "4,2026-01-01T00:10Z,true,2026-01-02\n"
        "5,2026-01-01T00:10Z,2,2026-01-02\n"
        "x,2026-01-01T00:10Z,0,2026-01-02\n"
        "6,,0,2026-01-02\n"
        "7,2099-01-01,0,2026-01-02\n"
        "99,2026-01-01T00:10Z,0,2026-01-02\n"
        "3,2026-01-01T00:10Z,0,2026-01-03\n",
    )

    done = await gateway.sluice(
        "labels", "load", "export.csv", "--model", "demo", "--column", "person_id=who",
        "--column", "time=when", "--column", "label=outcome", "--column", "label_time=known",
    )  # fmt: skip

    assert done.exit_code == 1
    assert "8 labels: 2 joined, 1 corrected, 1 without a prediction, 4 rejected" in done.stdout
    assert "row 2: `label` is 2, and the model's task is binary" in done.stdout
    assert "row 6: person_id=99" in done.stdout
    assert "4 rows are no labels; see export.csv.rejected.csv" in done.stderr
    reasons = rejects("export.csv.rejected.csv")
    assert reasons["3"] == "the key person_id is INT64, and 'x' is none"
    assert reasons["4"].startswith("no `time`")
    assert "in the future" in reasons["5"]


async def test_json_lines_with_a_broken_one(gateway: LabelGateway) -> None:
    """The broken line is rejected by its number; the others are taken."""
    lines = [json.dumps({"prediction_id": ids([one])[0], "label": 1}) for one in (0, 1)]
    put("late.ndjson", f"{lines[0]}\n{{\n{lines[1]}")

    done = await gateway.sluice("labels", "load", "late.ndjson")

    assert done.exit_code == 1
    assert "3 labels: 0 joined, 2 later than the horizon, 1 rejected" in done.stdout
    assert "row 1: a label is an object of names and values" in done.stdout


async def test_ids_that_nobody_gave_are_listed_and_counted(gateway: LabelGateway) -> None:
    """Ten are named; a file of nothing else is the answer no."""
    table = {
        "prediction_id": ids(range(100, 112)),
        "label": [1] * 12,
        "label_time": [BEGAN + timedelta(hours=2)] * 12,
    }
    pq.write_table(pa.table(table), "strangers.parquet")

    done = await gateway.sluice("labels", "load", "strangers.parquet")

    assert done.exit_code == 1
    assert "12 labels: 0 joined, 12 without a prediction" in done.stdout
    assert done.stdout.count("~demo~v1~production") == 10
    assert "and 2 more" in done.stdout
    assert "not one of these predictions is in the log" in done.stderr


async def test_a_refusal_names_the_role_that_labels_need(gateway: LabelGateway) -> None:
    """Which is `operator`, not `admin`."""
    put("few.csv", f"prediction_id,label\n{ids([1])[0]},1\n")

    done = await gateway.sluice("labels", "load", "few.csv", who="app")

    assert done.exit_code == 1
    assert "this needs a token with the role `operator`" in done.stderr


async def test_a_dry_run_keeps_nothing(gateway: LabelGateway) -> None:
    """But says what would be."""
    put("few.csv", f"prediction_id,label,label_time\n{ids([1])[0]},1,2026-01-02\n")

    dry = await gateway.sluice("labels", "load", "few.csv", "--dry-run")
    status = json.loads((await gateway.sluice("labels", "status", "demo", "--json")).stdout)

    assert dry.stdout.startswith("1 labels: 1 would be joined")
    assert status["labels"]["kept"] == 0
    assert status["notes"] == ["no prediction has a label yet; `sluice labels load` brings them"]


async def test_slices_and_time_have_tables(gateway: LabelGateway) -> None:
    """One line a group; the notes say that there are no labels."""
    parquet_log.write_log(
        gateway.log,
        [row(START + one, 200 + one, **{"feature.sex": 1 + one % 2}) for one in range(10)],
        "sexes",
    )

    slices = await gateway.sluice("performance", "demo", "--by", "slice")
    times = await gateway.sluice("performance", "demo", "--by", "time", "--json")

    assert slices.exit_code == 0, slices.stderr
    assert "sex    (none)" in slices.stdout
    assert "AGAINST ALL OTHERS" in slices.stdout
    assert "no prediction has a label yet" in slices.stderr
    assert len(json.loads(times.stdout)["groups"]) == 1


UNFIT: list[tuple[str, str, tuple[str, ...], str]] = [
    ("a.csv", "prediction_id,label\n", (), "a.csv has no rows"),
    ("a.csv", "prediction_id,truth\n1,1\n", (), "a.csv has no column 'label'"),
    ("a.csv", "person,label\n1,1\n", (), "says of no row whose label it is"),
    ("a.csv", "person_id,label\n1,1\n", ("--model", "dem"), "there is no model `dem`"),
    ("a.csv", "", (), "a.csv: "),
    ("a.parquet", "no parquet", (), "a.parquet is no Parquet file"),
    ("a.csv", "prediction_id,label\n", ("--column", "lable=x"), "a label has no 'lable'"),
    ("a.csv", "prediction_id,label\n", ("--column", "label=x"), "has no column 'x'"),
]


async def test_a_file_that_cannot_be_labels_is_refused_as_a_whole(gateway: LabelGateway) -> None:
    """Before anything is sent, with the file's name and what to do."""
    for name, content, words, message in UNFIT:
        put(name, content)

        done = await gateway.sluice("labels", "load", name, *words)

        assert done.exit_code == 1, content
        assert message in done.stderr
        assert "Traceback" not in done.stderr
