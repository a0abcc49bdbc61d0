"""`sluice features`, against a real server and no gateway: the store is named in gateway.yaml."""

import csv
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import store_kit
import yaml
from click.testing import CliRunner, Result

from serving.cli.app import app

NOW = 1_767_312_000_000


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[store_kit.ValkeyServer]:
    """A running server."""
    server = store_kit.ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
def here(tmp_path: Path, valkey: store_kit.ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a configuration of two views in `conf`."""
    folder = tmp_path / "here"
    gateway_kit.write_gateway(folder / "conf", store=valkey.url)
    (folder / "conf" / "features").mkdir()
    person = {
        "age": {"type": "float32", "default": 40},
        "city": {"type": "string", "default": "nowhere"},
    }
    write_view(folder, "profile", {"person_id": "int64"}, person)
    spent = {"spent": {"type": "int64", "default": 0}}
    write_view(folder, "visits", {"person_id": "int64", "shop": "string"}, spent)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLUICE_CONFIG", "conf")
    return folder


def write_view(
    folder: Path, name: str, entity: dict[str, str], fields: dict[str, Any], **more: Any
) -> None:
    """One view's YAML."""
    document = {"view": name, "entity": entity, "fields": fields, "keep_for": "36500d", **more}
    (folder / "conf" / "features" / f"{name}.yaml").write_text(yaml.safe_dump(document))


def sluice(*words: object, answer: str | None = None) -> Result:
    """Run `sluice features …` in this process."""
    return CliRunner().invoke(app, ["features", *map(str, words)], input=answer)


def table(path: Path, **columns: Any) -> Path:
    """A Parquet file."""
    pq.write_table(pa.table(columns), path)
    return path


def people(path: Path, count: int = 3, event_time: int = NOW) -> Path:
    """People 0 to `count`, whose age is ten times their number."""
    ids = list(range(count))
    return table(
        path,
        person_id=ids,
        age=[10.0 * one for one in ids],
        city=[None if one == 2 else f"city {one}" for one in ids],
        event_time=[event_time] * count,
    )


def found(*words: object) -> Any:
    """`features get --json`."""
    return json.loads(sluice("get", "--json", *words).stdout)


def test_what_was_loaded_is_shown(here: Path) -> None:
    """Values, defaults in brackets, the status and the age."""
    loaded = sluice("load", people(here / "p.parquet"), "--view", "profile", "--at", "now")
    assert loaded.exit_code == 2
    assert "the file has event times of its own; leave --at out" in loaded.stderr

    loaded = sluice("load", here / "p.parquet", "--view", "profile")
    shown = sluice("get", "--entity", "person_id=2")

    assert loaded.exit_code == 0
    assert loaded.stdout.startswith("profile: 3 rows written; ")
    assert shown.exit_code == 0
    assert re.search(
        r"profile +age +20 +DEFAULTED\|NULLS\|OK\|STALE +[0-9.]+ d *\n +city +\(nowhere\)",
        shown.stdout,
    )
    [view] = found("--entity", "person_id=1")
    assert view["features"] == {
        "age": {"value": 10.0, "stored": True},
        "city": {"value": "city 1", "stored": True},
    }


def test_loading_again_changes_nothing_and_an_older_file_neither(here: Path) -> None:
    """Newest wins, whatever order files are loaded in; a newer file wins."""
    sluice("load", people(here / "p.parquet"), "--view", "profile")

    again = json.loads(sluice("load", "p.parquet", "--view", "profile", "--json").stdout)
    older = people(here / "o.parquet", 2, NOW - 1)
    newer = people(here / "n.parquet", 1, NOW + 1)

    assert (again["written"], again["not_newer"], again["rows"]) == (0, 3, 3)
    assert "0 rows written, 2 not newer" in sluice("load", older, "--view", "profile").stdout
    assert "1 rows written;" in sluice("load", newer, "--view", "profile").stdout


def test_rows_that_do_not_fit_go_to_a_file_and_the_others_in(here: Path) -> None:
    """Row number, reason, and the row as it was read; the exit code tells."""
    (here / "p.csv").write_text("person_id,age,city\n1,11,a\nx,12,b\n3,old,c\n4,14\n5,15,e\n")

    loaded = sluice("load", "p.csv", "--view", "profile", "--at", "2026-01-02")

    assert loaded.exit_code == 1
    assert "2 rows written, 3 rejected" in loaded.stdout
    assert "row 1: person_id is int64, and 'x' is none" in loaded.stdout
    assert "3 rows do not fit the view; see p.csv.profile.rejected.csv" in loaded.stderr
    with (here / "p.csv.profile.rejected.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["row"] for row in rows] == ["1", "2", "3"]
    assert json.loads(rows[1]["as_read"]) == {"person_id": "3", "age": "old", "city": "c"}
    assert rows[2]["as_read"] == "4,14"
    assert [view["features"]["age"]["value"] for view in found("--entity", "person_id=5")] == [15.0]


def test_a_dry_run_needs_no_store_and_writes_nothing(
    here: Path, valkey: store_kit.ValkeyServer
) -> None:
    """But says what would be."""
    valkey.kill()

    loaded = sluice("load", people(here / "p.parquet"), "--view", "profile", "--dry-run")

    assert loaded.exit_code == 0
    assert "3 rows would be written" in loaded.stdout


def test_a_store_that_is_away_is_named_and_exits_3(
    here: Path, valkey: store_kit.ValkeyServer
) -> None:
    """For every command."""
    valkey.kill()
    people(here / "p.parquet")

    for words in (
        ("load", "p.parquet", "--view", "profile"),
        ("get", "--entity", "person_id=1"),
        ("erase", "--entity", "person_id=1", "--yes"),
    ):
        done = sluice(*words)
        assert done.exit_code == 3, words
        assert "error: the feature store cannot be reached" in done.stderr


@pytest.mark.usefixtures("here")
def test_nothing_stored_is_the_answer_no() -> None:
    """Defaults are shown, in brackets, and the exit code is 1."""
    done = sluice("get", "--entity", "person_id=77")

    assert done.exit_code == 1
    assert re.search(r"profile +age +\(40\) +DEFAULTED\|NOT_FOUND +-", done.stdout)
    assert "error: nothing is stored for person_id=77" in done.stderr


def test_a_subject_is_erased_from_every_view_also_by_part_of_its_key(here: Path) -> None:
    """A receipt names each key; others stay; what was erased is not loaded again by an old file."""
    sluice("load", people(here / "p.parquet"), "--view", "profile")
    visits = table(
        here / "v.parquet",
        person_id=[1, 1, 11, 2], shop=["north,1", "*", "*", "*"], spent=[5, 6, 7, 8],
        event_time=[NOW] * 4,
    )  # fmt: skip
    sluice("load", visits, "--view", "visits")

    asked = sluice("erase", "--entity", "person_id=1", answer="n\n")
    erased = sluice("erase", "--entity", "person_id=1", "--yes", "--json")

    assert asked.exit_code == 1
    assert "Erase person_id=1 from profile, visits?" in asked.stderr
    receipt = json.loads(erased.stdout)
    assert erased.exit_code == 0
    assert receipt["entity"] == {"person_id": "1"}
    assert {view["view"]: [key["key"] for key in view["keys"]] for view in receipt["views"]} == {
        "profile": ["fc:{default|person_id=1}:profile"],
        "visits": [
            "fc:{default|person_id=1,shop~%2A}:visits",
            "fc:{default|person_id=1,shop~north%2C1}:visits",
        ],
    }
    assert all(key["held"] for view in receipt["views"] for key in view["keys"])
    again = json.loads(sluice("load", "p.parquet", "--view", "profile", "--json").stdout)
    assert again["written"] == 0
    assert sluice("get", "--entity", "person_id=1").exit_code == 1
    for person, spent in ((11, 7), (2, 8)):
        [shown] = found("--entity", f"person_id={person}", "--entity", "shop=*", "--view", "visits")
        assert shown["features"]["spent"]["value"] == spent
    shown = sluice("erase", "--entity", "person_id=1", "--yes").stdout
    assert "no           36500d           fc:{default|person_id=1}:profile" in shown


def test_what_feast_writes_is_neither_loaded_nor_erased(here: Path) -> None:
    """Its store is read in place; the receipt says what is left."""
    write_view(
        here, "theirs", {"person_id": "int64"}, {"n": {"type": "int64", "default": 0}},
        source="feast", feast={"project": "p"},
    )  # fmt: skip

    loaded = sluice("load", people(here / "p.parquet"), "--view", "theirs")
    erased = sluice("erase", "--entity", "person_id=1", "--yes")

    assert (loaded.exit_code, erased.exit_code) == (1, 1)
    assert "the view `theirs` is written by Feast" in loaded.stderr
    assert "written by Feast: erase it there" in erased.stdout
    assert "theirs still holds the subject" in erased.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("load", "p.parquet", "--view", "profil"), 1, "no view `profil` in conf"),
        (("load", "p.parquet", "--view", "visits"), 1, "p.parquet has no shop, spent"),
        (("load", "p.parquet", "--view", "profile", "--column", "age"), 2, "it is NAME=COLUMN"),
        (("load", "p.parquet", "--view", "profile", "--at", "soon"), 2, "it is ISO 8601"),
        (("load", "q.parquet", "--view", "profile"), 2, "'q.parquet' does not exist"),
        (("get", "--entity", "person_id"), 2, "--entity is KEY=VALUE"),
        (("get", "--entity", "person_id=x"), 2, "`person_id` is int64, and `x` is no number"),
        (("get", "--entity", f"person_id={1 << 63}"), 1, "is out of its range"),
        (("get", "--entity", "personid=1"), 2, "no view is looked up by `personid`; did you mean"),
        (("get", "--entity", "person_id=1", "--entity", "person_id=2"), 2, "is given twice"),
        (("get", "--entity", "shop=x"), 1, "no view is looked up by shop alone"),
        (("get", "--entity", "person_id=1", "--view", "visits"), 1, "is also looked up by shop"),
        (("get", "--entity", "person_id=1", "--config", "."), 1, "no gateway.yaml in"),
    ],
)
def test_mistakes_are_named(here: Path, words: tuple[str, ...], code: int, message: str) -> None:
    """What is wrong, and the exit code that scripts tell mistakes by."""
    people(here / "p.parquet")

    done = sluice(*words)

    assert message in re.sub(r"\s+", " ", done.stderr)
    assert done.exit_code == code


