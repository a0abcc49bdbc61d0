import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx_models
import pytest

from serving.errors import InvalidArtifact
from serving.models import artifact


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write a small good model."""
    return onnx_models.save(tmp_path / "model.onnx", onnx_models.doubler())


def test_a_staged_copy_is_named_by_its_digest_and_has_the_same_bytes(
    model: Path, tmp_path: Path
) -> None:
    """Staging copies the file to <sha256>.onnx and leaves nothing else in the directory."""
    sha256 = artifact.digest(model)

    copy = artifact.stage(model, sha256, tmp_path / "artifacts")

    assert sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert copy == tmp_path / "artifacts" / f"{sha256}.onnx"
    assert copy.read_bytes() == model.read_bytes()
    assert copy.stat().st_ino != model.stat().st_ino
    assert list(copy.parent.iterdir()) == [copy]


def test_staging_again_keeps_the_good_copy(model: Path, tmp_path: Path) -> None:
    """A copy that is already there is neither written again nor in need of its source."""
    sha256 = artifact.digest(model)
    first = artifact.stage(model, sha256, tmp_path / "artifacts")
    inode = first.stat().st_ino
    model.unlink()

    second = artifact.stage(model, sha256, tmp_path / "artifacts")

    assert second.stat().st_ino == inode


@pytest.mark.parametrize("harm", ["bytes", "symbolic link", "hard link"])
def test_a_copy_that_was_tampered_with_is_replaced(model: Path, tmp_path: Path, harm: str) -> None:
    """A damaged copy, or one that can change through another name, does not survive staging."""
    sha256 = artifact.digest(model)
    copy = artifact.stage(model, sha256, tmp_path / "artifacts")
    elsewhere = onnx_models.save(tmp_path / "elsewhere.onnx", model.read_bytes())
    copy.unlink()
    if harm == "bytes":
        copy.write_bytes(b"something else")
    elif harm == "symbolic link":
        copy.symlink_to(elsewhere)
    else:
        copy.hardlink_to(elsewhere)

    artifact.stage(model, sha256, tmp_path / "artifacts")

    assert not copy.is_symlink()
    assert copy.stat().st_nlink == 1
    assert artifact.digest(copy) == sha256


def test_a_wrong_digest_is_refused_and_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    """The message shows how both digests begin; no copy, whole or partial, remains."""
    expected = "ab" * 32

    with pytest.raises(InvalidArtifact) as refusal:
        artifact.stage(model, expected, tmp_path / "artifacts")

    assert artifact.digest(model)[:12] in refusal.value.message
    assert expected[:12] in refusal.value.message
    assert not list((tmp_path / "artifacts").iterdir())


def test_staging_at_the_same_time_gives_everybody_the_same_whole_file(
    model: Path, tmp_path: Path
) -> None:
    """Eight threads that stage one file all get a complete copy."""
    sha256 = artifact.digest(model)

    with ThreadPoolExecutor(8) as pool:
        copies = list(
            pool.map(lambda _: artifact.stage(model, sha256, tmp_path / "artifacts"), range(32))
        )

    assert len(set(copies)) == 1
    assert artifact.digest(copies[0]) == sha256
    assert list((tmp_path / "artifacts").iterdir()) == [copies[0]]


def test_read_returns_only_bytes_that_have_the_digest(model: Path) -> None:
    """A file that changed after it was staged is not loaded."""
    sha256 = artifact.digest(model)
    assert artifact.read(model, sha256) == model.read_bytes()

    model.write_bytes(model.read_bytes() + b"\0")

    with pytest.raises(InvalidArtifact, match="was expected"):
        artifact.read(model, sha256)


def test_a_passed_check_is_remembered_by_digest(model: Path, tmp_path: Path) -> None:
    """The second check of the same bytes starts no process: it passes with no time to run one."""
    checked = tmp_path / "checked"
    first = artifact.check(model, checked_dir=checked)
    impossible = artifact.CheckLimits(start_seconds=0.0)
    copy = onnx_models.save(tmp_path / "other-name.onnx", model.read_bytes())

    again = artifact.check(copy, artifact.digest(model), checked_dir=checked, limits=impossible)

    assert again == first
    assert first.batchable


@pytest.mark.parametrize(
    "memory", [b"", b"{", b'{"format":0,"onnxruntime":"1.0","signature":{}}', b"[]"]
)
def test_a_damaged_memory_is_ignored(model: Path, tmp_path: Path, memory: bytes) -> None:
    """What cannot be read, or another release wrote, costs a check and is then repaired."""
    checked = tmp_path / "checked"
    checked.mkdir()
    remembered = checked / f"{artifact.digest(model)}.json"
    remembered.write_bytes(memory)

    signature = artifact.check(model, checked_dir=checked)

    assert [one.name for one in signature.inputs] == ["X"]
    assert remembered.read_bytes() != memory


def test_a_check_that_cannot_be_remembered_still_passes(model: Path, tmp_path: Path) -> None:
    """A directory that cannot be written costs a check next time, not this one."""
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")

    assert artifact.check(model, checked_dir=blocked).batchable


def test_a_check_refuses_another_digest_before_it_starts_a_process(
    model: Path, tmp_path: Path
) -> None:
    """The digest in the configuration is compared first."""
    with pytest.raises(InvalidArtifact, match="000000000000"):
        artifact.check(model, "0" * 64, checked_dir=tmp_path / "checked")
