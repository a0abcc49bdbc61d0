"""Arrow arrays made from buffers. Pure.

`pyarrow.array` lets go of the interpreter for every column. Beside a busy event loop, each time
costs two switches between threads and up to a switch interval of waiting. Nothing here lets go.

Layouts: https://arrow.apache.org/docs/format/Columnar.html .
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["mostly_same", "numbers", "repeated_text", "texts"]

_MOST_BYTES: Final = 2**31 - 1


def numbers(
    values: NDArray[Any], kind: pa.DataType | None = None, valid: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Numbers of one width.

    Args:
        values: shape [n]; not changed any more.
        kind: of the same width; the array's own if not given.
        valid: where there is a value; everywhere if not given.
    """
    if values.dtype.kind not in "iuf" or values.dtype.byteorder == ">":
        return pa.array(values, kind, mask=None if valid is None else ~valid)
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    content = pa.py_buffer(np.ascontiguousarray(values))
    kind = kind or pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [bitmap, content])


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts, or nulls."""
    try:
        joined = "".join(values)  # type: ignore[arg-type]
    except TypeError:  # a null, which is seldom
        return pa.array(values, pa.string())
    if not joined.isascii():
        return pa.array(values, pa.string())
    lengths = [len(value) for value in values if value is not None]
    edges = np.fromiter(accumulate(lengths, initial=0), np.int64, len(values) + 1)
    return _texts(edges, joined.encode(), len(values))


def repeated_text(value: str, count: int) -> pa.Array:
    """The same text so many times."""
    once = value.encode()
    return _texts(np.arange(count + 1) * len(once), once * count, count)


def mostly_same(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """At least one value (a text or a number, no null), often all the same."""
    if kind != pa.string():
        return numbers(np.array(values, kind.to_pandas_dtype()), kind)
    same = values.count(values[0]) == len(values)
    return repeated_text(values[0], len(values)) if same else texts(values)


def _texts(edges: NDArray[np.int64], content: bytes, count: int) -> pa.Array:
    if len(content) > _MOST_BYTES:
        raise pa.ArrowCapacityError(f"{len(content)} bytes of text in one column of a batch")
    buffers = [None, pa.py_buffer(edges.astype(np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.string(), count, buffers)
