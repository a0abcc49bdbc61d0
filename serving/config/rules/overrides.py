"""Rules for `traffic.overrides` and `traffic.fallback`: each can apply, and says one thing."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from serving.config.facts import Facts
from serving.config.load import Loaded
from serving.config.problems import Path, Problem, did_you_mean
from serving.config.rules.headers import header_trouble
from serving.config.schema import ModelConfig, Override, TokenEntry
from serving.config.units import Seconds

__all__ = ["check_overrides"]

_KINDS: Final = ("header", "tenants", "entities")


def check_overrides(loaded: Loaded, facts: Facts) -> list[Problem]:
    """Judge every model's overrides against its versions, its key and the tokens."""
    problems: list[Problem] = []
    for name in loaded.configuration.models:
        rules = _Overrides(loaded, facts, name)
        problems += rules.each()
        problems += rules.together()
        problems += rules.fallback()
    return problems


class _Overrides:
    def __init__(self, loaded: Loaded, facts: Facts, name: str) -> None:
        gateway = loaded.configuration.gateway
        self._model: ModelConfig = loaded.configuration.models[name]
        self._overrides = self._model.traffic.overrides
        self._sources = loaded.sources
        self._file = loaded.model_files[name]
        self._problem = partial(loaded.sources.problem, self._file)
        self._token_file = gateway.auth.tokens if gateway.auth is not None else ""
        self._deadline = self._model.serve.deadline or gateway.limits.default_deadline
        fact = facts.tokens
        self._tokens: list[TokenEntry] | None = (
            fact.tokens.tokens if fact is not None and fact.tokens is not None else None
        )

    def each(self) -> Iterator[Problem]:
        """One kind each, which can apply, to a version that there is."""
        headers: dict[str, int] = {}
        for position, override in enumerate(self._overrides):
            path: Path = ("traffic", "overrides", position)
            written = [one for one in _KINDS if self._sources.has(self._file, (*path, one))]
            given = [one for one in written if getattr(override, one)]
            if len(given) > 1:
                message = f"`{given[0]}` and `{given[1]}`: an override goes by one of them"
                yield self._problem((*path, given[1]), message, "make two overrides of it")
                continue
            kind = next(iter(given or written), "header")
            if kind == "header":
                yield from self._header(
                    override, path, headers.setdefault(override.header, position)
                )
            else:
                yield from self._others(override, path, kind)
            if override.version is not None and override.version not in self._model.versions:
                message = f"`{override.version}` is none of `versions`"
                suggestion = did_you_mean(override.version, self._model.versions)
                yield self._problem((*path, "version"), message, suggestion)

    def _header(self, override: Override, path: Path, first: int) -> Iterator[Problem]:
        header = override.header
        place: Path = (*path, "header")
        if trouble := header_trouble(header):
            yield self._problem(place, *trouble)
        if first != path[-1]:
            message = f"`{header}` is also overrides[{first}], which wins"
            yield self._problem(place, message, "keep one of them")
        if header == self._model.traffic.assignment.header:
            message = f"`{header}` already assigns versions"
            yield self._problem(place, message, "use another header")
        if override.version is not None:
            message = "the header's value names the version"
            suggestion = "leave `version` out, or say for which `tenants` or `entities` it is"
            yield self._problem((*path, "version"), message, suggestion)

    def _others(self, override: Override, path: Path, kind: str) -> Iterator[Problem]:
        if self._sources.has(self._file, (*path, "roles")):
            message = f"`roles` say who may use a header, and this override goes by `{kind}`"
            yield self._problem((*path, "roles"), message, "leave it out")
        if not getattr(override, kind):
            yield self._problem((*path, kind), "names nobody, so it applies to nobody")
        elif kind == "tenants":
            yield from self._tenants(override, (*path, kind))
        else:
            yield from self._entities(override, (*path, kind))

    def _tenants(self, override: Override, path: Path) -> Iterator[Problem]:
        if not self._token_file:
            message = "no caller has a tenant: `gateway.yaml` has no `auth.tokens`"
            yield self._problem(path, message, "give each caller a token with a `tenant`")
        if self._tokens is None:
            return
        known = {entry.tenant for entry in self._tokens if entry.tenant is not None}
        for position, tenant in enumerate(override.tenants):
            if tenant not in known:
                message = f"no token of {self._token_file} has the tenant `{tenant}`"
                suggestion = did_you_mean(tenant, known)
                yield self._problem((*path, position), message, suggestion, "warning")

    def _entities(self, override: Override, path: Path) -> Iterator[Problem]:
        assignment = self._model.traffic.assignment
        if assignment.key is None and assignment.header is None:
            message = "requests have no assignment key to compare with"
            yield self._problem(path, message, "name `assignment.key` or `assignment.header`")
        if self._model.entity.get(assignment.key or "") in {"INT32", "INT64"}:
            for position, entity in enumerate(override.entities):
                if isinstance(entity, str) and not _is_decimal(entity):
                    message = f"`{entity}` is no integer, and `{assignment.key}` is one"
                    yield self._problem((*path, position), message)

    def together(self) -> Iterator[Problem]:
        """Somebody is left to be drawn."""
        fixed = {tenant for one in self._overrides if not one.analysed for tenant in one.tenants}
        if fixed and self._tokens and all(entry.tenant in fixed for entry in self._tokens):
            yield self._problem(
                ("traffic", "overrides"),
                "they cover every token's tenant: nobody is left whose version is drawn",
                "a canary would get nothing that counts",
                "warning",
            )

    def fallback(self) -> Iterator[Problem]:
        """It leaves the canary time to answer."""
        fallback = self._model.traffic.fallback
        if fallback.reserve is not None and fallback.reserve >= self._deadline:
            message = f"not less than the deadline, {Seconds(self._deadline)}"
            suggestion = "the canary would have no time; a third of the deadline is the default"
            yield self._problem(("traffic", "fallback", "reserve"), message, suggestion)
        if fallback.on_canary_error == "production" and fallback.budget == 0:
            message = "with a budget of 0 nobody is asked twice"
            suggestion = "say `on_canary_error: none`, or give it a share such as 0.1"
            yield self._problem(("traffic", "fallback", "budget"), message, suggestion, "warning")


def _is_decimal(text: str) -> bool:
    """Whether it is the text of an integer as keys have it: no sign +, no zeros before."""
    try:
        return str(int(text)) == text
    except ValueError:
        return False
