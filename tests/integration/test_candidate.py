"""`sluice candidate`: checked, copied, a shadow; and nothing else before it was one."""

import hashlib
import json
from pathlib import Path

import onnx_models
import pytest
import yaml
from click.testing import CliRunner, Result
from control_kit import ConfigDirectory

from serving.cli.app import app
from serving.control.publishing.compile import compile_configuration

NEW = onnx_models.linear(1, 1, seed=7)


def candidate(config: ConfigDirectory, file: Path, *more: object, version: str = "v3") -> Result:
    """Call the command."""
    words = ["candidate", "demo", file, "--version", version, "--config", config.root, *more]
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "250"})


@pytest.fixture
def config(tmp_path: Path) -> ConfigDirectory:
    """A model `demo` in block style, as a person writes it."""
    made = ConfigDirectory(tmp_path / "config")
    made.model()
    return made


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A file that came out of a training."""
    return onnx_models.save(tmp_path / "trained.onnx", NEW)


def golden(folder: Path, expected: float) -> Path:
    """One example of a doubler."""
    path = folder / "golden.json"
    example = {"name": "two", "inputs": {"X": [[2.0]]}, "outputs": {"Y": [[expected]]}}
    path.write_text(json.dumps({"examples": [example]}))
    return path


def test_a_candidate_is_a_shadow_and_nothing_else(config: ConfigDirectory, trained: Path) -> None:
    """Copied beside the other files, marked, and the whole configuration can be applied."""
    result = candidate(config, trained, "--percent", "20", "--json")
    model = yaml.safe_load((config.root / "models" / "demo.yaml").read_text())

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["sha256"] == hashlib.sha256(NEW).hexdigest()
    assert (config.root / "artifacts" / "demo-v3.onnx").read_bytes() == NEW
    assert model["versions"]["v3"]["candidate"] is True
    assert model["traffic"]["shadow"] == [{"version": "v3", "percent": 20.0}]
    assert model["traffic"]["production"] == "v1"
    assert compile_configuration(config.root, config.root / "data", insecure=False)


def test_a_file_that_must_not_be_served_changes_nothing(
    config: ConfigDirectory, tmp_path: Path
) -> None:
    """Not the YAML, not the artifacts."""
    before = {path: path.read_bytes() for path in config.root.rglob("*") if path.is_file()}
    broken = onnx_models.save(tmp_path / "broken.onnx", b"not a model")

    result = candidate(config, broken)

    assert result.exit_code == 1
    assert "broken.onnx must not be served" in result.stderr
    assert {p: p.read_bytes() for p in config.root.rglob("*") if p.is_file()} == before


def test_a_golden_example_that_differs_refuses_the_file(
    config: ConfigDirectory, tmp_path: Path
) -> None:
    """With its name and both numbers."""
    doubler = onnx_models.save(tmp_path / "doubler.onnx", onnx_models.doubler())

    wrong = candidate(config, doubler, "--golden", golden(tmp_path, 5.0))
    right = candidate(config, doubler, "--golden", golden(tmp_path, 4.0))

    assert wrong.exit_code == 1
    assert "golden example 'two': output 'Y' at [0, 0] is 4.0, and 5.0 is expected" in wrong.stderr
    assert right.exit_code == 0, right.stderr
    model = yaml.safe_load((config.root / "models" / "demo.yaml").read_text())
    assert model["versions"]["v3"]["golden"] == "../artifacts/demo-v3.golden.json"


def test_a_later_edit_of_golden_examples_is_found_by_check(
    config: ConfigDirectory, tmp_path: Path
) -> None:
    """They are part of the configuration from then on."""
    doubler = onnx_models.save(tmp_path / "doubler.onnx", onnx_models.doubler())
    candidate(config, doubler, "--golden", golden(tmp_path, 4.0))
    golden(config.root / "artifacts", 5.0).replace(
        config.root / "artifacts" / "demo-v3.golden.json"
    )

    result = CliRunner().invoke(app, ["check", str(config.root)])

    assert result.exit_code == 1
    assert "versions.v3.golden: golden example 'two'" in result.stdout


@pytest.mark.parametrize(
    ("version", "words"),
    [("v1", "has a version `v1` already"), ("../v3", "a version's name is lower-case letters")],
)
def test_a_name_that_cannot_be_is_refused(
    config: ConfigDirectory, trained: Path, version: str, words: str
) -> None:
    """A version is immutable, and its name is part of a file's."""
    result = candidate(config, trained, version=version)

    assert result.exit_code == 1
    assert words in result.stderr
