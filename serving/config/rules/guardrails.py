"""Rules for `rollout.guardrails`: each rule has what it needs, and nothing that it would ignore.

Which options a rule takes depends on its metric and its test. The tables say it once; an option
that is written and not in them is refused, since it would be ignored.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from serving.config.load import Loaded
from serving.config.problems import Path, Problem, Severity, did_you_mean
from serving.config.schema import RoleShares, RolloutConfig, Rule

__all__ = ["check_guardrails"]

_EVENTS: Final = ("error_rate", "latency", "prediction_shift", "feature_health")
"""What a request has or has not: compared by the ratio of rates."""

_OF_LABELS: Final = ("label_loss", "slice_gap")

_RELATIVE: Final[Mapping[str, frozenset[str]]] = {
    "error_rate": frozenset({"tolerance", "prove"}),
    "latency": frozenset({"tolerance", "prove", "exceeds"}),
    "prediction_shift": frozenset({"tolerance", "prove"}),
    "feature_health": frozenset({"tolerance", "prove"}),
    "shadow_agreement": frozenset({"at_least", "within"}),
    "label_loss": frozenset({"loss", "abs_tolerance", "horizon"}),
    "slice_gap": frozenset({"loss", "abs_tolerance", "horizon"}),
}
_ABSOLUTE: Final = frozenset({"at_most", "sustained", "min_samples"})
_THRESHOLD: Final[Mapping[str, frozenset[str]]] = {
    "error_rate": _ABSOLUTE,
    "latency": _ABSOLUTE | {"exceeds", "quantile"},
    "prediction_shift": frozenset(),
    "feature_health": _ABSOLUTE,
    "shadow_agreement": frozenset({"at_least", "within", "sustained", "min_samples"}),
    "label_loss": frozenset({"at_most", "min_samples", "loss", "horizon"}),
    "slice_gap": frozenset({"at_most", "min_samples", "loss", "horizon"}),
}
_ALWAYS: Final = frozenset({"name", "metric", "test", "on_breach"})

_LOSSES: Final[Mapping[str, tuple[str, ...]]] = {
    "binary": ("error", "brier", "log_loss"),
    "multiclass": ("error",),
    "regression": ("absolute_error", "squared_error"),
}
_OF_SCORES: Final = ("brier", "log_loss")


def check_guardrails(loaded: Loaded, model: str, rollout: RolloutConfig) -> Iterator[Problem]:
    """Judge the guardrails of a model's rollout."""
    guardrails = _Guardrails(loaded, model, rollout)
    yield from guardrails.names()
    for position, rule in enumerate(rollout.guardrails.rules):
        yield from guardrails.rule(rule, position)


