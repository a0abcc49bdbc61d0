"""`sluice drift freeze`, as it is called."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from serving.cli.app import app
from serving.config.frozen_bins import Reference, decode_reference

DEMO = Path(__file__).parents[3] / "configs" / "demo"
PEOPLE = str(DEMO / "data" / "census.parquet")
FEATURES = (
    "AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG",
    "MIL", "ANC", "NATIVITY", "DEAR", "DEYE", "DREM", "SEX", "RAC1P",
)  # fmt: skip


def call(*words: object) -> Result:
    """Run the command in this process, for the demo."""
    return CliRunner().invoke(
        app, ["drift", "freeze", "employment", "--config", str(DEMO), *map(str, words)]
    )


def frozen(folder: Path, *words: object) -> Reference:
    """What the command writes."""
    done = call(*words, "--out", folder / "reference.json")
    assert done.exit_code == 0, done.output
    return decode_reference((folder / "reference.json").read_bytes())


def people(number: int = 300) -> dict[str, Any]:
    """Columns of made-up people."""
    chance = np.random.default_rng(1)
    ages = {"AGEP": chance.integers(0, 95, number).astype(np.float32)}
    return ages | {name: chance.integers(1, 3, number) for name in FEATURES[1:]}


def table(file: Path, columns: Mapping[str, Any]) -> Path:
    """A Parquet file."""
    pq.write_table(pa.table(dict(columns)), file)
    return file


def test_a_table_of_features_is_scored_by_the_model(tmp_path: Path) -> None:
    """Its outputs are frozen too, and whose they are."""
    found = frozen(tmp_path, "--table", table(tmp_path / "t.parquet", people()))

    assert {"label", "probabilities[1]"} < set(found.columns)
    assert "probabilities[0]" not in found.columns
    assert (found.rows, found.source, list(found.digests)) == (300, "t.parquet", ["v1"])


def test_outputs_in_the_table_are_taken_as_they_are(tmp_path: Path) -> None:
    """They are what was answered."""
    columns = people() | {"label": np.full(300, 7)}

    found = frozen(tmp_path, "--table", table(tmp_path / "t.parquet", columns))

    assert found.columns["label"].values == [7]
    assert "probabilities[1]" not in found.columns


def test_a_csv_is_read_with_its_gaps(tmp_path: Path) -> None:
    """An empty cell is missing."""
    columns = people()
    ages = ["" if i < 9 else str(age) for i, age in enumerate(columns["AGEP"])]
    lines = [",".join(FEATURES)]
    lines += [
        ",".join([ages[i], *(str(columns[name][i]) for name in FEATURES[1:])]) for i in range(300)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))

    found = frozen(tmp_path, "--table", tmp_path / "t.csv")

    assert found.columns["AGEP"].counts[0] == 9


def test_rows_are_chosen_by_a_column(tmp_path: Path) -> None:
    """One year of several."""
    columns = people() | {"year": np.repeat([15, 16], 150)}

    found = frozen(
        tmp_path, "--table", table(tmp_path / "t.parquet", columns), "--where", "year=15"
    )

    assert found.rows == 150


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """With the time said."""
    file = table(tmp_path / "t.parquet", people())
    words = ("--table", file, "--created", "2026-01-01", "--json")

    first = call(*words, "--out", tmp_path / "a.json")
    call(*words, "--out", tmp_path / "b.json")

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads(first.output)["columns"][0]["name"] == "AGEP"


def logged(folder: Path, hours: int = 10, rows: int = 200) -> Path:
    """A prediction log of some hours, as the gateway writes it."""
    chance = np.random.default_rng(2)
    for hour in range(hours):
        where = folder / "parquet" / "model=employment" / f"hour=2026-01-01T{hour:02}"
        where.mkdir(parents=True)
        second = np.array([0.2 if hour % 2 else 0.6] * rows)
        columns: dict[str, Any] = {f"feature.{name}": people(rows)[name] for name in FEATURES}
        columns["feature.SEX"] = 1 + (chance.random(rows) < second)
        columns |= {
            "event_time": pa.array([hour * 3_600_000_000] * rows, pa.timestamp("us", "UTC")),
            "version": ["v1"] * rows,
            "role": ["production"] * (rows - 10) + ["shadow"] * 10,
            "code": ["OK"] * rows,
            "status.person_profile": ["OK"] * (rows - 30) + ["NOT_FOUND|DEFAULTED"] * 30,
            "output.label": chance.integers(0, 2, rows),
            "output.probabilities": pa.array(
                [[1 - p, p] for p in chance.random(rows).tolist()], pa.list_(pa.float32())
            ),
        }
        table(where / "a.parquet", columns)
    return folder


def test_the_log_gives_statuses_and_how_much_hours_differ(tmp_path: Path) -> None:
    """Production's answers only; what goes up and down by itself is known to."""
    found = frozen(tmp_path, "--log", logged(tmp_path / "log"))

    assert found.rows == 1900
    assert found.statuses["person_profile"] == {"OK": 1700, "NOT_FOUND|DEFAULTED": 200}
    assert {"label", "probabilities[1]"} < set(found.columns)
    assert found.columns["SEX"].overdispersion > 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AGEP": None}, "has no column `AGEP`"),
        ({"SCHL": ["x"] * 300}, "column `SCHL`: the table holds text"),
        ({"SCHL": np.full(300, 1.5)}, "column `SCHL`: the table holds fractions"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """The column is named."""
    columns = {name: one for name, one in (people() | change).items() if one is not None}

    done = call("--table", table(tmp_path / "t.parquet", columns), "--out", tmp_path / "r.json")

    assert done.exit_code == 1
    assert words in done.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "give either --table or --log"),
        (["--log", "nowhere"], 1, "holds no Parquet file of `employment`"),
        (["--table", "nowhere.parquet"], 1, "nowhere.parquet cannot be read"),
        (["--table", "t.txt"], 1, "ends in neither .parquet nor .csv"),
        (["--log", "x", "--where", "a=1"], 2, "--where COLUMN=VALUE chooses rows of a --table"),
        (["--table", PEOPLE, "--where", "yaer=15"], 1, "did you mean `year`?"),
        (["--table", PEOPLE, "--where", "year=x"], 1, "`year` holds numbers, and `x` is none"),
        (["--table", PEOPLE, "--where", "year=99"], 1, "no row has `year` = 99"),
        (["--log", "x", "--version", "v3"], 1, "`employment` has no version `v3`"),
    ],
)
def test_a_call_that_cannot_work_says_why(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    """Usage costs 2, a no 1; nothing is written."""
    done = call(*words, "--out", tmp_path / "r.json")

    assert done.exit_code == code
    assert said in done.output
    assert not (tmp_path / "r.json").exists()


def test_too_few_rows_make_no_reference(tmp_path: Path) -> None:
    """They say too little."""
    file = table(tmp_path / "t.parquet", people(50))

    done = call("--table", file, "--out", tmp_path / "r.json")

    assert "column `AGEP`: 50 rows are too few; a reference needs 100" in done.output


def test_text_that_the_log_hides_is_not_frozen(tmp_path: Path) -> None:
    """The bins of text are its values, and they would be in the file."""
    for folder, text in {
        "gateway.yaml": "schema_version: 1\n",
        "features/v.yaml": (
            "view: v\nentity: {id: int64}\n"
            "fields: {name: {type: string}, town: {type: string}, age: {type: float32}}\n"
        ),
        "models/m.yaml": (
            'model: m\nversions: {v1: {url: "http://host:8000/v2/models/m"}}\n'
            "entity: {id: INT64}\ninputs: {X: {features: [v.*]}}\n"
            "traffic: {production: v1}\nlog: {fields: {name: hash, age: hash}}\n"
        ),
    }.items():
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        (tmp_path / folder).write_text(text)
    columns = {"name": ["Ada"] * 200, "town": ["Ayr"] * 200, "age": np.arange(200.0)}
    file = table(tmp_path / "t.parquet", columns)

    words = ["drift", "freeze", "m", "--config", str(tmp_path), "--table", str(file)]

    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "r.json")])

    assert done.exit_code == 0, done.output
    assert "`name` (log.fields hides it)" in done.output
    assert set(decode_reference((tmp_path / "r.json").read_bytes()).columns) == {"town", "age"}
    assert b"Ada" not in (tmp_path / "r.json").read_bytes()
