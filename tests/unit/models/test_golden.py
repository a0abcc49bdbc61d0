"""Golden examples: what a file must give."""

import json
from pathlib import Path
from typing import Any

import onnx_models
import pytest

from serving.errors import InvalidArtifact
from serving.models.artifact import check_golden, digest
from serving.models.golden import compare_golden, decode_golden
from serving.models.runtime import Model


def compare(outputs: dict[str, Any], inputs: Any = ((2.0,), (3.0,)), **more: Any) -> None:
    """Compare a doubler with one example."""
    example = {"name": "two and three", "inputs": {"X": inputs}, "outputs": outputs}
    golden = decode_golden(json.dumps({"examples": [example], **more}))
    compare_golden(Model(onnx_models.doubler()), golden)


def test_what_is_expected_passes() -> None:
    """Within the tolerance."""
    compare({"Y": [[4.0], [6.0003]]})


@pytest.mark.parametrize(
    ("outputs", "inputs", "words"),
    [
        (
            {"Y": [[4.0], [7.0]]},
            [[2.0], [3.0]],
            "'two and three': output 'Y' at [1, 0] is 6.0, and 7.0 is expected (1 of 2 values",
        ),
        ({"Y": [[4.0]]}, [[2.0], [3.0]], "has the shape [2, 1], and [1, 1] is expected"),
        ({"Z": [[4.0]]}, [[2.0]], "names the output 'Z', and the file has Y"),
        ({}, [[2.0]], "expects nothing"),
        ({"Y": [[4.0]]}, None, "has no 'X'"),
        ({"Y": [[4.0]]}, [["two"]], "'X' is not FP32 of one shape"),
        ({"Y": [[4.0]]}, [[[2.0]]], "fails: "),
    ],
)
def test_what_differs_is_named(outputs: dict[str, Any], inputs: Any, words: str) -> None:
    """The example, the place and both numbers."""
    with pytest.raises(InvalidArtifact) as refusal:
        compare(outputs, inputs)

    assert words in refusal.value.message


@pytest.mark.parametrize("text", ["{", '{"examples": []}', '{"examples": [], "tolerence": 1}'])
def test_a_file_that_compares_nothing_is_refused(text: str) -> None:
    """An empty list would pass whatever the model does."""
    with pytest.raises(InvalidArtifact):
        decode_golden(text)


def test_they_run_in_a_process_of_their_own(tmp_path: Path) -> None:
    """A file that kills whoever runs it is refused, and we live."""
    model = onnx_models.save(tmp_path / "trap.onnx", onnx_models.trap(7))
    examples = tmp_path / "golden.json"
    examples.write_text(
        '{"examples": [{"name": "a", "inputs": {"X": [[2.0]]}, "outputs": {"Y": [[5.0]]}}]}'
    )
    doubler = onnx_models.save(tmp_path / "doubler.onnx", onnx_models.doubler())

    with pytest.raises(InvalidArtifact, match=r"is 4\.0, and 5\.0 is expected"):
        check_golden(doubler, digest(doubler), examples)
    with pytest.raises(InvalidArtifact):
        check_golden(model, digest(model), examples)