class _Guardrails:
    def __init__(self, loaded: Loaded, model: str, rollout: RolloutConfig) -> None:
        self._model = loaded.configuration.models[model]
        self._log = loaded.configuration.gateway.log
        self._sources = loaded.sources
        self._file = loaded.model_files[model]
        self._rollout = rollout

    def _problem(
        self, path: Path, message: str, suggestion: str = "", severity: Severity = "error"
    ) -> Problem:
        where = ("rollout", "guardrails", *path)
        return self._sources.problem(self._file, where, message, suggestion, severity)

    def names(self) -> Iterator[Problem]:
        """Each rule has a name of its own, and `dry_run` names some."""
        guardrails = self._rollout.guardrails
        first: dict[str, int] = {}
        for position, rule in enumerate(guardrails.rules):
            if (twin := first.setdefault(rule.name, position)) != position:
                message = f"`{rule.name}` is also rules[{twin}]"
                yield self._problem(("rules", position, "name"), message, "give it another name")
        for position, name in enumerate(guardrails.dry_run):
            if name not in first:
                message = f"`{name}` is the name of no rule"
                yield self._problem(("dry_run", position), message, did_you_mean(name, first))
        yield from self._within()
        stops = guardrails.hard_stops
        if not guardrails.rules and not stops.consecutive_errors and stops.error_rate >= 1:
            message = "there is neither a rule nor a hard stop: any version would become production"
            yield self._problem((), message, "such as {name: errors, metric: error_rate, …}")
        elif not guardrails.rules:
            message = "without rules only hard stops are looked at"
            hint = "such as {name: errors, metric: error_rate, tolerance: 1.5, prove: 2.0}"
            yield self._problem((), message, hint, "warning")

    def _within(self) -> Iterator[Problem]:
        """Workers compare a copy once, so there is one measure for all rules."""
        first: float | None = None
        for position, rule in enumerate(self._rollout.guardrails.rules):
            if rule.metric != "shadow_agreement":
                continue
            if first is not None and rule.within != first:
                message = f"another rule compares copies within {first:g}"
                hint = "copies are compared once; write the same"
                yield self._problem(("rules", position, "within"), message, hint)
            first = rule.within if first is None else first

    def rule(self, rule: Rule, position: int) -> Iterator[Problem]:
        """What one rule needs, and what it does not take."""
        where: Path = ("rules", position)
        takes = (_RELATIVE if rule.test == "relative" else _THRESHOLD)[rule.metric]
        if not takes:
            message = f"`{rule.metric}` is compared with production only"
            yield self._problem((*where, "test"), message, "leave `test` out")
            return
        yield from self._ignored(rule, where, takes)
        if rule.test == "threshold":
            yield from self._threshold(rule, where)
        elif rule.metric in _EVENTS:
            yield from self._ratio(rule, where)
        if rule.metric == "shadow_agreement":
            yield from self._agreement(rule, where)
        if rule.metric == "prediction_shift" and self._prediction is None:
            message = "without `monitoring.prediction` nobody knows which output is meant"
            hint = "say which output is the decision or the score"
            yield self._problem((*where, "metric"), message, hint)
        if rule.metric in _OF_LABELS:
            yield from self._labelled(rule, where)

    @property
    def _prediction(self) -> object:
        return self._model.monitoring and self._model.monitoring.prediction

    def _ignored(self, rule: Rule, where: Path, takes: frozenset[str]) -> Iterator[Problem]:
        plain = Rule(name=rule.name, metric=rule.metric)
        for option in Rule.__struct_fields__:
            if option in takes or option in _ALWAYS or _same(rule, plain, option):
                continue
            kind = f"`{rule.metric}`"
            if option in _THRESHOLD[rule.metric] and rule.test == "relative":
                yield self._problem((*where, option), "counts for `test: threshold` only", "add it")
            else:
                kind += " with `test: threshold`" if rule.test == "threshold" else ""
                known = ", ".join(f"`{one}`" for one in sorted(takes))
                message = f"means nothing for {kind}"
                yield self._problem((*where, option), message, f"it takes {known}")

    # --- by test ----------------------------------------------------------------------------

    def _ratio(self, rule: Rule, where: Path) -> Iterator[Problem]:
        if rule.tolerance is None:
            message = "how much more than production's is still fine?"
            yield self._problem(where, message, "such as `tolerance: 1.5`")
        elif rule.prove is not None and rule.prove <= rule.tolerance:
            message = (
                f"a version between {rule.prove:g} and {rule.tolerance:g} times production's is "
                "neither stopped nor let on: nothing decides before `bake.max`"
            )
            hint = f"a proof above the tolerance, such as `prove: {_above(rule.tolerance):g}`"
            yield self._problem((*where, "prove"), message, hint, "warning")
        if rule.exceeds is not None and float(rule.exceeds) <= 0:
            yield self._problem((*where, "exceeds"), "must be more than nothing", "such as 50ms")

    def _threshold(self, rule: Rule, where: Path) -> Iterator[Problem]:
        if rule.metric == "shadow_agreement":
            return  # its direction is the same in both tests
        if rule.at_most is None:
            message = f"with `test: threshold` it needs the highest `{rule.metric}` that is fine"
            yield self._problem(where, message, f"such as `at_most: {_example(rule)}`")
        if rule.metric == "latency":
            yield from self._of_durations(rule, where)
        elif rule.metric not in _OF_LABELS:
            yield from self._share(rule, where)

    def _of_durations(self, rule: Rule, where: Path) -> Iterator[Problem]:
        if rule.quantile is None and rule.exceeds is None:
            message = "which requests: those slower than `exceeds`, or those at a `quantile`?"
            yield self._problem(where, message, "such as `quantile: 0.99, at_most: 0.08`")
        elif rule.quantile is not None and rule.exceeds is not None:
            message = "`quantile` is in seconds and `exceeds` a share; `at_most` is one of them"
            yield self._problem((*where, "exceeds"), message, "leave one of them out")
        elif rule.exceeds is not None:
            yield from self._share(rule, where)
        elif rule.at_most is not None and rule.at_most >= 10:
            message = f"`at_most` is in seconds: {rule.at_most:g} s"
            yield self._problem((*where, "at_most"), message, "80 ms are 0.08", "warning")

    def _share(self, rule: Rule, where: Path) -> Iterator[Problem]:
        if rule.at_most is not None and rule.at_most >= 1:
            message = f"a share is never above 1, so {rule.at_most:g} stops nothing"
            yield self._problem((*where, "at_most"), message, f"such as {_example(rule)}")

    # --- by metric --------------------------------------------------------------------------

    def _agreement(self, rule: Rule, where: Path) -> Iterator[Problem]:
        if rule.at_least is None:
            message = "which share of copies must say the same as production?"
            yield self._problem(where, message, "such as `at_least: 0.97`")
        elif rule.at_least >= 1:
            message = f"at least {rule.at_least:g} can never be proven: it is a share below 1"
            yield self._problem((*where, "at_least"), message, "such as 0.99")
        if not any(step.shadow is not None for step in self._rollout.steps):
            message = "no step has `shadow`, so nothing is ever compared"
            hint = "begin with `- {shadow: 25, bake: {min_samples: 5000}}`"
            yield self._problem((*where, "metric"), message, hint)

    def _labelled(self, rule: Rule, where: Path) -> Iterator[Problem]:
        if rule.loss is None:
            yield self._problem(where, "which loss?", f"such as `loss: {self._losses()[0]}`")
        if rule.abs_tolerance is None and rule.test == "relative":
            message = "by how much may the mean loss grow?"
            yield self._problem(where, message, "such as `abs_tolerance: 0.01`")
        if self._log is None:
            message = "without a prediction log labels have nothing to be joined with"
            yield self._problem((*where, "metric"), message, "write `log: {}` into gateway.yaml")
        else:
            yield from self._kept(where)
        if rule.horizon is not None and float(rule.horizon) <= 0:
            yield self._problem((*where, "horizon"), "must be more than nothing", "such as 7d")
        if rule.metric == "slice_gap" and not (
            self._model.monitoring and self._model.monitoring.slices
        ):
            message = "without `monitoring.slices` there are no slices"
            yield self._problem((*where, "metric"), message, "name a feature or a key there")
        yield from self._loss(rule, where)

    def _kept(self, where: Path) -> Iterator[Problem]:
        sample = self._model.log.sample
        shares = sample if isinstance(sample, RoleShares) else RoleShares(
            production=sample, canary=sample, shadow=sample
        )  # fmt: skip
        for role in ("production", "canary"):
            if getattr(shares, role) <= 0:
                message = f"`log.sample` keeps no prediction of {role}, so no label finds one"
                yield self._problem((*where, "metric"), message, "keep a share of them")

    def _losses(self) -> tuple[str, ...]:
        monitoring = self._model.monitoring
        if monitoring is None or monitoring.prediction is None:
            return _LOSSES["binary"]
        return _LOSSES[monitoring.prediction.task]

    def _loss(self, rule: Rule, where: Path) -> Iterator[Problem]:
        monitoring = self._model.monitoring
        if monitoring is None or monitoring.prediction is None:
            message = "without `monitoring.prediction` no loss can be computed"
            hint = "say which output is the decision or the score"
            yield self._problem((*where, "metric"), message, hint)
        elif rule.loss is not None and rule.loss not in self._losses():
            message = f"`{rule.loss}` is no loss of the task `{monitoring.prediction.task}`"
            yield self._problem((*where, "loss"), message, f"one of {', '.join(self._losses())}")
        elif rule.loss in _OF_SCORES and not monitoring.prediction.score:
            message = f"`{rule.loss}` needs `monitoring.prediction.score`"
            yield self._problem((*where, "loss"), message, "name the output there")


def _same(rule: Rule, plain: Rule, option: str) -> bool:
    return bool(getattr(rule, option) == getattr(plain, option))


def _above(tolerance: float) -> float:
    """A bound for the proof that leaves room: as the examples do, 1.5 and 2."""
    return round(1 + 2 * (tolerance - 1), 3) if tolerance > 1 else 1.5


def _example(rule: Rule) -> str:
    return "0.08" if rule.quantile is not None else "0.02"
