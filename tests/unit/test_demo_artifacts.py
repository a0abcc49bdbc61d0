"""The demo directory holds what its README says, and the models score what it says."""

import hashlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from serving.cli.app import app
from serving.config.frozen_bins import decode_reference

DEMO = Path(__file__).parents[2] / "configs" / "demo"
README = (DEMO / "README.md").read_text()
VERSIONS = ("v1", "v2")
HELD_OUT = (2016, 2017, 2018)


def script(name: str) -> dict[str, Any]:
    """Load a demo script's names, with its folder importable as when it is run."""
    sys.path.insert(0, str(DEMO))
    try:
        return runpy.run_path(str(DEMO / f"{name}.py"))
    finally:
        sys.path.remove(str(DEMO))


@pytest.fixture(scope="module")
def census() -> ModuleType:
    """The demo's own reader of its data."""
    module = ModuleType("census")
    module.__dict__.update(script("census"))
    return module


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Each model version in turn."""
    return request.param


def artifact(version: str) -> Path:
    """Where a version's file is shipped."""
    return DEMO / "artifacts" / f"employment-{version}.onnx"


def session(version: str) -> onnxruntime.InferenceSession:
    """Open a shipped file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        artifact(version), options, providers=["CPUExecutionProvider"]
    )


def test_the_model_file_states_its_columns(version: str, census: ModuleType) -> None:
    """The metadata key `feature_names` lists the 16 codes in column order."""
    stated = session(version).get_modelmeta().custom_metadata_map["feature_names"]

    assert json.loads(stated) == list(census.FEATURES)


def test_the_model_takes_and_gives_plain_tensors(version: str) -> None:
    """X [n, 16] in; label [n] and probabilities [n, 2] out; n is free everywhere."""
    opened = session(version)

    def shape(tensor: Any) -> tuple[str, str, int, list[int]]:
        return tensor.name, tensor.type, isinstance(tensor.shape[0], int), tensor.shape[1:]

    assert [shape(t) for t in opened.get_inputs()] == [("X", "tensor(float)", False, [16])]
    assert [shape(t) for t in opened.get_outputs()] == [
        ("label", "tensor(int64)", False, []),
        ("probabilities", "tensor(float)", False, [2]),
    ]


def test_the_model_file_is_small_and_has_no_zipmap(version: str) -> None:
    """Under 1 MB, and no operator that turns tensors into Python dictionaries."""
    graph = onnx.load(artifact(version)).graph

    assert artifact(version).stat().st_size < 1_000_000
    assert "ZipMap" not in {node.op_type for node in graph.node}


def test_the_configuration_names_the_shipped_file(version: str) -> None:
    """The digest in models/employment.yaml is the digest of the file in artifacts/."""
    model = yaml.safe_load((DEMO / "models" / "employment.yaml").read_text())
    source = model["versions"][version]

    assert (DEMO / "models" / source["path"]).resolve() == artifact(version).resolve()
    assert source["sha256"] == hashlib.sha256(artifact(version).read_bytes()).hexdigest()


def test_the_readme_states_the_accuracy_of_the_shipped_files(
    version: str, census: ModuleType
) -> None:
    """Scoring the files on the years after training gives the figures in the README."""
    readme = (DEMO / "README.md").read_text()
    line = re.compile(rf"^{version} +(\d{{4}}) +(\d+) +(0\.\d{{4}}) +(0\.\d{{4}}) ", re.MULTILINE)
    stated = {
        int(year): (int(n), float(accuracy), float(loss))
        for year, n, accuracy, loss in line.findall(readme)
    }
    assert tuple(stated) == HELD_OUT

    opened = session(version)
    for year, (number, accuracy, loss) in stated.items():
        people = census.read(years={year})
        label, probabilities = opened.run(None, {"X": people.features})
        chosen = probabilities[np.arange(len(label)), people.employed].astype(np.float64)
        assert number == len(people.employed)
        assert np.mean(label == people.employed) == pytest.approx(accuracy, abs=5.1e-5)
        assert -np.log(chosen).mean() == pytest.approx(loss, abs=1e-4)


def test_the_two_versions_differ() -> None:
    """Moving traffic between them changes answers, so a rollout has something to see."""
    rows = np.full((1, 16), 2.0, np.float32)
    first, second = (session(v).run(["probabilities"], {"X": rows})[0] for v in VERSIONS)

    assert not np.allclose(first, second, atol=1e-4)


def test_the_data_holds_everybody_in_small_columns_without_ids(census: ModuleType) -> None:
    """277,677 people, int8 columns, no identifier, about 1 MB."""
    schema = pq.read_schema(census.DATA)

    assert schema.names == [*census.FEATURES, "year", "employed"]
    assert {str(kind) for kind in schema.types} == {"int8"}
    assert census.DATA.stat().st_size < 1_100_000
    assert len(census.read().year) == 277_677


def test_the_numbered_people_are_like_their_year(census: ModuleType) -> None:
    """20,000 of 2018, every feature's mean within 0.02 standard deviations of the year's."""
    people, year = census.people(), census.read(years={2018})
    spread = np.abs(people.features.mean(0) - year.features.mean(0)) / year.features.std(0)

    assert people.features.shape == (20_000, 16)
    assert set(people.year) == {2018}
    assert spread.max() < 0.02


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("example-request.json", ["--key"]),
        ("example-request-features.json", []),
        ("example-request-x.json", ["--whole"]),
    ],
)
def test_people_py_prints_the_example_requests(file: str, options: list[str]) -> None:
    """The example files are what `people.py --person 42` prints."""
    printed = subprocess.run(
        [sys.executable, DEMO / "people.py", "--person", "42", *options],
        capture_output=True,
        text=True,
        check=True,
    )

    assert printed.stdout == (DEMO / file).read_text()


def test_the_table_holds_what_people_py_makes(tmp_path: Path) -> None:
    """`data/people.parquet`, which `make up` loads, is the census's people as the views say."""
    made = tmp_path / "people.parquet"
    subprocess.run([sys.executable, DEMO / "people.py", "--table", made], check=True)

    assert pq.read_table(DEMO / "data" / "people.parquet").equals(pq.read_table(made))


