"""Model files that must not be served: each refused with its reason, at a bounded price."""

import os
from pathlib import Path

import numpy as np
import onnx_models
import psutil
import pytest

from serving.errors import InvalidArtifact
from serving.models import artifact
from serving.types import Signature

GOOD = onnx_models.mlp()
TIGHT = artifact.CheckLimits(wall_seconds=2.0, memory_bytes=1 << 30)
"""Limits that a bad file reaches soon; a good one takes some milliseconds and megabytes."""


def check(path: Path, limits: artifact.CheckLimits | None = None) -> Signature:
    """Check a file with a memory of its own."""
    return artifact.check(path, checked_dir=path.parent / "checked", limits=limits)


def checkers() -> list[psutil.Process]:
    """Find checking processes this one has left behind."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "serving.models.checker" in " ".join(child.cmdline())
    ]


def refusal(path: Path, limits: artifact.CheckLimits | None = None) -> str:
    """Check a file that must be refused and return the reason."""
    with pytest.raises(InvalidArtifact) as refused:
        check(path, limits)
    assert str(path.parent) not in refused.value.message
    assert not list(path.parent.glob("checked/*"))
    assert checkers() == []
    return refused.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """No process is started for it."""
    assert refusal(tmp_path / "gone.onnx") == "the file does not exist"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """Zero bytes are what a full disk leaves."""
    assert refusal(onnx_models.save(tmp_path / "m.onnx", b"")) == "the file is empty"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """Only regular files are opened."""
    (tmp_path / "m.onnx").mkdir()

    assert refusal(tmp_path / "m.onnx") == "it is not a regular file"


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    """Opening it must not hang."""
    os.mkfifo(tmp_path / "m.onnx")

    assert refusal(tmp_path / "m.onnx") == "it is not a regular file"


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """What it points to may change without the file's name changing."""
    onnx_models.save(tmp_path / "real.onnx", GOOD)
    (tmp_path / "m.onnx").symlink_to("real.onnx")

    assert "symbolic link" in refusal(tmp_path / "m.onnx")
    with pytest.raises(InvalidArtifact, match="symbolic link"):
        artifact.stage(
            tmp_path / "m.onnx", artifact.digest(tmp_path / "real.onnx"), tmp_path / "artifacts"
        )


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    """Before it is read."""
    path = onnx_models.save(tmp_path / "m.onnx", GOOD)
    most = len(GOOD) - 1

    reason = refusal(path, artifact.CheckLimits(max_file_bytes=most))

    assert reason == f"the file has {len(GOOD)} bytes; at most {most} are accepted"


