"""From a configuration and a model file's signature to a `JoinPlan`, once for each table."""

import json
from collections.abc import Mapping
from typing import Final

import numpy as np

from feature_cache.cache import FeatureCache
from feature_cache.plan import InputSpec
from feature_cache.views import FeatureView
from serving.config.columns import columns_of
from serving.config.schema import ModelConfig
from serving.errors import InvalidConfig
from serving.types import NUMPY_OF, Signature
from serving.worker.join import JoinColumn, JoinPlan
from serving.worker.join_checks import listed, shape_words

__all__ = ["compile_join"]

FIELD_DATATYPE: Final = {
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
    "string": "BYTES",
}


def compile_join(
    config: ModelConfig,
    signature: Signature,
    views: Mapping[str, FeatureView],
    features: FeatureCache | None = None,
) -> JoinPlan:
    """Resolve names and column orders of one version.

    Without `features` a request has to bring everything.

    Raises:
        InvalidConfig: the features do not fit the model file. `sluice check` finds it first.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    columns: dict[str, tuple[JoinColumn, ...]] = {}
    stored: dict[str, InputSpec] = {}
    for name, source in config.inputs.items():
        spec = specs.get(name)
        if spec is None:
            raise InvalidConfig(f"model '{config.model}' has no input '{name}'")
        resolved = columns_of(source.features, views)
        fields = {column.field: column.type for column in resolved}
        view_of = {column.field: column.view for column in resolved}
        order = list(fields)
        if source.order == "onnx_metadata":
            try:
                order = json.loads(signature.metadata["feature_names"])
            except (KeyError, ValueError, RecursionError):
                raise InvalidConfig(
                    f"input '{name}' of model '{config.model}' takes its order from the metadata "
                    "key 'feature_names', and the model file has no such JSON list"
                ) from None
        if (
            set(order) != set(fields)
            or len(spec.shape) != 2
            or spec.shape[1] not in (-1, len(order))
        ):
            raise InvalidConfig(
                f"input '{name}' of model '{config.model}' takes {shape_words(spec.shape)} with "
                f"the features {listed(order)}, but the configuration lists {listed(fields)}"
            )
        for field, kind in fields.items():
            if not np.can_cast(
                NUMPY_OF[FIELD_DATATYPE[kind]], NUMPY_OF[spec.datatype], "same_kind"
            ):
                raise InvalidConfig(
                    f"feature '{field}' is {kind}, which does not fit input '{name}' of model "
                    f"'{config.model}' ({spec.datatype})"
                )
        stored[name] = InputSpec(
            tuple((view_of[field], field) for field in order), NUMPY_OF[spec.datatype]
        )
        columns[name] = tuple(
            JoinColumn(field, FIELD_DATATYPE[fields[field]], name, index)
            for index, field in enumerate(order)
        )
    outputs = tuple(config.outputs) or tuple(spec.name for spec in signature.outputs)
    unknown = set(outputs) - {spec.name for spec in signature.outputs}
    if unknown:
        raise InvalidConfig(f"model '{config.model}' has no output {listed(unknown)}")
    return JoinPlan(
        model=config.model,
        signature=signature,
        columns=columns,
        entity=config.entity,
        outputs=outputs,
        features=features,
        plan=features.compile(stored) if features is not None and stored else None,
    )
