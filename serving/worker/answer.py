"""From a session's outputs to the tensors a client asked for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.types import RequestedOutput, Tensor

__all__ = ["answer_tensors"]


def answer_tensors(
    names: tuple[str, ...],
    arrays: list[NDArray[Any]],
    datatypes: dict[str, str],
    requested: list[RequestedOutput],
    labels: list[str],
) -> list[Tensor]:
    """Name the arrays; outputs asked for with `classification: n` become their top n classes.

    Raises InvalidRequest for a classification of an output that has no classes to rank.
    """
    tensors = [
        Tensor(name, datatypes[name], array) for name, array in zip(names, arrays, strict=True)
    ]
    for index, wish in enumerate(requested):
        if wish.classification:
            tensors[index] = _classes(tensors[index], wish.classification, labels)
    return tensors


def _classes(tensor: Tensor, count: int, labels: list[str]) -> Tensor:
    """Triton's classification extension: BYTES `value:index[:label]`, best first, `[batch, n]`."""
    scores = tensor.data
    if scores.ndim != 2 or scores.dtype.kind not in "iuf" or tensor.datatype == "BF16":
        raise InvalidRequest(
            f"output '{tensor.name}' has no classes to rank: 'classification' needs numbers of "
            "shape [batch, classes]"
        )
    count = min(count, scores.shape[1])
    # Stable, so that equal scores keep their order.
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :count]
    ranked = np.empty((scores.shape[0], count), np.object_)
    for row, indices in enumerate(best):
        for rank, index in enumerate(indices):
            text = f"{scores[row, index]}:{index}"
            if index < len(labels):
                text += f":{labels[index]}"
            ranked[row, rank] = text.encode()
    return Tensor(tensor.name, "BYTES", ranked)
