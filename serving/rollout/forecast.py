"""What a plan can be expected to see: how long proofs take, and what it would miss.

Pure: a plan and the traffic it meets go in; figures and sentences come out. They are means (see
`serving.rollout.evidence.power`): half of all rollouts take longer.

Evidence is kept from step to step, so a proof that 1 % has half of needs only the other half at
5 %. How long a doubling takes is told as if it began with the step.
"""

import math
from typing import Final

import msgspec

from serving.config.schema import RolloutConfig, Step, step_words
from serving.rollout.expectation import Expectation, expectations
from serving.rollout.forecast_words import blind, cannot_arrive, unproven

__all__ = ["Forecast", "RuleForecast", "StepForecast", "Traffic", "forecast"]

_TENTHS: Final = 10
_DOUBLED: Final = 2.0


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout meets.

    Attributes:
        rate: requests a second that draw lots, of both versions together.
        keys: different assignment keys that come in the course of the rollout; None: each request
            counts by itself, which is as good as any number of keys.
        shares: by name of a rule, the share of production's requests with its event.
        classes: how many bins a shift of predictions is counted in.
    """

    rate: float
    keys: int | None = None
    shares: dict[str, float] = {}
    classes: int = _TENTHS


class RuleForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in one step. Seconds and ratios are None where it never comes to that."""

    rule: str
    share: float | None
    """Of production's requests, with the event; None: nobody knows, so nothing else is said."""

    alpha: float
    canary_events: float | None = None
    """Of a canary that is like production, in this step."""

    proof_seconds: float | None = None
    """From the beginning of the step until `prove` is met, if the versions are alike."""

    doubled_seconds: float | None = None
    """Until a doubling that begins with the step is found."""

    smallest: float | None = None
    """The smallest ratio that is found by the end of the step."""


class StepForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One step, at the traffic that was assumed. It ends at `bake.max`, or else when expected."""

    step: int
    """From 1."""

    words: str
    at_least: float
    """Seconds, `bake.min`."""

    at_most: float | None
    expected: float | None
    """Seconds until it has all that it asks for, at most `at_most`; None: never, or nobody knows
    (labels, an approval)."""

    canary_rate: float
    """Requests a second that the new version answers."""

    copies_rate: float = 0.0
    requests: float | None = None
    """That it answers (in a shadow step: copies) by the end of the step; None: there is none."""

    keys: float | None = None
    """That have met it by then; None: nobody knows how many there are."""

    rules: list[RuleForecast] = []
    unreachable: list[str] = []
    """What `bake` asks for and does not come in time, in words."""

    warnings: list[str] = []
    """What the step cannot see, in words."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A whole plan."""

    canary: str
    rate: float
    keys: int | None
    expected: float | None
    """Seconds until production, without approvals and labels; None: some step never ends."""

    steps: list[StepForecast]


def forecast(plan: RolloutConfig, traffic: Traffic) -> Forecast:
    """Say what each step of a plan can be expected to see."""
    ahead = _Ahead(plan, traffic)
    steps = [ahead.step(position, step) for position, step in enumerate(plan.steps)]
    waits = [one.approve is not None or one.bake.require_labels > 0 for one in plan.steps]
    known = [
        made.expected for made, asks in zip(steps, waits, strict=True) if not asks
    ]  # fmt: skip
    return Forecast(
        canary=plan.canary,
        rate=traffic.rate,
        keys=traffic.keys,
        expected=None if None in known else math.fsum(one for one in known if one is not None),
        steps=steps,
    )


