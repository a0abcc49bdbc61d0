import numpy as np
import pytest

from serving.models import probe
from serving.types import DATATYPES, NUMPY_OF, TensorMetadata


@pytest.mark.parametrize("datatype", DATATYPES)
def test_made_up_rows_have_the_declared_type_and_shape(datatype: str) -> None:
    """The first dimension is the rows, other free ones the size that was asked for."""
    inputs = [TensorMetadata("x", datatype, (-1, 4, -1))]

    for feed in (probe.zeros(inputs, 2, 5), probe.random(inputs, 2, free=5)):
        assert feed["x"].shape == (2, 4, 5)
        assert feed["x"].dtype == NUMPY_OF[datatype]


def test_rows_differ_and_repeat_by_seed() -> None:
    """Two rows are different, and the same seed makes the same rows again."""
    inputs = [TensorMetadata("x", "FP32", (-1, 4))]

    first, second = (probe.random(inputs, 2, seed=7)["x"] for _ in range(2))

    assert np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_warming_up_stays_within_a_reasonable_size() -> None:
    """A wide input is warmed up with fewer rows."""
    assert probe.max_rows([TensorMetadata("x", "FP32", (-1, 3, 224, 224))]) == 27
    assert probe.max_rows([TensorMetadata("x", "FP32", ())]) > 1000


@pytest.mark.parametrize(("datatype", "off", "same"), [("FP32", 1e-6, True), ("FP32", 1e-2, False)])
def test_floats_agree_within_rounding_only(datatype: str, off: float, same: bool) -> None:
    """Kernels may round differently for other batch sizes, but not more."""
    one = np.ones((2, 2), NUMPY_OF[datatype])
    tensors = [TensorMetadata("y", datatype, (-1, 2))]

    other = one + NUMPY_OF[datatype].type(off)

    assert probe.alike([one], [other], tensors) is same


def test_whole_numbers_must_be_equal_and_shapes_too() -> None:
    """A class label is right or wrong; a missing row is wrong."""
    tensors = [TensorMetadata("label", "INT64", (-1,))]

    assert probe.alike([np.array([1, 2])], [np.array([1, 2])], tensors)
    assert not probe.alike([np.array([1, 2])], [np.array([1, 3])], tensors)
    assert not probe.alike([np.array([1, 2])], [np.array([1])], tensors)
