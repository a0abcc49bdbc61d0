"""Rules for `models/*.yaml`: traffic names real versions, features real fields, files exist."""

from collections.abc import Iterator
from functools import partial
from pathlib import PurePath
from typing import Final

from feature_cache.views import FeatureView
from serving.config.columns import Column, UnknownFeature, columns_of
from serving.config.facts import ArtifactFact, Facts
from serving.config.load import Loaded
from serving.config.model_url import parse_model_url
from serving.config.problems import Path, Problem, did_you_mean
from serving.config.rules.headers import header_trouble
from serving.config.schema import HostsConfig, ModelConfig, VersionSource
from serving.config.units import Seconds

__all__ = ["check_models"]

_ENTITY_OF: Final = {"int32": "INT32", "int64": "INT64", "string": "BYTES"}


def check_models(loaded: Loaded, facts: Facts) -> list[Problem]:
    """Judge every model against itself, the views, the limits and its files."""
    problems: list[Problem] = []
    for name in loaded.configuration.models:
        rules = _Model(loaded, facts, name)
        problems += rules.names()
        problems += rules.artifacts()
        problems += rules.serve()
        problems += rules.traffic()
        problems += rules.assignment()
        problems += rules.features()
    return problems


class _Model:
    def __init__(self, loaded: Loaded, facts: Facts, name: str) -> None:
        self._model: ModelConfig = loaded.configuration.models[name]
        self._views = loaded.configuration.views
        self._limits = loaded.configuration.gateway.limits
        self._file = loaded.model_files[name]
        self._problem = partial(loaded.sources.problem, self._file)
        self._artifacts = facts.artifacts

    def names(self) -> Iterator[Problem]:
        """A model is found by its file."""
        stem = PurePath(self._file).stem
        if stem != self._model.model:
            message = f"the file is called `{stem}.yaml`"
            suggestion = f"rename it to `{self._model.model}.yaml`"
            yield self._problem(("model",), message, suggestion, "warning")

    def artifacts(self) -> Iterator[Problem]:
        """Model files are there and are what the configuration says."""
        first: dict[str, str] = {}
        for version, source in self._model.versions.items():
            if source.urls or not source.path:
                yield from self._elsewhere(version, source)
                continue
            if (twin := first.setdefault(source.sha256, version)) != version:
                path = ("versions", version, "sha256")
                yield self._problem(path, f"the same model file as `{twin}`", severity="warning")
            if self._model.serve.placement == "external":
                message = "with `placement: external` every version is at another server"
                yield self._problem(("versions", version), message, "give it a `url`")
            if self._artifacts is not None:
                fact = self._artifacts[self._model.model, version]
                yield from self._artifact(version, fact, source.sha256)

    def _elsewhere(self, version: str, source: VersionSource) -> Iterator[Problem]:
        """A version at another server, or nowhere."""
        where: Path = ("versions", version)
        if not source.urls:
            message = "it is neither a file nor at another server"
            yield self._problem(where, message, "give it `path` and `sha256`, or a `url`")
        elif source.path or source.sha256:
            message = "a version is a file or at another server, not both"
            yield self._problem(where, message, "leave out `url`, or `path` and `sha256`")
        for position, url in enumerate(source.urls):
            path: Path = (*where, "url")
            if isinstance(source.url, list):
                path = (*path, position)
            try:
                parse_model_url(url)
            except ValueError as error:
                yield self._problem(path, str(error), "such as http://host:8000/v2/models/name")

    def _artifact(self, version: str, fact: ArtifactFact, sha256: str) -> Iterator[Problem]:
        if fact.refusal:
            suggestion = "the path starts at the folder of this YAML file"
            yield self._problem(("versions", version, "path"), fact.refusal, suggestion)
        elif fact.sha256 != sha256:
            yield self._problem(
                ("versions", version, "sha256"),
                "the model file has another digest",
                f"if the file is right, write {fact.sha256}",
            )

    def serve(self) -> Iterator[Problem]:
        """What this release can do, within the gateway's limits."""
        serve = self._model.serve
        hosts = serve.hosts
        if not isinstance(hosts, int) and hosts.min > hosts.max:
            message = f"min is {hosts.min}, which is more than max, {hosts.max}"
            yield self._problem(("serve", "hosts"), message)
        if serve.placement != "dedicated" and hosts not in {1, HostsConfig()}:
            message = f"it counts for `placement: dedicated` only, and this is `{serve.placement}`"
            yield self._problem(("serve", "hosts"), message, severity="warning")
        deadline, longest = serve.deadline, self._limits.max_deadline
        if deadline is not None and deadline <= 0:
            yield self._problem(("serve", "deadline"), "must be more than nothing")
        if deadline is not None and deadline > longest:
            message = f"cut to limits.max_deadline of gateway.yaml, {Seconds(longest)}"
            yield self._problem(("serve", "deadline"), message, severity="warning")

    def traffic(self) -> Iterator[Problem]:
        """Every version named exists, and no two roles contradict each other."""
        traffic = self._model.traffic
        yield from self._known(traffic.production, ("traffic", "production"))
        canary = traffic.canary
        if canary is not None:
            path: Path = ("traffic", "canary", "version")
            yield from self._known(canary.version, path)
            if canary.version == traffic.production:
                yield self._problem(path, f"`{canary.version}` is production already")
        copied: dict[str, int] = {}
        for position, shadow in enumerate(traffic.shadow):
            path = ("traffic", "shadow", position, "version")
            yield from self._known(shadow.version, path)
            if (first := copied.setdefault(shadow.version, position)) != position:
                message = f"`{shadow.version}` is also shadow[{first}]"
                yield self._problem(path, message, "keep one of them")
            if shadow.version == traffic.production:
                message = f"`{shadow.version}` is production; copying to it would answer twice"
                yield self._problem(path, message)

    def _known(self, version: str, path: Path) -> Iterator[Problem]:
        if version not in self._model.versions:
            message = f"`{version}` is none of `versions`"
            yield self._problem(path, message, did_you_mean(version, self._model.versions))

    def assignment(self) -> Iterator[Problem]:
        """Keys and headers that requests can carry."""
        assignment = self._model.traffic.assignment
        if assignment.key is not None and assignment.key not in self._model.entity:
            message = f"`{assignment.key}` is none of `entity`"
            suggestion = did_you_mean(assignment.key, self._model.entity)
            suggestion = suggestion or f"add `entity: {{{assignment.key}: INT64}}` to this file"
            yield self._problem(("traffic", "assignment", "key"), message, suggestion)
        if assignment.key is not None and assignment.header is not None:
            path: Path = ("traffic", "assignment", "header")
            yield self._problem(path, "either `key` or `header` decides", "leave one of them out")
        if assignment.header is not None:
            path = ("traffic", "assignment", "header")
            if trouble := header_trouble(assignment.header):
                yield self._problem(path, *trouble)
        if assignment.on_missing_key == "reject" and not (assignment.key or assignment.header):
            path = ("traffic", "assignment", "on_missing_key")
            yield self._problem(path, "every request would be rejected", "name a `key` or `header`")

    def features(self) -> Iterator[Problem]:
        """Features exist, their keys are sent, and every tensor name means one thing."""
        owner = {name: f"entity.{name}" for name in self._model.entity}
        for name, source in self._model.inputs.items():
            columns: list[Column] = []
            for position, reference in enumerate(source.features):
                path: Path = ("inputs", name, "features", position)
                try:
                    added = columns_of([reference], self._views)
                except UnknownFeature as error:
                    yield self._problem(path, error.message, error.suggestion)
                    continue
                columns += added
                for column in added:
                    if taken := owner.get(column.field):
                        message = f"the name `{column.field}` is taken by {taken}"
                        suggestion = "clients send features under their own names; rename one"
                        yield self._problem(path, message, suggestion)
                    else:
                        owner[column.field] = f"{column.view}.{column.field} of inputs.{name}"
            for view in dict.fromkeys(column.view for column in columns):
                yield from self._keys(name, self._views[view])

    def _keys(self, name: str, view: FeatureView) -> Iterator[Problem]:
        for key, kind in view.entity.items():
            wanted = _ENTITY_OF[kind]
            given = self._model.entity.get(key)
            if given is None:
                message = f"the view `{view.view}` is looked up by `{key}`, which no client sends"
                suggestion = f"add `entity: {{{key}: {wanted}}}` to this file"
                yield self._problem(("inputs", name, "features"), message, suggestion)
            elif given != wanted:
                message = f"the view `{view.view}` says {kind}, which is {wanted}, not {given}"
                yield self._problem(("entity", key), message, f"use {wanted}")
