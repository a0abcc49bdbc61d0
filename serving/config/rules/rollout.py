"""Rules for `rollout`: steps that lead from nothing to 100 %, of a version that can be compared.

What must hold of its guardrails is in `guardrails`, of who is told in `notices`. What depends on
the traffic, such as samples that cannot come in time, only a running gateway knows: `arrivals`.
"""

from collections.abc import Iterator
from functools import partial

from serving.config.facts import Facts
from serving.config.load import Loaded
from serving.config.problems import Path, Problem, did_you_mean
from serving.config.rules.guardrails import check_guardrails
from serving.config.rules.notices import check_notices
from serving.config.schema import Bake, RolloutConfig, Step, VersionSource, step_words

__all__ = ["check_rollouts"]


def check_rollouts(loaded: Loaded, facts: Facts) -> list[Problem]:
    """Judge every model's `rollout`."""
    return [
        problem
        for name, config in loaded.configuration.models.items()
        if config.rollout is not None
        for problem in (
            *_Rollout(loaded, name, config.rollout).problems(),
            *check_guardrails(loaded, name, config.rollout),
            *check_notices(loaded, facts, name, config.rollout),
        )
    ]


class _Rollout:
    def __init__(self, loaded: Loaded, name: str, rollout: RolloutConfig) -> None:
        self._model = loaded.configuration.models[name]
        self._gateway = loaded.configuration.gateway
        self._problem = partial(loaded.sources.problem, loaded.model_files[name])
        self._rollout = rollout

    def problems(self) -> Iterator[Problem]:
        """Everything that is wrong with the section, except its rules and notices."""
        yield from self._canary()
        yield from self._beside()
        yield from self._elsewhere()
        yield from self._order()
        for position, step in enumerate(self._rollout.steps):
            yield from self._bake(step, ("rollout", "steps", position))
        yield from self._over_at_once()

    # --- versions ---------------------------------------------------------------------------

    def _canary(self) -> Iterator[Problem]:
        canary, production = self._rollout.canary, self._model.traffic.production
        versions = self._model.versions
        path: Path = ("rollout", "canary")
        if canary not in versions:
            yield self._problem(
                path, f"`{canary}` is none of `versions`", did_you_mean(canary, versions)
            )
        elif canary == production:
            hint = (
                "if the rollout is over, take the section out; to try a plan out, name a second "
                "version with the same file, and write `aa_test: true`"
            )
            yield self._problem(path, f"`{canary}` is production already", hint)
        elif production in versions:
            yield from self._same_file(versions[canary], versions[production])

    def _same_file(self, canary: VersionSource, production: VersionSource) -> Iterator[Problem]:
        """An A/A test is of one file, and nothing else is."""
        one, other = ((file.sha256, sorted(file.urls)) for file in (canary, production))
        if self._rollout.aa_test and one != other:
            message = f"`{self._rollout.canary}` is another model file than production's"
            hint = "an A/A test compares a file with itself; leave `aa_test` out"
            yield self._problem(("rollout", "aa_test"), message, hint)
        elif one == other and not self._rollout.aa_test:
            message = f"`{self._rollout.canary}` is the same model file as production's"
            hint = "to try a plan out with it, write `aa_test: true`"
            yield self._problem(("rollout", "canary"), message, hint)

    def _beside(self) -> Iterator[Problem]:
        """What `traffic` says of the same version."""
        traffic, canary = self._model.traffic, self._rollout.canary
        if traffic.canary is not None:
            message = "`rollout` decides how much its canary gets; there is one canary at a time"
            yield self._problem(
                ("traffic", "canary"), message, "take this out, or `rollout`, and check again"
            )
        shares = {step.shadow for step in self._rollout.steps if step.shadow is not None}
        for position, shadow in enumerate(traffic.shadow):
            if shadow.version == canary and shares - {shadow.percent}:
                asked = ", ".join(f"{share:g}" for share in sorted(shares))
                message = (
                    f"`rollout` copies {asked} % to `{canary}` by its own steps, "
                    f"and {shadow.percent:g} % are copied only before and after it"
                )
                hint = "take it out, or write the same share"
                yield self._problem(("traffic", "shadow", position), message, hint, "warning")

    def _elsewhere(self) -> Iterator[Problem]:
        """A canary at another server has no digest."""
        source = self._model.versions.get(self._rollout.canary)
        if source is None or source.sha256 or not source.urls:
            return
        if self._rollout.after_abort.block_same_digest:
            message = (
                f"`{self._rollout.canary}` is at another server and has no digest: after an abort "
                "it is known by its name and address only"
            )
            hint = "a new model there needs a new name here"
            path: Path = ("rollout", "after_abort", "block_same_digest")
            yield self._problem(path, message, hint, "warning")

    # --- steps ------------------------------------------------------------------------------

    def _order(self) -> Iterator[Problem]:
        steps = self._rollout.steps
        reached = 0.0
        for position, step in enumerate(steps):
            path: Path = ("rollout", "steps", position)
            kinds = [kind for kind in ("shadow", "weight", "approve") if _has(step, kind)]
            if not kinds:
                message = "a step is one of `shadow`, `weight` and `approve`; this is none"
                yield self._problem(path, message, "such as {weight: 5, bake: {min: 10m}}")
            elif len(kinds) > 1:
                message = (
                    f"a step is one of `shadow`, `weight` and `approve`; this is {_and(kinds)}"
                )
                yield self._problem((*path, kinds[1]), message, "write a step of its own")
            if step.weight is not None:
                yield from self._weight(step.weight, reached, (*path, "weight"))
                reached = max(reached, step.weight)
            if step.shadow is not None:
                yield from self._shadow(step.shadow, reached, (*path, "shadow"))
        if steps[-1].weight != 100.0:
            message = "the last step must be `weight: 100`, or it never becomes production"
            yield self._problem(
                ("rollout", "steps", len(steps) - 1), message, "add `- {weight: 100}`"
            )

    def _weight(self, weight: float, reached: float, path: Path) -> Iterator[Problem]:
        if weight <= 0:
            yield self._problem(path, "at 0 % nobody meets the new version", "use `shadow`")
        elif weight <= reached:
            message = (
                f"{weight:g} % after {reached:g} %: weights only grow, so that no key goes back"
            )
            yield self._problem(path, message, "put the steps in order, or leave this one out")

    def _shadow(self, shadow: float, reached: float, path: Path) -> Iterator[Problem]:
        if shadow <= 0:
            yield self._problem(path, "at 0 % nothing is copied", "such as `shadow: 25`")
        if reached > 0:
            message = f"at {reached:g} % the new version answers already; copies tell little more"
            yield self._problem(path, message, "shadow steps come first", "warning")

    def _bake(self, step: Step, where: Path) -> Iterator[Problem]:
        bake = step.bake
        if step.approve is not None:
            if bake != Bake():
                message = "an approval waits for a person, not for this"
                yield self._problem((*where, "bake"), message, "leave it out", "warning")
            if float(step.approve.timeout) <= 0:
                path: Path = (*where, "approve", "timeout")
                yield self._problem(path, "nobody can approve in no time", "such as `timeout: 3d`")
            return
        if bake.max is not None and bake.max < bake.min:
            message = f"max is {bake.max}, which is less than min, {bake.min}"
            yield self._problem((*where, "bake", "max"), message)
        elif bake.max is not None and float(bake.max) <= 0:
            yield self._problem((*where, "bake", "max"), "must be more than nothing")
        yield from self._keys(step, where)
        if bake.require_labels:
            yield from self._labels(where)
        if step.weight == 100.0 and (bake.min_samples or bake.min_keys or bake.require_labels):
            message = "at 100 % nothing is counted any more"
            yield self._problem(
                (*where, "bake"), message, "ask for it at a lower weight", "warning"
            )

    def _keys(self, step: Step, where: Path) -> Iterator[Problem]:
        assignment = self._model.traffic.assignment
        path: Path = (*where, "bake", "min_keys")
        if step.bake.min_keys and not (assignment.key or assignment.header):
            message = "requests have no key: `traffic.assignment` names none"
            hint = "name a `key` or `header` there, or use `min_samples`"
            yield self._problem(path, message, hint)
        elif step.bake.min_keys and step.shadow is not None:
            message = "copies are not assigned by key, so none would ever be counted"
            yield self._problem(path, message, "use `min_samples`")

    def _labels(self, where: Path) -> Iterator[Problem]:
        path: Path = (*where, "bake", "require_labels")
        if self._gateway.log is None:
            message = "without a prediction log labels have nothing to be joined with"
            yield self._problem(path, message, "write `log: {}` into gateway.yaml")
        elif self._model.monitoring is None or self._model.monitoring.prediction is None:
            message = "without `monitoring.prediction` no label can be compared with an answer"
            hint = "say which output is the decision or the score"
            yield self._problem(path, message, hint)

    def _over_at_once(self) -> Iterator[Problem]:
        """A step without any condition lasts for one look."""
        guardrails = self._rollout.guardrails
        decisive = [one for one in guardrails.rules if one.name not in guardrails.dry_run]
        for position, step in enumerate(self._rollout.steps[:-1]):
            bake = step.bake
            asks = bake.min or bake.min_samples or bake.min_keys or bake.require_labels
            proves = step.shadow is None and any(one.prove is not None for one in decisive)
            if step.approve is None and not asks and not proves:
                message = f"{step_words(step)} is over at once: nothing is waited for"
                hint = "such as `bake: {min: 10m}`, or a rule with `prove`"
                path: Path = ("rollout", "steps", position)
                yield self._problem(path, message, hint, "warning")


def _has(step: Step, kind: str) -> bool:
    return getattr(step, kind) is not None


def _and(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
