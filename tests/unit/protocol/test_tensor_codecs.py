"""Tensors as bytes and as JSON values: what is refused, and in which words."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from serving.errors import InvalidRequest
from serving.protocol import byte_strings, shapes, tensors
from serving.protocol.tensors import TensorLimits
from serving.types import DATATYPES, NUMPY_OF, Tensor

LIMITS = TensorLimits(max_elements=1000)

# datatype -> the smallest and the largest value it takes
RANGES = {
    "INT8": (-128, 127),
    "INT16": (-32_768, 32_767),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
    "UINT8": (0, 255),
    "UINT16": (0, 65_535),
    "UINT32": (0, 2**32 - 1),
    "UINT64": (0, 2**64 - 1),
}


@pytest.mark.parametrize(("datatype", "ends"), RANGES.items())
def test_integers_are_taken_up_to_their_width(datatype: str, ends: tuple[int, int]) -> None:
    """Both ends of each range arrive unchanged."""
    tensor = tensors.from_json("x", datatype, [2], list(ends), LIMITS)

    assert tensor.data.tolist() == list(ends)
    assert tensor.data.dtype == NUMPY_OF[datatype]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("datatype", "ends"), RANGES.items())
def test_an_integer_out_of_range_is_named(datatype: str, ends: tuple[int, int], side: int) -> None:
    """One past either end is refused with tensor, index and range, also past 64 bits."""
    beyond = ends[0] - 1 if side == 0 else ends[1] + 1
    # orjson gives integers beyond 64 bits as floats, as a request would bring them.
    [beyond] = orjson.loads(f"[{beyond}]")

    with pytest.raises(InvalidRequest) as caught:
        tensors.from_json("age", datatype, [3], [ends[0], beyond, ends[1]], LIMITS)

    text = caught.value.message
    assert "'age'" in text
    assert "element 1 is out of range" in text
    assert f"{datatype} takes {ends[0]} to {ends[1]}" in text


@pytest.mark.parametrize("size", [2, 100])  # short and long lists are checked differently
@pytest.mark.parametrize(
    ("datatype", "value", "said"),
    [
        ("INT64", 1.0, "a number; INT64 takes an integer"),
        ("INT32", 1.5, "a number; INT32 takes an integer"),
        ("INT8", True, "a boolean; INT8 takes an integer"),
        ("UINT8", "1", "a string; UINT8 takes an integer"),
        ("INT64", None, "null; INT64 takes an integer"),
        ("INT64", {}, "an object; INT64 takes an integer"),
        ("FP32", True, "a boolean; FP32 takes a number"),
        ("FP32", "1.5", "a string; FP32 takes a number"),
        ("FP64", None, "null; FP64 takes a number"),
        ("FP32", [1.0], "an array; FP32 takes a number"),
        ("FP32", 1e39, "too large for FP32"),
        ("FP64", 10**400, "too large for FP64"),
        ("BOOL", 0, "a number; BOOL takes true or false"),
        ("BOOL", 1, "a number; BOOL takes true or false"),
        ("BOOL", "true", "a string; BOOL takes true or false"),
        ("BYTES", 1, "a number; BYTES takes a string"),
        ("BYTES", None, "null; BYTES takes a string"),
        ("BYTES", True, "a boolean; BYTES takes a string"),
    ],
)
def test_an_element_of_the_wrong_type_is_named(
    datatype: str, value: Any, said: str, size: int
) -> None:
    """Nothing is rounded, wrapped or guessed: tensor, index and the reason come back."""
    good: Any = {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
    data = [good] * (size - 1) + [value]

    with pytest.raises(InvalidRequest) as caught:
        tensors.from_json("x", datatype, [size], data, LIMITS)

    assert caught.value.message.startswith(f"tensor 'x': element {size - 1} is ")
    assert said in caught.value.message


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_floats_take_integers(datatype: str) -> None:
    """JSON writers drop the point of whole numbers."""
    tensor = tensors.from_json("x", datatype, [3], [1, 2.5, 2**64], LIMITS)

    assert tensor.data.tolist() == [1.0, 2.5, 2.0**64]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_refused_in_json(datatype: str) -> None:
    """The protocol has no JSON form for it; the caller learns what to do."""
    with pytest.raises(InvalidRequest, match="send it as binary"):
        tensors.from_json("x", datatype, [1], [1.0], LIMITS)


@pytest.mark.parametrize(
    ("datatype", "hint"),
    [
        ("FLOAT32", "did you mean FP32"),
        ("fp32", "did you mean FP32"),
        ("INT", "did you mean INT"),
        ("STRING", "datatype 'STRING'"),
        ("", "datatype ''"),
        ("X" * 5000, "unknown datatype"),
    ],
)
def test_an_unknown_datatype_gets_the_near_word(datatype: str, hint: str) -> None:
    """A misspelt datatype is answered with the nearest one, and never echoed at length."""
    with pytest.raises(InvalidRequest, match=hint) as caught:
        tensors.from_json("x", datatype, [1], [1], LIMITS)

    assert len(caught.value.message) < 120


@pytest.mark.parametrize("datatype", [None, 5, ["FP32"]])
def test_a_datatype_must_be_a_string(datatype: Any) -> None:
    """An absent datatype is refused like one of another type."""
    with pytest.raises(InvalidRequest, match="needs a datatype"):
        tensors.from_json("x", datatype, [1], [1], LIMITS)


@pytest.mark.parametrize(
    ("shape", "count"),
    [([], 1), ([0], 0), ([3], 3), ([2, 0, 5], 0), ([1] * 8, 1), ([10, 100], 1000), ([1000], 1000)],
)
def test_elements_are_counted(shape: list[int], count: int) -> None:
    """An empty shape is one element, a zero anywhere is none."""
    assert shapes.element_count(shape, "x", LIMITS) == count


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([1001], "more than 1000 elements"),
        ([10, 101], "more than 1000 elements"),
        ([2**62, 4], "more than 1000 elements"),
        ([2**63], "more than 1000 elements"),
        ([2**32, 2**32], "more than 1000 elements"),
        ([0, 2**62], "more than 1000 elements"),
        ([2**62, 0], "more than 1000 elements"),
        ([-1], "negative dimension"),
        ([0, -1], "negative dimension"),
        ([2, -(2**63)], "negative dimension"),
        ([1] * 9, "9 dimensions; at most 8"),
        ([1] * 100_000, "100000 dimensions; at most 8"),
        ([1.0], "must be an integer"),
        ([True], "must be an integer"),
        (["1"], "must be an integer"),
        ([None], "must be an integer"),
        ([[1]], "must be an integer"),
        ([1.8446744073709552e19], "must be an integer"),
    ],
)
def test_an_impossible_shape_is_refused_before_anything_is_allocated(
    shape: list[Any], said: str
) -> None:
    """The checked product stops at the limit, whatever the rest of the shape says."""
    with pytest.raises(InvalidRequest, match=said) as caught:
        shapes.element_count(shape, "x", LIMITS)

    assert "'x'" in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["a", "a" * 256, "ä" * 128, "𐍈" * 64, "with space/and:more"])
def test_names_up_to_256_bytes_are_taken(name: str) -> None:
    """Any text is a name; the bound is in UTF-8 bytes."""
    assert shapes.check_name(name, "inputs", 0) == name


@pytest.mark.parametrize("name", ["", None, 5, "a" * 257, "ä" * 129, "𐍈" * 65])
def test_what_is_no_name_is_refused(name: Any) -> None:
    """The message says which entry, as the name itself is not usable."""
    with pytest.raises(InvalidRequest, match=r"inputs\[3\]"):
        shapes.check_name(name, "inputs", 3)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 3], [1, 2, 3, 4, 5, 6]),
        ([2, 3], [[1, 2, 3], [4, 5, 6]]),
        ([1, 6], [[1, 2, 3, 4, 5, 6]]),
        ([6, 1], [[1], [2], [3], [4], [5], [6]]),
        ([1, 2, 1, 3], [[[[1, 2, 3]], [[4, 5, 6]]]]),
    ],
)
def test_data_may_be_flat_or_nested(shape: list[int], data: list[Any]) -> None:
    """Both mean the same row-major tensor."""
    tensor = tensors.from_json("x", "INT32", shape, data, LIMITS)

    assert tensor.data.tolist() == np.arange(1, 7).reshape(shape).tolist()


@pytest.mark.parametrize("data", [[], [[], []]])
def test_an_empty_tensor_may_be_flat_or_nested(data: list[Any]) -> None:
    """No rows, or rows without elements."""
    assert tensors.from_json("x", "FP32", [2, 0], data, LIMITS).data.shape == (2, 0)


def test_a_scalar_has_one_element_and_no_dimensions() -> None:
    """Shape [] is a scalar, its data an array of one."""
    assert tensors.from_json("x", "FP32", [], [2.5], LIMITS).data.shape == ()


@pytest.mark.parametrize(
    ("shape", "data", "said"),
    [
        ([2, 2], [1, 2, 3], "3 elements"),
        ([2], [], "0 elements"),
        ([], [], "0 elements"),
        ([0], [1], "1 elements"),
        ([2, 2], [[1, 2], [3]], "nested data"),
        ([2, 2], [[1, 2, 3], [4]], "nested data"),
        ([4], [[1, 2], [3, 4]], "nested data"),
        ([2, 2], [[1, 2], 3], "nested data"),
        ([2, 2], [[1, 2], "ab"], "nested data"),
        ([2, 2], [[1, 2], {"a": 1, "b": 2}], "nested data"),
        ([2, 2], [[1, 2], None], "nested data"),
        ([1, 2], [[[1, 2]]], "nested data"),
        ([1, 1], [[[1]]], "nested data"),
        ([], [[1]], "nested data"),
        ([2, 2], [1, [2, 3, 4]], "2 elements"),
        ([1], 5, "must be an array"),
        ([1], "5", "must be an array"),
        ([1], {"0": 5}, "must be an array"),
    ],
)
def test_data_that_disagrees_with_the_shape_is_refused(
    shape: list[int], data: Any, said: str
) -> None:
    """Ragged, too deep, too flat, too many, too few: each names the tensor."""
    with pytest.raises(InvalidRequest, match=said):
        tensors.from_json("x", "FP32", shape, data, LIMITS)


def test_nested_data_obeys_the_depth_limit() -> None:
    """Three levels surround data; the rest of the limit is left for its own nesting."""
    limits = TensorLimits(max_json_depth=5)
    assert tensors.from_json("x", "FP32", [1, 1], [[1.0]], limits).data.shape == (1, 1)

    with pytest.raises(InvalidRequest, match="max_json_depth"):
        tensors.from_json("x", "FP32", [1, 1, 1], [[[1.0]]], limits)

    flat = tensors.from_json("x", "FP32", [1, 1, 1], [1.0], limits)
    assert flat.data.shape == (1, 1, 1)


@pytest.mark.parametrize("datatype", [d for d in DATATYPES if d != "BYTES"])
def test_raw_bytes_must_have_exactly_the_size(datatype: str) -> None:
    """One byte less or more is refused with both sizes."""
    size = 6 * NUMPY_OF[datatype].itemsize
    assert tensors.from_raw("x", datatype, [2, 3], bytes(size), LIMITS).data.shape == (2, 3)

    for wrong in (size - 1, size + 1, 0):
        with pytest.raises(InvalidRequest, match=f"has {wrong} bytes; .* takes {size}"):
            tensors.from_raw("x", datatype, [2, 3], bytes(wrong), LIMITS)


def test_raw_numbers_are_shared_not_copied() -> None:
    """An aligned buffer becomes the array's memory, read-only."""
    buffer = np.arange(6, dtype="<f4").tobytes()

    data = tensors.from_raw("x", "FP32", [2, 3], buffer, LIMITS).data

    assert np.shares_memory(data, np.frombuffer(buffer, np.uint8))
    assert not data.flags.writeable


