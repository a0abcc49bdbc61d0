from pathlib import Path

import onnx_models
import pytest
from control_kit import ConfigDirectory
from msgspec.structs import replace

from serving.control.publishing.compile import compile_configuration
from serving.errors import InvalidConfig


@pytest.fixture
def directory(tmp_path: Path) -> ConfigDirectory:
    """A configuration with one model and two versions."""
    return ConfigDirectory(tmp_path / "config")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def problems(directory: ConfigDirectory, data: Path) -> list[str]:
    """Every problem of a configuration that must not be served."""
    with pytest.raises(InvalidConfig) as caught:
        compile_configuration(directory.root, data)
    return [str(problem) for problem in caught.value.problems]


def test_model_files_are_staged_by_digest_with_their_signatures(
    directory: ConfigDirectory, data: Path
) -> None:
    """The snapshot names files under the data directory, and what they take and give."""
    compiled = compile_configuration(directory.root, data)
    first = compiled.snapshot(revision=2, author="ann", at=4.0)
    before = replace(first, unloaded=["demo", "gone"])
    snapshot = compiled.snapshot(revision=3, author="ann", at=5.0, before=before)

    staged = snapshot.staged["demo"]["v1"]
    assert staged.path == str(data / "artifacts" / f"{directory.digests['v1']}.onnx")
    assert Path(staged.path).read_bytes() == onnx_models.doubler()
    assert [tensor.name for tensor in staged.signature.inputs] == ["X"]
    assert (snapshot.revision, snapshot.author, snapshot.published_at) == (3, "ann", 5.0)
    assert snapshot.unloaded == ["demo"]


def test_a_version_outlives_its_source(directory: ConfigDirectory, data: Path) -> None:
    """What was staged does not change when somebody writes over the source file."""
    compiled = compile_configuration(directory.root, data)
    (directory.root / "artifacts" / "v1.onnx").write_bytes(b"overwritten")

    staged = Path(compiled.staged["demo"]["v1"].path)
    assert staged.read_bytes() == onnx_models.doubler()


def test_every_mistake_is_reported_together(directory: ConfigDirectory, data: Path) -> None:
    """A wrong digest, a corrupt file and a wrong name come in one answer, each with its line."""
    directory.digests["v3"] = "0" * 64
    (directory.root / "artifacts" / "v3.onnx").write_bytes(onnx_models.doubler())
    directory.artifact("v4", b"not a model")
    directory.model(traffic={"production": "v9"})

    found = problems(directory, data)

    assert len(found) == 3
    assert any("v9" in line for line in found)
    assert any("versions.v3.sha256" in line for line in found)
    assert any("versions.v4.path" in line for line in found)
    assert all(line.startswith("models/demo.yaml:") for line in found)


def test_a_signature_that_does_not_fit_is_refused(directory: ConfigDirectory, data: Path) -> None:
    """An input that the file does not have is found before anything is served."""
    directory.model(outputs=["Z"])

    assert any("Z" in line for line in problems(directory, data))


def test_a_refused_configuration_leaves_no_temporary_files(
    directory: ConfigDirectory, data: Path
) -> None:
    """Only whole, named files are in the stock."""
    directory.artifact("v3", b"not a model")
    directory.model()
    problems(directory, data)

    names = {path.name for path in (data / "artifacts").iterdir()}
    assert names == {f"{digest}.onnx" for digest in directory.digests.values()}