def test_the_reference_is_what_the_readmes_command_makes(tmp_path: Path) -> None:
    """`artifacts/employment-reference.json`, to the byte but for the score's last digits.

    Another kind of CPU may round a score differently, and with it an edge or a count.
    """
    command = re.search(r"sluice (drift freeze employment .*?)\n```", README, re.DOTALL)
    assert command is not None
    words = shlex.split(command[1].replace("\\\n", " "))
    words[words.index("--out") + 1] = str(tmp_path / "made.json")

    made = CliRunner().invoke(app, words)

    assert made.exit_code == 0, made.output
    shipped = decode_reference((DEMO / "artifacts" / "employment-reference.json").read_bytes())
    again = decode_reference((tmp_path / "made.json").read_bytes())
    score, score_again = (one.columns.pop("probabilities[1]") for one in (shipped, again))
    assert again == shipped
    assert score_again.edges == pytest.approx(score.edges, abs=1e-4)
    assert score_again.counts == pytest.approx(score.counts, abs=20)


def test_people_py_refuses_a_person_who_has_no_number() -> None:
    """Ids start at 1 and end at 20000; the message says so."""
    refused = subprocess.run(
        [sys.executable, DEMO / "people.py", "--person", "0"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 2
    assert "1 to 20000" in refused.stderr


def test_views_cover_the_features_with_the_types_the_example_sends(census: ModuleType) -> None:
    """Every feature is in exactly one view, as float32 or int32, with a default."""
    wire = {"float32": "FP32", "int32": "INT32"}
    fields = [
        (name, wire[field["type"]], field["default"])
        for view in sorted((DEMO / "features").glob("*.yaml"))
        for name, field in yaml.safe_load(view.read_text())["fields"].items()
    ]
    example = json.loads((DEMO / "example-request-features.json").read_text())["inputs"]
    sent = {(tensor["name"], tensor["datatype"]) for tensor in example[1:]}

    assert sorted(name for name, _, _ in fields) == sorted(census.FEATURES)
    assert {(name, datatype) for name, datatype, _ in fields} == sent


def _two_files(folder: Path, columns: dict[str, list[int]], labels: list[int]) -> list[Path]:
    ids = list(range(len(labels)))
    persons, answers = folder / "persons.parquet", folder / "labels.parquet"
    pq.write_table(pa.table({"id": ids, **columns}), persons)
    pq.write_table(pa.table({"id": ids, "employed": labels}), answers)
    return [persons, answers]


def test_encoding_keeps_order_and_values(tmp_path: Path, census: ModuleType) -> None:
    """What encode.py writes reads back as the same people in the same order."""
    columns = {name: [3, 1, 2] for name in census.FEATURES} | {"year": [2015, 2018, 2016]}
    files = _two_files(tmp_path, columns, [0, 1, 0])

    script("encode")["encode"](*files, tmp_path / "out.parquet")

    people = census.read(tmp_path / "out.parquet")
    assert people.features.tolist() == [[3.0] * 16, [1.0] * 16, [2.0] * 16]
    assert people.year.tolist() == [2015, 2018, 2016]
    assert people.employed.tolist() == [0, 1, 0]


def test_encoding_refuses_a_value_it_would_change(tmp_path: Path, census: ModuleType) -> None:
    """A value outside int8 ends the script with the column's name; nothing is written."""
    columns = {name: [3] for name in census.FEATURES} | {"year": [2015], "SCHL": [300]}
    files = _two_files(tmp_path, columns, [0])

    with pytest.raises(SystemExit, match="SCHL"):
        script("encode")["encode"](*files, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