@pytest.mark.parametrize("offset", range(8))
def test_raw_numbers_are_aligned_wherever_they_lie(offset: int) -> None:
    """Tensors behind a JSON header start at any byte; kernels get aligned memory."""
    values = np.arange(4, dtype="<f8")
    buffer = memoryview(bytes(offset) + values.tobytes())[offset:]

    data = tensors.from_raw("x", "FP64", [4], buffer, LIMITS).data

    assert data.flags.aligned
    assert data.tolist() == values.tolist()


def test_a_raw_boolean_is_zero_or_one() -> None:
    """Any other byte would be a boolean that equals neither."""
    assert tensors.from_raw("x", "BOOL", [2], b"\x00\x01", LIMITS).data.tolist() == [False, True]

    with pytest.raises(InvalidRequest, match="0 or 1"):
        tensors.from_raw("x", "BOOL", [2], b"\x00\x02", LIMITS)


@pytest.mark.parametrize(
    ("count", "buffer", "said"),
    [
        (1, b"", "too many for 0 bytes"),
        (1, b"\x01\x00\x00", "too many for 3 bytes"),
        (1, b"\x02\x00\x00\x00a", "ends inside element 0"),
        (2, b"\x04\x00\x00\x00abcd", "ends before the length of element 1"),
        (2, b"\x02\x00\x00\x00abc\x00\x00", "ends before the length of element 1"),
        (1, b"\x01\x00\x00\x00ab", "1 bytes left over"),
        (0, b"\x00", "1 bytes left over"),
        (1, b"\xff\xff\xff\xffa", "ends inside element 0"),
        (1000, b"\x00" * 3999, "too many for 3999 bytes"),
    ],
)
def test_byte_strings_must_fill_their_buffer_exactly(count: int, buffer: bytes, said: str) -> None:
    """Truncated, left over, or more declared than could fit."""
    with pytest.raises(InvalidRequest, match=said):
        byte_strings.unpack(buffer, count, "x")


