"""What may not change while a rollout is under way: what its evidence is about. Pure.

The files of both versions, the plan, and who production is. Everything else may change: limits,
features, other models, the number of workers.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from serving.config.problems import Path, Problem
from serving.config.schema import ModelConfig
from serving.config.snapshot import Snapshot
from serving.control.publishing.compile import Compiled
from serving.rollout.state import RolloutState

__all__ = ["LiveRollout", "live_in", "live_of", "refused_changes"]


class LiveRollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout of which something can still come."""

    id: str
    canary: str
    production: str
    phase: str = "under way"


def live_in(current: Snapshot | None) -> dict[str, LiveRollout]:
    """Those that move traffic or count, as far as a snapshot tells."""
    return {
        model: LiveRollout(id=one.id, canary=one.canary, production=one.production)
        for model, one in (current.rollouts if current is not None else {}).items()
        if one.canary != one.production and (one.counting or one.weight > 0 or one.shadow > 0)
    }


def live_of(states: Iterable[RolloutState], current: Snapshot | None) -> dict[str, LiveRollout]:
    """Those under way by what has happened in them, each model's last one.

    A model of which nothing is known yet (control is starting) counts as its snapshot tells.
    """
    found = live_in(current)
    for state in states:
        found.pop(state.model, None)
        if state.is_live:
            found[state.model] = LiveRollout(
                id=state.id,
                canary=state.canary,
                production=state.production,
                phase=state.phase.replace("_", " "),
            )
    return found


def refused_changes(
    compiled: Compiled, current: Snapshot | None, live: Mapping[str, LiveRollout]
) -> list[Problem]:
    """What a configuration would change under a live rollout, each with what to do instead."""
    if current is None:
        return []
    return [
        problem
        for model, rollout in sorted(live.items())
        if model in current.models
        for problem in _Live(compiled, current, model, rollout).problems()
    ]


class _Live:
    def __init__(
        self, compiled: Compiled, current: Snapshot, model: str, rollout: LiveRollout
    ) -> None:
        self._compiled = compiled
        self._current = current
        self._model = model
        self._rollout = rollout
        self._before: ModelConfig = current.models[model]
        self._after = compiled.configuration.models.get(model)
        self._abort = f"or end it first: `sluice rollout abort {model}`"

    def problems(self) -> Iterator[Problem]:
        """What is refused of one model."""
        after = self._after
        if after is None:
            hint = f"keep its file, {self._abort}"
            yield self._problem((), "the model cannot be taken out now", hint)
            return
        if after.rollout != self._before.rollout:
            hint = (
                f"put `rollout` back as it was, {self._abort}; "
                f"`sluice rollout pause {self._model}` holds it where it is"
            )
            yield self._problem(("rollout",), "its plan cannot change under it", hint)
        production = self._before.traffic.production
        if after.traffic.production != production:
            message = f"production stays `{production}` until it is over"
            hint = (
                f"put it back; `sluice rollout promote {self._model} --full` makes "
                f"`{self._rollout.canary}` production now, {self._abort}"
            )
            yield self._problem(("traffic", "production"), message, hint)
        for version in dict.fromkeys((self._rollout.canary, self._rollout.production)):
            yield from self._artifact(version, after)

    def _artifact(self, version: str, after: ModelConfig) -> Iterator[Problem]:
        if version not in self._before.versions:
            return
        path: Path = ("versions", version)
        if version not in after.versions:
            message = f"`{version}` takes part in it"
            yield self._problem(path, message, f"keep it, {self._abort}")
        elif self._identity(version, self._before, self._current.staged) != self._identity(
            version, after, self._compiled.staged
        ):
            message = f"its evidence is about the file that `{version}` was"
            hint = f"give the other file a version of its own, {self._abort}"
            yield self._problem((*path, "sha256"), message, hint)

    def _identity(
        self, version: str, config: ModelConfig, staged: Mapping[str, Mapping[str, object]]
    ) -> tuple[object, ...]:
        source = config.versions[version]
        found = staged.get(self._model, {}).get(version)
        return getattr(found, "sha256", "") or source.sha256, sorted(source.urls)

    def _problem(self, path: Path, message: str, suggestion: str) -> Problem:
        words = f"{message}: the rollout {self._rollout.id} is {self._rollout.phase}"
        loaded = self._compiled.loaded
        file = f"models/{self._model}.yaml"
        if loaded is None or self._model not in loaded.model_files:
            return Problem(file=file, message=words, suggestion=suggestion)
        return loaded.sources.problem(loaded.model_files[self._model], path, words, suggestion)
