"""Which columns of a model are watched, and what they are called. Pure.

Features are called as their field (`AGEP`), outputs as themselves; an output with several values
a row gives one column each, `NAME[0]`, `NAME[1]` …, as `monitoring.prediction.score` writes it.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_cache.views import FeatureView
from serving.config.columns import Column, columns_of
from serving.config.schema import ModelConfig

__all__ = ["WIDEST", "feature_columns", "output_columns", "value_of"]

WIDEST: Final = 16
"""Most values a row of an output that is watched; more are an embedding, and no bin helps."""

_NUMPY: Final = {
    "float32": np.float32, "float64": np.float64, "int8": np.int8, "int16": np.int16,
    "int32": np.int32, "int64": np.int64, "bool": np.bool_,
}  # fmt: skip


def feature_columns(model: ModelConfig, views: Mapping[str, FeatureView]) -> dict[str, Column]:
    """The features that fill a model's inputs, by field.

    Raises:
        UnknownFeature: the configuration names one that is not there.
    """
    return {
        column.field: column
        for source in model.inputs.values()
        for column in columns_of(source.features, views)
    }


def output_columns(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The columns of one output of shape [n], [n, 1] or [n, k]; empty for any other shape.

    Of two probabilities only the second counts: the first is what it leaves.
    """
    if values.ndim == 1:
        return {name: values}
    if values.ndim != 2 or not 1 <= values.shape[1] <= WIDEST:
        return {}
    if values.shape[1] == 1:
        return {name: values[:, 0]}
    first = 1 if values.shape[1] == 2 and _sums_to_one(values) else 0
    return {f"{name}[{i}]": values[:, i] for i in range(first, values.shape[1])}


def value_of(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    """A table's values as the model gets them, so that bins lie where its rows do.

    Raises:
        ValueError: a value that is not of the field's type.
    """
    if column.type == "string":
        return np.array([one if one is None else str(one) for one in values], object)
    wanted = np.dtype(_NUMPY[column.type])
    if values.dtype.kind in "OUS":
        raise ValueError(f"the table holds text, but {column.view}.{column.field} is {column.type}")
    if wanted.kind != "f" and values.dtype.kind == "f":
        gaps = np.isnan(values)
        if np.any(values[~gaps] != np.trunc(values[~gaps])):
            raise ValueError(f"the table holds fractions, but the field is {column.type}")
        if gaps.any():  # integers cannot say that one is missing
            return values
    with np.errstate(over="ignore"):
        return values.astype(wanted)


def _sums_to_one(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "f" and bool(np.allclose(values.sum(1), 1, atol=1e-3))