class _Ahead:
    """Goes through the steps.

    Lots have been drawn for `_counted` seconds so far, and the canary has answered `_answered`
    requests at most (None: there is no end to it).
    """

    def __init__(self, plan: RolloutConfig, traffic: Traffic) -> None:
        self._traffic = traffic
        self._rules = expectations(
            plan,
            rate=traffic.rate,
            keys=traffic.keys,
            shares=traffic.shares,
            classes=traffic.classes,
        )
        self._counted = 0.0
        self._answered: float | None = 0.0

    def step(self, position: int, step: Step) -> StepForecast:
        """Say what the next step sees, and go on to the one after it."""
        rho, longest = _rho(step), _longest(step)
        expected = min(self._expected(step, rho), longest)
        end = longest if not math.isinf(longest) else expected
        waits = step.approve is not None or step.bake.require_labels > 0
        arriving = self._traffic.rate * (step.weight or step.shadow or 0.0) / 100
        requests = _finite(arriving * end) if arriving and end else None
        self._answer(step, arriving * longest if arriving else 0.0)
        keys = self._keys_by(self._counted + end, rho)
        told = [] if rho is None else [self._rule(one, rho, end) for one in self._rules]
        made = StepForecast(
            step=position + 1,
            words=step_words(step),
            at_least=float(step.bake.min),
            at_most=_finite(longest),
            expected=None if waits else _finite(expected),
            canary_rate=0.0 if step.weight is None else arriving,
            copies_rate=0.0 if step.shadow is None else arriving,
            requests=requests,
            keys=keys,
            rules=told,
            unreachable=list(cannot_arrive(step, requests, keys, self._answered)),
            warnings=self._warnings(step, told),
        )
        if rho is not None and not math.isinf(expected):
            for one in self._rules:
                one.keep(rho, self._counted, expected)
            self._counted += expected
        return made

    def _answer(self, step: Step, requests: float) -> None:
        if step.weight is not None and self._answered is not None:
            self._answered = _finite(self._answered + requests)

    def _expected(self, step: Step, rho: float | None) -> float:
        """Seconds until there is all that the step asks for; infinite: never."""
        bake, rate = step.bake, self._traffic.rate * (step.weight or step.shadow or 0.0) / 100
        wanted = [float(bake.min)]
        if bake.min_samples:
            wanted.append(bake.min_samples / rate if rate else math.inf)
        if bake.min_keys:
            wanted.append(self._keys_after(bake.min_keys, rho))
        if rho is not None:
            proofs = [one.proof(rho, self._counted) for one in self._rules if one.proves]
            wanted += [one for one in proofs if one is not None]
        return max(wanted)

    def _rule(self, one: Expectation, rho: float, end: float) -> RuleForecast:
        if one.share is None:
            return RuleForecast(rule=one.rule.name, share=None, alpha=one.alpha)
        proof = one.proof(rho, self._counted)
        endless = math.isinf(end)
        return RuleForecast(
            rule=one.rule.name,
            share=one.share,
            alpha=one.alpha,
            canary_events=None if endless else rho * one.events(self._counted, end),
            proof_seconds=None if proof is None else _finite(proof),
            doubled_seconds=_finite(one.found(_DOUBLED, rho, self._counted)),
            smallest=None if endless else _finite(one.smallest(rho, self._counted, end)),
        )

    def _warnings(self, step: Step, told: list[RuleForecast]) -> list[str]:
        return [
            words
            for one, said in zip(self._rules, told, strict=False)
            if one.share is not None
            for words in (
                *blind(step, one.rule, said.canary_events, said.smallest),
                *(unproven(step, one.rule, said.proof_seconds) if one.proves else ()),
            )
        ]

    def _keys_by(self, time: float, rho: float | None) -> float | None:
        """Different keys that have met the canary by a time since the first was assigned."""
        keys = self._traffic.keys
        if keys is None or rho is None or math.isinf(time):
            return None
        return keys * rho * -math.expm1(-time * self._traffic.rate / keys)

    def _keys_after(self, wanted: int, rho: float | None) -> float:
        """Seconds of the step until so many keys have met the canary."""
        keys, rate = self._traffic.keys, self._traffic.rate
        if rho is None or not rate:
            return math.inf
        if keys is None:  # each request a new one: the soonest there can be
            return max(0.0, wanted / (rho * rate) - self._counted)
        left = 1 - wanted / (rho * keys)
        return max(0.0, -math.log(left) * keys / rate - self._counted) if left > 0 else math.inf


def _rho(step: Step) -> float | None:
    """The canary's probability while lots are drawn, None where none are."""
    return step.weight / 100 if step.weight is not None and 0 < step.weight < 100 else None


def _longest(step: Step) -> float:
    return math.inf if step.bake.max is None else float(step.bake.max)


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value
