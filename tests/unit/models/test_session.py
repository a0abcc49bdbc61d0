import logging
from pathlib import Path

import model_kit
import msgspec
import numpy as np
import onnx_models
import pytest

from serving.config.snapshot import StagedVersion
from serving.errors import InferenceFailed, InvalidArtifact, InvalidRequest
from serving.models.session import Session


async def load(staged: StagedVersion, **options: int) -> Session:
    """Load as a worker does."""
    return await Session.load(
        Path(staged.path), staged.sha256, staged.signature, model="m", version="v1", **options
    )


def replace(staged: StagedVersion, data: bytes | None) -> None:
    """Put other bytes in a staged file's place, or none."""
    Path(staged.path).unlink()
    if data is not None:
        Path(staged.path).write_bytes(data)


async def test_a_loaded_session_is_warm_and_answers(tmp_path: Path) -> None:
    """Run times are known before the first request, for one row and for a full batch."""
    session = await load(model_kit.staged(tmp_path, onnx_models.simple()), limit=16)

    ones = np.ones((2, 16), "<i4")
    total, difference = session.run({"INPUT0": ones * 3, "INPUT1": ones}, ["OUTPUT0", "OUTPUT1"])

    assert np.array_equal(total, ones * 4)
    assert np.array_equal(difference, ones * 2)
    assert session.times.expect(1) > 0
    assert session.times.expect(16) > 0


async def test_text_goes_in_and_comes_out_as_bytes(tmp_path: Path) -> None:
    """BYTES are UTF-8 text to ONNX Runtime, NUL characters included, and bytes to us."""
    session = await load(model_kit.staged(tmp_path, onnx_models.string_identity()))
    data = np.array([[b"plain"], ["drei Straßen".encode()], [b"a\0b"], [b""]], object)

    feed = {"INPUT0": data}

    [answer] = session.run(session.prepare(feed), ["OUTPUT0"])

    assert answer.tolist() == data.tolist()
    assert feed["INPUT0"] is data  # the caller's own mapping is left alone


async def test_text_that_is_not_utf8_is_the_callers_fault(tmp_path: Path) -> None:
    """The message names the input and the element, not the bytes."""
    session = await load(model_kit.staged(tmp_path, onnx_models.string_identity()))

    with pytest.raises(InvalidRequest, match="input 'INPUT0': element 1 is not valid UTF-8"):
        session.prepare({"INPUT0": np.array([[b"good"], [b"\xff\xfe"]], object)})


async def test_a_failing_run_says_little_to_the_caller_and_all_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime's words, which may quote the model's insides, are logged only."""
    session = await load(model_kit.staged(tmp_path, onnx_models.picky()))

    with caplog.at_level(logging.WARNING), pytest.raises(InferenceFailed) as failure:
        session.run({"X": np.array([[99]])}, ["Y"])

    assert failure.value.message == "model 'm' version 'v1' failed on this input"
    assert "Gather" in caplog.text


async def test_a_file_that_changed_since_its_check_is_not_loaded(tmp_path: Path) -> None:
    """The bytes that are loaded are the bytes whose digest was published."""
    staged = model_kit.staged(tmp_path, onnx_models.doubler())
    replace(staged, onnx_models.simple())

    with pytest.raises(InvalidArtifact, match="was expected"):
        await load(staged)


async def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The reason says so, and names no path."""
    staged = model_kit.staged(tmp_path, onnx_models.doubler())
    replace(staged, None)

    with pytest.raises(InvalidArtifact, match="does not exist") as refusal:
        await load(staged)

    assert str(tmp_path) not in refusal.value.message


async def test_a_signature_that_is_not_the_files_is_refused(tmp_path: Path) -> None:
    """What routes and decoders were compiled for must be what runs."""
    staged = model_kit.staged(tmp_path, onnx_models.doubler())
    other = model_kit.staged(tmp_path, onnx_models.simple()).signature

    with pytest.raises(InvalidArtifact, match="not those found when it was checked"):
        await load(msgspec.structs.replace(staged, signature=other))


async def test_a_model_with_a_loop_is_kept_off_the_event_loop(tmp_path: Path) -> None:
    """However quick its warm-up was."""
    session = await load(model_kit.staged(tmp_path, onnx_models.patience()))

    assert session.times.slow(1)


async def test_a_model_with_free_inner_sizes_is_warmed_up_with_a_guess(tmp_path: Path) -> None:
    """Sizes nobody knows do not stop it from loading."""
    session = await load(model_kit.staged(tmp_path, onnx_models.flexible_identity()))

    assert session.times.expect(64) > 0


async def test_half_precision_runs_as_it_is(tmp_path: Path) -> None:
    """FP16 arrays and BF16 bit patterns pass through a session."""
    bits = {"FP16": np.array([[1.5, -2.0]], "<f2"), "BF16": np.array([[0x3FC0, 0xC000]], "<u2")}
    for datatype, data in bits.items():
        session = await load(model_kit.staged(tmp_path, onnx_models.identity(datatype, 2)))

        [answer] = session.run({"INPUT0": data}, ["OUTPUT0"])

        assert np.array_equal(answer, data)
        assert answer.dtype == data.dtype
