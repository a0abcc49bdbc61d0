"""A model file that control has staged, found on a node that is not control's."""

import shutil
from pathlib import Path

import gateway_kit
import model_kit
import onnx_models
import pytest

from serving.config.snapshot import StagedVersion
from serving.errors import InvalidArtifact
from serving.worker.model_files import at_hand


@pytest.fixture
def staged(tmp_path: Path) -> StagedVersion:
    """As control published it, from a data directory of its own."""
    folder = tmp_path / "control"
    folder.mkdir()
    return model_kit.staged(folder, onnx_models.doubler())


def test_where_the_file_is_nothing_changes(tmp_path: Path, staged: StagedVersion) -> None:
    """On control's own node."""
    assert at_hand(staged, tmp_path / "data", tmp_path / "conf") is staged


def test_it_is_staged_from_the_configuration_by_its_digest(
    tmp_path: Path, staged: StagedVersion
) -> None:
    """Once; afterwards it is in this node's own data directory."""
    shutil.rmtree(tmp_path / "control")
    conf = tmp_path / "conf"
    gateway_kit.write_gateway(conf)
    versions = {"v1": onnx_models.doubler(3), "v2": onnx_models.doubler()}
    gateway_kit.write_model(conf, "m", versions, {})

    found = at_hand(staged, tmp_path / "data", conf)

    assert Path(found.path).is_relative_to(tmp_path / "data" / "artifacts")
    assert Path(found.path).read_bytes() == onnx_models.doubler()
    assert (found.sha256, found.signature) == (staged.sha256, staged.signature)
    shutil.rmtree(conf)
    assert at_hand(staged, tmp_path / "data", conf) == found


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_is_nowhere_is_asked_for(
    tmp_path: Path, staged: StagedVersion, *, there: bool
) -> None:
    """With its digest, and where to put it; also where there is no configuration."""
    shutil.rmtree(tmp_path / "control")
    conf = tmp_path / "conf"
    if there:
        gateway_kit.write_gateway(conf)
        gateway_kit.write_model(conf, "m", {"v1": onnx_models.doubler(3)}, {})

    with pytest.raises(InvalidArtifact, match=rf"{staged.sha256[:12]}.*on every node"):
        at_hand(staged, tmp_path / "data", conf)
