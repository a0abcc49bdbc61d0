"""What one rule can be expected to see, step after step, if traffic stays as it is.

An event of a canary that is r times as bad tells KL(θ(r, ρ) ‖ θ(r₀, ρ)) nats against r₀ on
average; ln(1/α) + ln J are needed (`serving.rollout.evidence.power`). What earlier steps have told
is kept, since the evidence of a rollout is one.
"""

import math
from collections.abc import Sequence
from typing import Final

from serving.config.schema import RolloutConfig, Rule
from serving.rollout.evidence.power import divergence, shared
from serving.rollout.evidence.relative_risk import FACTORS
from serving.rollout.judge import deciding

__all__ = ["Expectation", "expectations"]

_EVENTS: Final = frozenset({"error_rate", "latency", "prediction_shift", "feature_health"})
_BOUNDS: Final = 3
"""Of a latency without `exceeds`: production's 50th, 90th and 99th percentile …"""

_TAIL: Final = 0.01
"""… of which the last is exceeded least often, and decides how long it takes."""

_WORST: Final = 1000.0
"""No regression is looked for beyond this ratio."""


class Expectation:
    """One rule.

    Args:
        rule: it; relative, with a tolerance.
        share: of production's requests, with the event; None: nobody knows.
        rate: requests a second of both versions.
        keys: different keys that come, None: each request counts by itself.
        spends: α of the rule for a breach, and of the rollout for a proof.
        averaged: of how many e-values the rule takes the mean.
        proves: whether a step waits for its proof.
    """

    def __init__(
        self,
        rule: Rule,
        *,
        share: float | None,
        rate: float,
        keys: int | None,
        spends: tuple[float, float],
        averaged: int,
        proves: bool,
    ) -> None:
        self.rule = rule
        self.share = share
        self.proves = proves and rule.prove is not None
        self.alpha, self._proof_alpha = spends
        self._averaged = averaged
        self._keys = keys
        self._rate = rate * (share or 0.0)
        self._past: list[tuple[float, float]] = []

    @property
    def tolerance(self) -> float:
        """The ratio that is still fine."""
        return self.rule.tolerance or 1.0

    def keep(self, rho: float, begin: float, seconds: float) -> None:
        """A step is over: what it has told counts on."""
        self._past.append((self.events(begin, seconds), rho))

    def events(self, begin: float, seconds: float) -> float:
        """Units with their first event in a time, if production had all the traffic.

        Of N keys that are asked for equally often N·(1 − e^(−t·λ/N)) have had one by t.
        """
        if not self._rate:
            return 0.0
        if self._keys is None:
            return self._rate * seconds
        each = self._rate / self._keys
        return self._keys * (math.exp(-each * begin) - math.exp(-each * (begin + seconds)))

    def proof(self, rho: float, begin: float) -> float | None:
        """Seconds of the step until `prove` is met, if the versions are alike; infinite: never.

        None: none is asked for, or nobody knows.
        """
        if self.rule.prove is None or self.share is None:
            return None
        missing = _price(self._proof_alpha) - self._told(1.0, self.rule.prove)
        return self._until(begin, missing / _nats(1.0, self.rule.prove, rho))

    def found(self, ratio: float, rho: float, begin: float) -> float:
        """Seconds until a ratio that begins with the step is found; infinite: never."""
        if ratio <= self.tolerance:
            return math.inf
        price = _price(self.alpha, self._averaged)
        return self._until(begin, price / _nats(ratio, self.tolerance, rho))

    def smallest(self, rho: float, begin: float, seconds: float) -> float:
        """The smallest ratio, there from the beginning, that is found so far into the step."""
        price = _price(self.alpha, self._averaged)
        events = self.events(begin, seconds)

        def is_found(ratio: float) -> bool:
            now = events * _nats(ratio, self.tolerance, rho)
            return self._told(ratio, self.tolerance) + now >= price

        low, high = self.tolerance, _WORST
        if not is_found(high):
            return math.inf
        while high - low > 1e-3 * low:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if is_found(middle) else (middle, high)
        return high

    def _told(self, true: float, null: float) -> float:
        """Nats that earlier steps have told against `null`, if the ratio is `true`."""
        return sum(events * _nats(true, null, rho) for events, rho in self._past)

    def _until(self, begin: float, events: float) -> float:
        """How long so many events take; infinite if there are not so many keys left."""
        if events <= 0:
            return 0.0
        if not self._rate or math.isinf(events):
            return math.inf
        if self._keys is None:
            return events / self._rate
        each = self._rate / self._keys
        left = math.exp(-each * begin) - events / self._keys
        return -math.log(left) / each - begin if left > 0 else math.inf


def expectations(
    plan: RolloutConfig, *, rate: float, keys: int | None, shares: dict[str, float], classes: int
) -> Sequence[Expectation]:
    """One for each rule that compares how often something happens."""
    guardrails = plan.guardrails
    spends = shared(guardrails.alpha, len(deciding(plan))), guardrails.alpha
    found = []
    for rule in guardrails.rules:
        if rule.test != "relative" or rule.metric not in _EVENTS or rule.tolerance is None:
            continue
        share, averaged = shares.get(rule.name), 1
        if rule.metric == "latency" and rule.exceeds is None:
            share, averaged = _TAIL if share is None else share, _BOUNDS
        elif rule.metric == "prediction_shift":
            share, averaged = 1 / classes if share is None else share, 2 * classes
        proves = rule.name not in guardrails.dry_run
        found.append(
            Expectation(
                rule,
                share=share,
                rate=rate,
                keys=keys,
                spends=spends,
                averaged=averaged,
                proves=proves,
            )
        )
    return found


def _nats(true: float, null: float, rho: float) -> float:
    """What one event of production's tells: a worse canary has more of them."""
    return (rho * true + 1 - rho) * divergence(true, null, rho)


def _price(alpha: float, averaged: int = 1) -> float:
    """Nats to collect: ln(1/α), ln J for the mixture, and for the mean of several."""
    return math.log(averaged / alpha) + math.log(len(FACTORS))
