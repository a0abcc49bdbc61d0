"""Rules between a model's YAML and its files, once the files have been read.

What a file takes and gives is only known after it was checked in a process of its own, so
these rules come last: `sluice check` and the control process call them with the result.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from serving.config.columns import Column, UnknownFeature, columns_of
from serving.config.load import Loaded
from serving.config.problems import Path, Problem, did_you_mean
from serving.config.rules.monitoring import check_monitoring_names
from serving.types import Signature, TensorMetadata

__all__ = ["check_signatures"]

# Not BF16: numpy has no such type, so no worker could convert to it.
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
_WIDTH: Final = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64}
_FIELD_WIDTH: Final = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


def check_signatures(
    loaded: Loaded, signatures: Mapping[str, Mapping[str, Signature]]
) -> list[Problem]:
    """Judge each model against its files' signatures, keyed by model, then version.

    Versions without a signature (files that were refused) are left out.
    """
    models = loaded.configuration.models
    problems: list[Problem] = []
    for model, versions in signatures.items():
        if model not in models:
            continue
        for version, signature in versions.items():
            problems += _Version(loaded, model, version, signature).problems(versions)
        production = versions.get(models[model].traffic.production)
        if production is not None:
            problems += check_monitoring_names(loaded, model, production)
    return problems


class _Version:
    def __init__(self, loaded: Loaded, model: str, version: str, signature: Signature) -> None:
        self._model = loaded.configuration.models[model]
        self._views = loaded.configuration.views
        self._sources = loaded.sources
        self._file = loaded.model_files[model]
        self._version = version
        self._signature = signature
        self._inputs = {spec.name: spec for spec in signature.inputs}

    def _problem(self, path: Path, message: str, suggestion: str = "") -> Problem:
        return self._sources.problem(
            self._file, path, f"{message} (version `{self._version}`)", suggestion
        )

    def problems(self, versions: Mapping[str, Signature]) -> Iterator[Problem]:
        """Every disagreement between YAML and file."""
        yield from self._features()
        yield from self._outputs()
        yield from self._labels()
        yield from self._answers_the_same_calls(versions)

    def _features(self) -> Iterator[Problem]:
        for name, source in self._model.inputs.items():
            spec = self._inputs.get(name)
            if spec is None:
                message = f"the model file has no input `{name}`"
                yield self._problem(("inputs", name), message, did_you_mean(name, self._inputs))
                continue
            try:
                columns = columns_of(source.features, self._views)
            except UnknownFeature:
                continue  # has a problem of its own already
            yield from self._width(name, spec, len(columns))
            yield from self._types(name, spec, columns)
            if source.order == "onnx_metadata":
                yield from self._order(name, columns)

    def _width(self, name: str, spec: TensorMetadata, count: int) -> Iterator[Problem]:
        path = ("inputs", name, "features")
        if len(spec.shape) != 2:
            message = f"features fill a table of rows and columns; `{name}` is {_shape(spec)}"
            yield self._problem(path, message)
        elif spec.shape[1] not in (-1, count):
            message = f"{count} features listed, but `{name}` takes {spec.shape[1]} columns"
            yield self._problem(path, message)

    def _types(self, name: str, spec: TensorMetadata, columns: list[Column]) -> Iterator[Problem]:
        for column in columns:
            if not _holds(spec.datatype, column.type):
                message = (
                    f"{column.view}.{column.field} is {column.type}, "
                    f"which does not fit `{name}`, {spec.datatype}"
                )
                yield self._problem(("inputs", name, "features"), message)

    def _order(self, name: str, columns: list[Column]) -> Iterator[Problem]:
        path = ("inputs", name, "order")
        text = self._signature.metadata.get("feature_names")
        if text is None:
            message = "the model file has no metadata key `feature_names`"
            yield self._problem(path, message, "use `order: listed`, or export the model with it")
            return
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            message = "the file's metadata key `feature_names` is no JSON list of names"
            yield self._problem(path, message)
            return
        listed = [column.field for column in columns]
        absent = [one for one in names if one not in listed]
        surplus = [one for one in listed if one not in names]
        if absent:
            message = f"the file wants {_names(absent)}, which the features do not give"
            yield self._problem(("inputs", name, "features"), message)
        if surplus:
            message = f"the file does not know {_names(surplus)}"
            yield self._problem(("inputs", name, "features"), message)
        if len(set(names)) != len(names):
            yield self._problem(path, "the file's `feature_names` repeats a name")

    def _outputs(self) -> Iterator[Problem]:
        known = [spec.name for spec in self._signature.outputs]
        for position, name in enumerate(self._model.outputs):
            if name not in known:
                message = f"the model file has no output `{name}`"
                yield self._problem(("outputs", position), message, did_you_mean(name, known))

    def _labels(self) -> Iterator[Problem]:
        labels = self._model.versions[self._version].labels
        widths = {spec.shape[-1] for spec in self._signature.outputs if len(spec.shape) >= 2}
        if labels and widths and -1 not in widths and len(labels) not in widths:
            shown = " or ".join(str(width) for width in sorted(widths))
            message = f"{len(labels)} labels, but the outputs have {shown} values a row"
            yield self._problem(("versions", self._version, "labels"), message)

    def _answers_the_same_calls(self, versions: Mapping[str, Signature]) -> Iterator[Problem]:
        """Canary and shadows get the calls that production gets, so they must take them."""
        traffic = self._model.traffic
        roles = {traffic.canary.version: ("traffic", "canary")} if traffic.canary else {}
        paths: dict[str, Path] = dict(roles)
        for position, shadow in enumerate(traffic.shadow):
            paths.setdefault(shadow.version, ("traffic", "shadow", position))
        production = versions.get(traffic.production)
        if production is None or self._version not in paths:
            return
        sent = {spec.name: spec for spec in production.inputs}
        for name, spec in self._inputs.items():
            if name not in sent and not spec.optional and name not in self._model.inputs:
                message = f"takes `{name}`, which calls for production do not carry"
                yield self._problem(paths[self._version], message)
            elif name in sent and not _accepts(spec, sent[name]):
                message = (
                    f"takes `{name}` as {_shape(spec)}, but production as {_shape(sent[name])}"
                )
                yield self._problem(paths[self._version], message)
        for name in sorted(sent.keys() - self._inputs.keys() - self._model.inputs.keys()):
            message = f"does not know `{name}`, which calls for production carry"
            yield self._problem(paths[self._version], message)


def _holds(datatype: str, field: str) -> bool:
    """Whether a field's values can be stored as this datatype without losing their kind."""
    if field == "string":
        return datatype == "BYTES"
    if datatype in _FLOATS:
        return True
    if field in _FIELD_WIDTH:
        return _WIDTH.get(datatype, 0) >= _FIELD_WIDTH[field]
    return field == "bool" and (datatype == "BOOL" or datatype in _WIDTH)


def _accepts(spec: TensorMetadata, sent: TensorMetadata) -> bool:
    return (
        spec.datatype == sent.datatype
        and len(spec.shape) == len(sent.shape)
        and all(
            -1 in (mine, theirs) or mine == theirs
            for mine, theirs in zip(spec.shape, sent.shape, strict=True)
        )
    )


def _shape(spec: TensorMetadata) -> str:
    return f"{spec.datatype} [{', '.join(str(dimension) for dimension in spec.shape)}]"


def _names(names: list[str]) -> str:
    shown = ", ".join(f"`{name[:60]}`" for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
