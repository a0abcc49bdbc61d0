"""What must hold between a model, its reference and the names that `monitoring` uses."""

import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from serving.config.check import check, check_signatures
from serving.config.facts import gather
from serving.config.frozen_bins import FrozenColumn, Reference, encode_reference
from serving.config.load import load_directory
from serving.types import Signature, TensorMetadata

ONNX = b"not really a model"
DIGEST = hashlib.sha256(ONNX).hexdigest()
MODEL = f"""\
model: m
versions:
  v1: {{path: ../v1.onnx, sha256: {DIGEST}}}
entity: {{id: INT64}}
inputs:
  X: {{features: [person.*]}}
traffic: {{production: v1}}
log: {{fields: {{town: hash}}}}
monitoring:
  reference: ../reference.json
  important: [age]
  prediction: {{decision: label, score: "probabilities[1]"}}
  slices: [town, id]
"""
VIEW = """\
view: person
entity: {id: int64}
fields:
  age: {type: float32, default: 0}
  town: {type: string, default: ""}
"""
REFERENCE = Reference(
    model="m",
    digests={"v1": DIGEST},
    rows=10,
    created="2026-01-01T00:00:00Z",
    source="ten people",
    columns={
        "age": FrozenColumn(
            type="float", kind="numeric", edges=[0.0, 20.0], counts=[0, 0, 0, 0, 10]
        ),
        "town": FrozenColumn(
            type="string", kind="categorical", values=["Ayr"], counts=[0, 0, 0, 10]
        ),
        "probabilities[1]": FrozenColumn(
            type="float", kind="numeric", edges=[0.0, 1.0], counts=[0, 0, 0, 0, 10]
        ),
    },
)
SIGNATURE = Signature(
    inputs=[TensorMetadata("X", "FP32", (-1, 2))],
    outputs=[
        TensorMetadata("label", "INT64", (-1,)),
        TensorMetadata("probabilities", "FP32", (-1, 2)),
    ],
    batchable=True,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory without a mistake."""
    for name, text in {
        "gateway.yaml": "schema_version: 1\n",
        "models/m.yaml": MODEL,
        "features/person.yaml": VIEW,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "v1.onnx").write_bytes(ONNX)
    (tmp_path / "reference.json").write_bytes(encode_reference(REFERENCE))
    return tmp_path


def findings(root: Path, *, models: bool = True) -> list[str]:
    """Every problem of what was written about monitoring."""
    loaded = load_directory(root)
    problems = check(loaded, gather(loaded, artifacts=models))
    problems += check_signatures(loaded, {"m": {"v1": SIGNATURE}})
    return [str(one) for one in problems if "monitoring" in str(one) or "log." in str(one)]


def edit(root: Path, old: str, new: str) -> None:
    """Change the model's file."""
    file = root / "models" / "m.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def write(root: Path, reference: Reference) -> None:
    """Put another reference in place."""
    (root / "reference.json").write_bytes(encode_reference(reference))


def test_a_reference_that_fits_has_no_findings(root: Path) -> None:
    """Neither errors nor warnings."""
    assert findings(root) == []


def test_a_reference_that_is_not_there_is_an_error_at_its_line(root: Path) -> None:
    """With the command that makes one."""
    (root / "reference.json").unlink()

    assert findings(root) == [
        (
            "models/m.yaml:10:14: error: monitoring.reference: the reference cannot be read: there "
            "is no such file (`sluice drift freeze` makes one)"
        )
    ]


def test_without_model_files_the_reference_is_not_looked_at(root: Path) -> None:
    """In CI, where both are elsewhere."""
    (root / "reference.json").unlink()

    assert findings(root, models=False) == []


def test_a_broken_reference_is_an_error_that_names_the_column(root: Path) -> None:
    """Its own words."""
    file = root / "reference.json"
    file.write_bytes(file.read_bytes().replace(b'"edges":[0.0,20.0]', b'"edges":[20.0,0.0]'))

    [found] = findings(root)

    assert "the reference must not be used: column `age`: `edges` must ascend" in found


def test_another_models_reference_is_an_error(root: Path) -> None:
    """A copy and paste."""
    write(root, replace(REFERENCE, model="other"))

    assert "error: monitoring.reference: the reference was frozen for `other`" in findings(root)[0]


def test_another_files_outputs_are_a_warning(root: Path) -> None:
    """The score of another model file is no reference for this one's."""
    write(root, replace(REFERENCE, digests={"v0": "0" * 64}))

    [found] = findings(root)

    assert "warning: monitoring.reference: its outputs are of `v0`" in found


def test_a_feature_the_reference_lacks_is_a_warning(root: Path) -> None:
    """It was added to the model later."""
    columns = {name: one for name, one in REFERENCE.columns.items() if name != "town"}
    write(root, replace(REFERENCE, columns=columns))

    assert "warning: monitoring.reference: the reference has no column `town`" in findings(root)[0]


def test_numbers_where_the_feature_is_text_are_an_error(root: Path) -> None:
    """Named with both types."""
    columns = REFERENCE.columns | {"town": REFERENCE.columns["age"]}
    write(root, replace(REFERENCE, columns=columns))

    assert "column `town` of the reference is float, but person.town is string" in findings(root)[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "important: [age]",
            "important: [agee]",
            (
                "11:15: error: monitoring.important[0]: the reference has no column `agee` "
                "(did you mean `age`?)"
            ),
        ),
        (
            "slices: [town, id]",
            "slices: [town, idd]",
            (
                "13:18: error: monitoring.slices[1]: `idd` is no entity key, feature or output of "
                "this model (did you mean `id`?)"
            ),
        ),
        (
            "fields: {town: hash}",
            "fields: {towne: hash}",
            (
                "8:23: error: log.fields.towne: `towne` is no entity key, feature or output of "
                "this model (did you mean `town`?)"
            ),
        ),
        (
            "decision: label",
            "decision: labl",
            (
                "12:26: error: monitoring.prediction.decision: the model file has no output `labl` "
                "(did you mean `label`?)"
            ),
        ),
        (
            "probabilities[1]",
            "probabilities[2]",
            "`probabilities` has 2 columns, counted from 0 (the last one is `probabilities[1]`)",
        ),
        (
            "probabilities[1]",
            "probabilities",
            "`probabilities` has several values a row (say which, such as `probabilities[1]`)",
        ),
        (
            "decision: label",
            'decision: "label[0]"',
            "`label` has one value a row, so there is no column to choose (write `label`)",
        ),
        (
            "  reference: ../reference.json\n",
            "",
            "warning: monitoring.important: without a `reference` no drift is reported",
        ),
        (
            "probabilities[1]",
            "probabilities[0]",
            "warning: monitoring.prediction.score: the reference has no column `probabilities[0]`",
        ),
    ],
)
def test_a_name_that_is_not_there_is_found(root: Path, old: str, new: str, words: str) -> None:
    """At its place, with the near one."""
    edit(root, old, new)

    assert any(words in found for found in findings(root)), findings(root)
