import json
from typing import Any

import numpy as np
import pytest

from serving.cli.infer_inputs import build, pairs
from serving.cli.output import CommandError
from serving.types import NUMPY_OF, Tensor, TensorMetadata

DECLARED = [
    TensorMetadata("person_id", "INT64", (-1,)),
    TensorMetadata("name", "BYTES", (-1, 1)),
    TensorMetadata("AGEP", "FP32", (-1, 1)),
    TensorMetadata("small", "UINT8", (-1,)),
    TensorMetadata("flag", "BOOL", (-1, 1)),
    TensorMetadata("half", "FP16", (-1, 2)),
    TensorMetadata("brain", "BF16", (-1, 1)),
    TensorMetadata("X", "FP32", (-1, 3)),
]


def one(
    rows: dict[str, list[str]] | None = None, whole: dict[str, list[str]] | None = None
) -> Tensor:
    """The only tensor made."""
    [tensor] = build(DECLARED, rows or {}, whole or {})
    return tensor


def test_a_name_given_again_adds_a_row() -> None:
    """Two people are asked for by naming the key twice."""
    assert pairs(["person_id=1", "AGEP=3", "person_id=2"], "--entity") == {
        "person_id": ["1", "2"],
        "AGEP": ["3"],
    }
    tensor = one({"person_id": ["1", "2"]})
    assert (tensor.datatype, tensor.shape, tensor.data.tolist()) == ("INT64", (2,), [1, 2])


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("AGEP", "38.5", 38.5),
        ("name", "a=b é", "a=b é".encode()),
        ("flag", "true", True),
        ("flag", "0", False),
        ("small", "255", 255),
        ("person_id", "-9223372036854775808", -(2**63)),
    ],
)
def test_values_become_what_the_metadata_says(name: str, text: str, value: Any) -> None:
    """Each datatype is read its own way, in the shape that the model wants."""
    tensor = one({name: [text]})

    rank = {tensor.name: len(tensor.shape) for tensor in DECLARED}[name]
    assert tensor.shape == (1,) * rank
    assert tensor.data.reshape(-1)[0] == value
    assert tensor.data.dtype == NUMPY_OF[tensor.datatype]


def test_a_whole_tensor_is_given_as_json() -> None:
    """Nested arrays carry their shape."""
    tensor = one(whole={"X": ["[[1, 2, 3], [4, 5, 6]]"]})

    assert tensor.shape == (2, 3)
    assert tensor.data.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_half_precision_is_rounded_and_not_cut() -> None:
    """FP16 and BF16 are written as numbers and become the nearest they can hold."""
    half = one(whole={"half": ["[[1.0, 65504]]"]})
    assert half.data.tolist() == [[1.0, 65504.0]]
    # 1.0 + 2^-8 + a little is nearer to the next BF16 (0x3F81) than to 1.0 (0x3F80).
    brain = one({"brain": [str(1 + 2**-8 + 2**-12)]})
    assert brain.data.tolist() == [[0x3F81]]
    assert (np.uint32(one({"brain": ["-2"]}).data[0, 0]) << 16) == np.float32(-2).view(np.uint32)


@pytest.mark.parametrize(
    ("rows", "whole", "says"),
    [
        ({"persn_id": ["1"]}, {}, "no input `persn_id`"),
        ({"person_id": ["x"]}, {}, "`x` is no INT64"),
        ({"person_id": ["9223372036854775808"]}, {}, "out of INT64's range"),
        ({"small": ["-1"]}, {}, "out of UINT8's range"),
        ({"flag": ["perhaps"]}, {}, "is no BOOL"),
        ({"AGEP": ["old"]}, {}, "is no FP32"),
        ({"X": ["1"]}, {}, "takes 3 values a row"),
        ({}, {"X": ["[[1, 2"]}, "not JSON"),
        ({}, {"X": ["5"]}, "expected a JSON array"),
        ({}, {"X": ["[[1, 2], [3]]"]}, "X"),
        ({}, {"X": ['[["a", 2, 3]]']}, "X"),
        ({}, {"X": ["[]", "[]"]}, "given twice"),
        ({"AGEP": ["1"]}, {"AGEP": ["[[1]]"]}, "given twice"),
        ({}, {}, "nothing to ask"),
    ],
)
def test_what_does_not_fit_is_named(
    rows: dict[str, list[str]], whole: dict[str, list[str]], says: str
) -> None:
    """The message names the input and what is wrong with it."""
    with pytest.raises(CommandError) as caught:
        one(rows, whole)

    assert says in caught.value.message


def test_a_near_name_is_suggested() -> None:
    """A typing mistake costs one look."""
    with pytest.raises(CommandError) as caught:
        one({"AGPE": ["1"]})

    assert caught.value.hint == "did you mean `AGEP`?"


@pytest.mark.parametrize("text", ["person_id", "=5", ""])
def test_a_pair_without_a_name_or_value_is_refused(text: str) -> None:
    """The option and the form are named."""
    with pytest.raises(CommandError, match="--entity"):
        pairs([text], "--entity")


def test_numbers_in_whole_tensors_are_checked_like_on_the_wire() -> None:
    """The same reader as the gateway's: JSON has no NaN."""
    with pytest.raises(CommandError, match="not JSON"):
        one(whole={"X": [json.dumps([[1, 2, float("nan")]])]})