def test_event_times_in_seconds_are_suspected(here: Path) -> None:
    """Every row of 1970 is older than keep_for, which is hardly meant."""
    write_view(
        here,
        "profile",
        {"person_id": "int64"},
        {"age": {"type": "float32", "default": 1}},
        keep_for="90d",
    )

    done = sluice("load", people(here / "p.parquet", 3, NOW // 1000), "--view", "profile")

    assert done.exit_code == 1
    assert "0 rows written, 3 older than keep_for" in done.stdout
    assert "are the event times seconds?" in done.stderr


def test_a_load_that_is_interrupted_says_where_to_go_on(
    here: Path, valkey: store_kit.ValkeyServer
) -> None:
    """Ctrl-C in the middle: the rows before that are there, `--from-row` brings the rest."""
    count = 1_000_000  # seconds of work, however late the signal comes
    people(here / "p.parquet", count)
    command = [gateway_kit.SLUICE, "features", "load", "p.parquet", "--view", "profile"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as loading:
        while valkey.client().dbsize() < 1000:
            assert loading.poll() is None
        loading.send_signal(signal.SIGINT)
        assert loading.stderr is not None
        said = loading.stderr.read()
    assert loading.returncode == 1, said
    place = re.search(r"everything before row (\d+) is done: --from-row (\d+)", said)
    assert place is not None, said
    assert 0 <= int(place[1]) < count

    done = json.loads(
        sluice("load", "p.parquet", "--view", "profile", "--from-row", place[1], "--json").stdout
    )

    assert done["rows"] == count - int(place[1])
    assert done["next_row"] == count
    assert valkey.client().dbsize() == count + 1  # and the field list
