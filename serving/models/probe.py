"""Example rows for a model nobody has called yet: for warming up, and to see if rows mix."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.types import NUMPY_OF, TensorMetadata

__all__ = ["FREE_SIZES", "alike", "has_free_inner", "max_rows", "random", "zeros"]

Feed = dict[str, NDArray[Any]]

FREE_SIZES: Final = (1, 2, 8, 16)
"""Sizes tried, in this order, for free dimensions behind the first."""

_MAX_ELEMENTS: Final = 1 << 22
_FLOATS: Final = frozenset(("FP16", "FP32", "FP64"))


def has_free_inner(inputs: Sequence[TensorMetadata]) -> bool:
    """Whether a dimension behind the first is free, so that example shapes are guesses."""
    return any(-1 in tensor.shape[1:] for tensor in inputs)


def _shape(tensor: TensorMetadata, rows: int, free: int) -> tuple[int, ...]:
    head, *rest = tensor.shape or (None,)
    if head is None:
        return ()
    return (rows if head < 0 else head, *(free if size < 0 else size for size in rest))


def max_rows(inputs: Sequence[TensorMetadata]) -> int:
    """Rows whose largest tensor still has a size that is reasonable to make up."""
    widest = max((int(np.prod(_shape(one, 1, 1))) for one in inputs), default=1)
    return max(1, _MAX_ELEMENTS // max(widest, 1))


def zeros(inputs: Sequence[TensorMetadata], rows: int, free: int = 1) -> Feed:
    """Make a feed of zeros; a BYTES element is the text "0", which also reads as a number."""
    return {
        one.name: np.full(_shape(one, rows, free), "0", object)
        if one.datatype == "BYTES"
        else np.zeros(_shape(one, rows, free), NUMPY_OF[one.datatype])
        for one in inputs
    }


def _values(
    datatype: str, shape: tuple[int, ...], top: int, source: np.random.Generator
) -> NDArray[Any]:
    if datatype in _FLOATS:
        return source.standard_normal(shape).astype(NUMPY_OF[datatype])
    whole = source.integers(0, 2 if datatype == "BOOL" else top, shape)
    if datatype == "BYTES":
        return np.array([str(n) for n in whole.flat], object).reshape(shape)
    if datatype == "BF16":  # the high half of small whole numbers as FP32
        return (whole.astype("<f4").view("<u4") >> np.uint32(16)).astype("<u2")
    return whole.astype(NUMPY_OF[datatype])


def random(
    inputs: Sequence[TensorMetadata], rows: int, *, free: int = 1, top: int = 8, seed: int = 0
) -> Feed:
    """Make a feed of pseudo-random rows, the same for the same seed.

    Floats are standard normal; whole numbers are below `top`, because they are often indices
    into a table of unknown length.
    """
    source = np.random.default_rng(seed)
    return {one.name: _values(one.datatype, _shape(one, rows, free), top, source) for one in inputs}


def alike(
    left: Sequence[NDArray[Any]], right: Sequence[NDArray[Any]], tensors: Sequence[TensorMetadata]
) -> bool:
    """Whether two answers agree: floats within rounding, everything else exactly."""
    for a, b, tensor in zip(left, right, tensors, strict=True):
        if a.shape != b.shape:
            return False
        if tensor.datatype == "BF16":
            one, other = ((x.astype("<u4") << np.uint32(16)).view("<f4") for x in (a, b))
            same = np.allclose(one, other, rtol=2e-2, atol=1e-2, equal_nan=True)
        elif tensor.datatype == "FP16":
            wide, other = a.astype("<f4"), b.astype("<f4")
            same = np.allclose(wide, other, rtol=5e-3, atol=1e-3, equal_nan=True)
        elif tensor.datatype in _FLOATS:
            same = np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        else:
            same = np.array_equal(a, b)
        if not same:
            return False
    return True
