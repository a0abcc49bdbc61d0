"""The classification extension."""

import numpy as np
import pytest

from serving.errors import InvalidRequest
from serving.protocol.classification import top
from serving.types import NUMPY_OF, Tensor


def test_each_row_gives_its_largest_values_first() -> None:
    """Ties keep the order of their indices; NaN comes last."""
    data = np.array([[1, 3, 2], [5, 5, np.nan]], np.float32)

    result = top(Tensor("y", "FP32", data), 2)

    assert (result.name, result.datatype) == ("y", "BYTES")
    assert result.data.tolist() == [
        [b"3.000000:1", b"2.000000:2"],
        [b"5.000000:0", b"5.000000:1"],
    ]


def test_further_dimensions_belong_to_the_row() -> None:
    """Only the first dimension is the batch."""
    result = top(Tensor("y", "INT32", np.arange(8, dtype=np.int32).reshape(2, 2, 2)), 1)

    assert result.data.tolist() == [[b"3.000000:3"], [b"7.000000:3"]]


@pytest.mark.parametrize(
    ("data", "shape"), [(np.arange(3.0), (3,)), (np.array(1.0), (1,)), (np.empty((0, 3)), (0, 3))]
)
def test_a_row_gives_no_more_than_it_has(data: np.ndarray, shape: tuple[int, ...]) -> None:
    """Asking for more classes than there are gives all of them."""
    assert top(Tensor("y", "FP64", data), 10).data.shape == shape


@pytest.mark.parametrize(
    ("datatype", "data", "best"),
    [
        ("UINT8", np.array([3, 200], np.uint8), b"200.000000:1"),
        ("FP16", np.array([0.5, 0.25], np.float16), b"0.500000:0"),
        # 0x3FC0 is the high half of 1.5 as FP32, 0xBF80 of -1.
        ("BF16", np.array([0xBF80, 0x3FC0], np.uint16), b"1.500000:1"),
    ],
)
def test_every_number_can_be_ranked(datatype: str, data: np.ndarray, best: bytes) -> None:
    """Unsigned and half-precision values are compared as what they mean."""
    assert top(Tensor("y", datatype, data), 1).data.tolist() == [best]


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL"])
def test_what_is_no_number_cannot_be_ranked(datatype: str) -> None:
    """The message names the output."""
    with pytest.raises(InvalidRequest, match="'y'"):
        top(Tensor("y", datatype, np.zeros(1, NUMPY_OF[datatype])), 1)