def test_byte_strings_keep_trailing_zeros() -> None:
    """A string array of numpy would trim them."""
    elements = [b"a\x00\x00", b"", b"\x00"]

    data = byte_strings.as_array(byte_strings.unpack(byte_strings.pack(elements), 3, "x"))

    assert data.tolist() == elements


def test_an_output_of_text_objects_is_written_as_utf8() -> None:
    """ONNX Runtime gives string tensors as `str`."""
    tensor = Tensor("y", "BYTES", np.array(["ä", "b"], np.object_))

    assert tensors.to_raw(tensor) == struct.pack("<I2sI1s", 2, "ä".encode(), 1, b"b")
    assert tensors.to_json(tensor) == ["ä", "b"]


def test_bytes_that_are_not_utf8_have_no_json_form() -> None:
    """The caller is told to ask for binary."""
    tensor = Tensor("y", "BYTES", np.array([b"\xff"], np.object_))

    with pytest.raises(InvalidRequest, match=r"'y'.*binary_data"):
        tensors.to_json(tensor)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_outputs_have_no_json_form(datatype: str) -> None:
    """The caller is told to ask for binary."""
    with pytest.raises(InvalidRequest, match=r"'y'.*binary_data"):
        tensors.to_json(Tensor("y", datatype, np.zeros(1, NUMPY_OF[datatype])))


@pytest.mark.parametrize("data", [np.arange(6, dtype="<f4").reshape(2, 3).T, np.ones((2, 3))[:, 1]])
def test_outputs_that_are_not_contiguous_are_written_row_major(data: Any) -> None:
    """A transposed or sliced result is copied into order first."""
    tensor = Tensor("y", "FP32", data.astype("<f4", copy=False, order="K"))

    assert bytes(tensors.to_raw(tensor)) == data.astype("<f4").tobytes(order="C")
    assert tensors.to_json(tensor).tolist() == data.reshape(-1).tolist()
