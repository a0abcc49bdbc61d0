"""Rules for `monitoring` and `log` of a model: its reference fits, and every name is one of it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from serving.config.columns import Column, UnknownFeature, columns_of
from serving.config.facts import Facts
from serving.config.frozen_bins import Reference
from serving.config.load import Loaded
from serving.config.problems import Path, Problem, did_you_mean
from serving.config.schema import MonitoringConfig
from serving.types import Signature, TensorMetadata

__all__ = ["check_monitoring", "check_monitoring_names"]

_AGAIN: Final = "`sluice drift freeze` makes one"
_INDEXED: Final = re.compile(r"(.+)\[(\d+)\]\Z")


def check_monitoring(loaded: Loaded, facts: Facts) -> list[Problem]:
    """Judge every model's reference against the model: the file, its columns, their types."""
    return [
        problem
        for name, config in loaded.configuration.models.items()
        if config.monitoring is not None and name in facts.references
        for problem in _References(loaded, name, config.monitoring).problems(facts)
    ]


def check_monitoring_names(loaded: Loaded, model: str, signature: Signature) -> list[Problem]:
    """Judge the names that `monitoring` and `log` use, with what production's file gives."""
    return list(_Names(loaded, model, signature).problems())


class _Rules:
    def __init__(self, loaded: Loaded, name: str) -> None:
        self._model = loaded.configuration.models[name]
        self._problem = partial(loaded.sources.problem, loaded.model_files[name])
        self._features = _features(loaded, name)


class _References(_Rules):
    def __init__(self, loaded: Loaded, name: str, monitoring: MonitoringConfig) -> None:
        super().__init__(loaded, name)
        self._name = name
        self._monitoring = monitoring
        self._path: Path = ("monitoring", "reference")

    def problems(self, facts: Facts) -> Iterator[Problem]:
        fact = facts.references[self._name]
        if fact.reference is None:
            yield self._problem(self._path, f"the reference {fact.refusal}", _AGAIN)
            return
        yield from self._origin(fact.reference)
        yield from self._columns(fact.reference)
        yield from self._important(fact.reference)

    def _origin(self, reference: Reference) -> Iterator[Problem]:
        if reference.model != self._model.model:
            message = f"the reference was frozen for `{reference.model}`"
            yield self._problem(self._path, message, f"freeze one of `{self._model.model}`")
        production = self._model.traffic.production
        source = self._model.versions.get(production)
        known = reference.digests.values()
        if source is not None and source.sha256 and known and source.sha256 not in known:
            frozen = ", ".join(f"`{version}`" for version in sorted(reference.digests))
            message = f"its outputs are of {frozen}, whose file is not that of `{production}`"
            suggestion = "another model scores differently; freeze again"
            yield self._problem(self._path, message, suggestion, "warning")

    def _columns(self, reference: Reference) -> Iterator[Problem]:
        absent = [name for name in self._features if name not in reference.columns]
        if absent:
            message = f"the reference has no column {_listed(absent)}: no drift will be seen there"
            yield self._problem(self._path, message, "freeze again", "warning")
        for name, column in self._features.items():
            frozen = reference.columns.get(name)
            if frozen is not None and (frozen.type == "string") != (column.type == "string"):
                message = (
                    f"column `{name}` of the reference is {frozen.type}, "
                    f"but {column.view}.{name} is {column.type}"
                )
                yield self._problem(self._path, message, "freeze again")

    def _important(self, reference: Reference) -> Iterator[Problem]:
        for position, name in enumerate(self._monitoring.important):
            if name not in reference.columns:
                message = f"the reference has no column `{name}`"
                suggestion = did_you_mean(name, reference.columns)
                yield self._problem(("monitoring", "important", position), message, suggestion)
        prediction = self._monitoring.prediction
        if prediction is not None and prediction.score not in {"", *reference.columns}:
            message = f"the reference has no column `{prediction.score}`: its drift is not seen"
            path: Path = ("monitoring", "prediction", "score")
            yield self._problem(path, message, "freeze again", "warning")


class _Names(_Rules):
    def __init__(self, loaded: Loaded, name: str, signature: Signature) -> None:
        super().__init__(loaded, name)
        self._outputs = {spec.name: spec for spec in signature.outputs}

    def problems(self) -> Iterator[Problem]:
        known = [*self._model.entity, *self._features, *self._outputs]
        for name in self._model.log.fields:
            yield from self._known(name, known, ("log", "fields", name))
        monitoring = self._model.monitoring
        if monitoring is None:
            return
        for position, name in enumerate(monitoring.slices):
            yield from self._known(name, known, ("monitoring", "slices", position))
        if not monitoring.reference and monitoring.important:
            message = "without a `reference` no drift is reported, so nothing is important"
            yield self._problem(("monitoring", "important"), message, _AGAIN, "warning")
        prediction = monitoring.prediction
        if prediction is not None:
            for option, name in (("decision", prediction.decision), ("score", prediction.score)):
                yield from self._output(name, ("monitoring", "prediction", option))

    def _known(self, name: str, known: Iterable[str], path: Path) -> Iterator[Problem]:
        names = list(known)
        if name not in names:
            message = f"`{name}` is no entity key, feature or output of this model"
            yield self._problem(path, message, did_you_mean(name, names))

    def _output(self, text: str, path: Path) -> Iterator[Problem]:
        if not text:
            return
        indexed = _INDEXED.match(text)
        name = indexed[1] if indexed else text
        spec = self._outputs.get(name)
        if spec is None:
            suggestion = did_you_mean(name, self._outputs)
            yield self._problem(path, f"the model file has no output `{name}`", suggestion)
            return
        width = _width(spec)
        if indexed and width == 0:
            message = f"`{name}` has one value a row, so there is no column to choose"
            yield self._problem(path, message, f"write `{name}`")
        elif indexed and 0 <= width <= int(indexed[2]):
            message = f"`{name}` has {width} columns, counted from 0"
            yield self._problem(path, message, f"the last one is `{name}[{width - 1}]`")
        elif not indexed and width not in {0, 1}:
            message = f"`{name}` has several values a row"
            yield self._problem(path, message, f"say which, such as `{name}[1]`")


def _width(spec: TensorMetadata) -> int:
    """Columns of an output; 0 for a plain value a row, -1 where the file does not say."""
    return spec.shape[1] if len(spec.shape) == 2 else 0 if len(spec.shape) < 2 else -1


def _features(loaded: Loaded, name: str) -> Mapping[str, Column]:
    found: dict[str, Column] = {}
    for source in loaded.configuration.models[name].inputs.values():
        for reference in source.features:
            try:
                columns = columns_of([reference], loaded.configuration.views)
            except UnknownFeature:
                continue  # has a problem of its own already
            found |= {column.field: column for column in columns}
    return found


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