def test_a_wrong_digest_is_refused_with_both(tmp_path: Path) -> None:
    """Expected and found, as far as people compare them."""
    path = onnx_models.save(tmp_path / "m.onnx", GOOD)
    found, expected = artifact.digest(path), "0123456789ab" + "0" * 52

    with pytest.raises(InvalidArtifact) as refused:
        artifact.check(path, expected, checked_dir=tmp_path / "checked")

    assert found[:12] in refused.value.message
    assert "0123456789ab" in refused.value.message


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, in one pass of one process; the whole file passes beside them."""
    whole = onnx_models.save(tmp_path / "whole.onnx", GOOD)
    cuts = [1, 2, 3, 5, *range(8, len(GOOD), len(GOOD) // 30), len(GOOD) - 1]
    files = [onnx_models.save(tmp_path / f"{cut}.onnx", GOOD[:cut]) for cut in cuts]

    verdicts = artifact.check_many([*files, whole], checked_dir=tmp_path / "checked")

    assert isinstance(verdicts.pop(whole), Signature)
    assert len(verdicts) == len(cuts)
    for verdict in verdicts.values():
        assert isinstance(verdict, InvalidArtifact)
        assert str(tmp_path) not in verdict.message


def test_flipped_bytes_are_judged_without_harm(tmp_path: Path) -> None:
    """Sixty damaged files: each gets a verdict, and none passes for the file it was."""
    source = np.random.default_rng(20)
    original = artifact.digest(onnx_models.save(tmp_path / "good.onnx", GOOD))
    files = []
    for i in range(60):
        data = bytearray(GOOD)
        # Half of them in the graph's structure, which weights would otherwise hide.
        where = int(source.integers(0, 200 if i % 2 else len(data)))
        data[where] ^= int(source.integers(1, 256))
        files.append(onnx_models.save(tmp_path / f"{i}.onnx", bytes(data)))

    verdicts = artifact.check_many(files, checked_dir=tmp_path / "checked", limits=TIGHT)

    assert set(verdicts) == set(files)
    assert any(isinstance(verdict, InvalidArtifact) for verdict in verdicts.values())
    assert checkers() == []
    for path in files:
        with pytest.raises(InvalidArtifact, match="was expected"):
            artifact.stage(path, original, tmp_path / "artifacts")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "weights.bin"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_external_data_is_refused_wherever_it_lies(
    tmp_path: Path, location: str, nested: bool
) -> None:
    """Above the model, at an absolute path, behind a link, or beside it."""
    (tmp_path / "weights.bin").write_bytes(np.ones(1, "<f4").tobytes())
    (tmp_path / "link.bin").symlink_to("weights.bin")
    path = onnx_models.save(tmp_path / "m.onnx", onnx_models.external(location, nested=nested))

    reason = refusal(path)

    assert "tensor 'outside' is external data" in reason
    assert "only models in one file are served" in reason


def test_an_endless_model_is_ended_by_the_clock(tmp_path: Path) -> None:
    """2⁶² steps are not waited for."""
    path = onnx_models.save(tmp_path / "m.onnx", onnx_models.endless())

    assert refusal(path, TIGHT) == "it was not loaded and run within 2 s"


def test_an_endless_model_is_ended_by_its_processor_time(tmp_path: Path) -> None:
    """Also on a machine too busy for the clock to tell."""
    path = onnx_models.save(tmp_path / "m.onnx", onnx_models.endless())

    reason = refusal(path, artifact.CheckLimits(cpu_seconds=1))

    assert reason == "it took more than 1 s of processor time to load and run"


def test_a_model_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    """It gets no more than its limit, so the machine does not notice."""
    path = onnx_models.save(tmp_path / "m.onnx", onnx_models.greedy())

    assert refusal(path, TIGHT) == "it needs more than 1024 MiB of memory to load and run"


def test_one_bad_file_does_not_spoil_the_others(tmp_path: Path) -> None:
    """Those behind it are checked in another process, and only it is refused."""
    models = {
        "a": GOOD,
        "b": onnx_models.endless(),
        "c": onnx_models.linear(),
        "d": onnx_models.greedy(),
        "e": onnx_models.simple(),
    }
    files = [onnx_models.save(tmp_path / name, model) for name, model in models.items()]

    verdicts = artifact.check_many(files, checked_dir=tmp_path / "checked", limits=TIGHT)

    passed = [path.name for path in files if isinstance(verdicts[path], Signature)]
    assert passed == ["a", "c", "e"]
    assert len(list((tmp_path / "checked").iterdir())) == 3
    assert checkers() == []


def test_a_checker_that_cannot_start_is_not_the_files_fault(tmp_path: Path) -> None:
    """The reason says that the file was not even opened."""
    path = onnx_models.save(tmp_path / "m.onnx", GOOD)

    reason = refusal(path, artifact.CheckLimits(start_seconds=0.0))

    assert reason.startswith("it could not be checked")


@pytest.mark.parametrize(
    ("model", "word"),
    [(onnx_models.custom_operator(), "Frobnicate"), (onnx_models.zipmap(), "without ZipMap")],
    ids=["custom operator", "zipmap"],
)
def test_what_cannot_be_run_is_refused_with_advice(tmp_path: Path, model: bytes, word: str) -> None:
    """From the throw-away process the reason arrives as it was worded."""
    assert word in refusal(onnx_models.save(tmp_path / "m.onnx", model))
