"""The classification extension: the top n of an output as strings.

Format: Triton's classification extension; elements are `value:index`, or `value:index:label` for
classes that the model's configuration names.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.protocol.byte_strings import as_array
from serving.types import Tensor

__all__ = ["top"]


def top(tensor: Tensor, count: int, labels: Sequence[str] = ()) -> Tensor:
    """Give the `count` largest values of each row as BYTES, largest first, ties by index.

    A tensor of several dimensions has one row per element of the first, `[batch, count]`;
    otherwise it is one row, `[count]`. NaN comes last. Rows shorter than `count` give all.

    Raises:
        InvalidRequest: the output holds no numbers.
    """
    if tensor.datatype in ("BYTES", "BOOL"):
        raise InvalidRequest(
            f"output '{tensor.name}' is {tensor.datatype}; classification needs numbers"
        )
    data = tensor.data
    if tensor.datatype == "BF16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    batched = data.ndim > 1
    rows = data.reshape(len(data), int(np.prod(data.shape[1:]))) if batched else data.reshape(1, -1)
    width = min(count, rows.shape[1])
    elements = [element for row in rows for element in _best(row, width, labels)]
    shape = (len(rows), width) if batched else (width,)
    return Tensor(tensor.name, "BYTES", as_array(elements).reshape(shape))


def _best(row: NDArray[Any], width: int, labels: Sequence[str]) -> list[bytes]:
    values = row.astype(np.float64)
    order = np.argsort(-values, kind="stable")[:width]
    return [f"{values[index]:f}:{index}{_label(int(index), labels)}".encode() for index in order]


def _label(index: int, labels: Sequence[str]) -> str:
    return f":{labels[index]}" if index < len(labels) else ""
