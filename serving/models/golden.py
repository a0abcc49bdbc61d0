"""Golden examples: inputs whose outputs a model file must give, or it is not the model meant.

A JSON file beside the model:

    {"tolerance": 1e-4,
     "examples": [{"name": "retired", "inputs": {"X": [[81.0, 16.0]]}, "outputs": {"label": [0]}}]}

Outputs that are not named are not compared. Numbers may be off by `tolerance`, absolutely or
relative to what is expected; text and BOOL must be equal.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidArtifact
from serving.models.runtime import Model, plain_reason, raise_if_out_of_memory
from serving.types import NUMPY_OF, TensorMetadata

__all__ = ["Golden", "GoldenExample", "compare_golden", "decode_golden"]


class GoldenExample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One or several rows, by the names of the file's own inputs and outputs."""

    name: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    examples: list[GoldenExample]
    tolerance: float = 1e-4


def decode_golden(content: bytes | str) -> Golden:
    """Read the file's text. Raises InvalidArtifact with what is wrong."""
    try:
        golden = msgspec.json.decode(content, type=Golden)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArtifact(f"the golden examples cannot be read: {error}") from error
    if not golden.examples:
        raise InvalidArtifact("the golden examples are none: nothing would be compared")
    if not golden.tolerance >= 0:
        raise InvalidArtifact("the golden examples' tolerance must not be negative")
    return golden


def compare_golden(model: Model, golden: Golden) -> None:
    """Run every example. Raises InvalidArtifact naming the first that differs, and how."""
    for example in golden.examples:
        what = f"golden example '{example.name}'"
        if not example.outputs:
            raise InvalidArtifact(f"{what} expects nothing: name an output")
        feed = {
            tensor.name: _array(tensor, example.inputs.get(tensor.name), what)
            for tensor in model.inputs
        }
        known = {tensor.name: tensor for tensor in model.outputs}
        for kind, there, said in (
            ("input", feed, example.inputs), ("output", known, example.outputs)
        ):  # fmt: skip
            if absent := [name for name in said if name not in there]:
                raise InvalidArtifact(
                    f"{what} names the {kind} '{absent[0]}', and the file has "
                    f"{', '.join(sorted(there))}"
                )
        names = list(example.outputs)
        try:
            answers = model.run(names, feed, None)
        except Exception as error:
            raise_if_out_of_memory(error)
            raise InvalidArtifact(f"{what} fails: {plain_reason(error)}") from error
        for name, answer in zip(names, answers, strict=True):
            expected = _array(known[name], example.outputs[name], what)
            _compare(f"{what}: output '{name}'", answer, expected, golden.tolerance)


def _array(tensor: TensorMetadata, values: Any, what: str) -> NDArray[Any]:
    if values is None:
        raise InvalidArtifact(f"{what} has no '{tensor.name}'")
    if tensor.datatype == "BF16":
        raise InvalidArtifact(f"{what}: '{tensor.name}' is BF16, which JSON cannot say")
    kind = object if tensor.datatype == "BYTES" else NUMPY_OF[tensor.datatype]
    try:
        return np.array(values, dtype=kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArtifact(
            f"{what}: '{tensor.name}' is not {tensor.datatype} of one shape: {error}"
        ) from error


def _compare(what: str, answer: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    if answer.shape != expected.shape:
        raise InvalidArtifact(
            f"{what} has the shape {list(answer.shape)}, and {list(expected.shape)} is expected"
        )
    if answer.dtype.kind in "fiu":
        wide, other = answer.astype(np.float64), expected.astype(np.float64)
        same = np.isclose(wide, other, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        same = np.asarray(answer == expected)
    if same.all():
        return
    place = tuple(int(one) for one in np.argwhere(~same)[0])
    raise InvalidArtifact(
        f"{what} at {list(place)} is {answer[place]}, and {expected[place]} is expected "
        f"({int((~same).sum())} of {same.size} values differ)"
    )
