"""Many rollouts by one plan at once, each looked at every second."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.config.schema import RolloutConfig
from serving.rollout.simulate.arrivals import Arrivals, Ints
from serving.rollout.simulate.hard_stops import HardStopWatch
from serving.rollout.simulate.stages import Stage
from serving.rollout.simulate.watch import NEVER, Block, Watch, block, users_of
from serving.rollout.simulate.world import USERS, Signal

__all__ = ["COMPLETED", "HARD_STOP", "INCONCLUSIVE", "Trials", "run"]

COMPLETED: Final = -1
INCONCLUSIVE: Final = -2
HARD_STOP: Final = -3

_CELLS: Final = 200_000
"""Trials times looks times bins of a block: its arrays stay in the processor's cache."""

_Counts = tuple[Ints, Ints]


class Trials(msgspec.Struct):
    """What became of them; arrays of shape [trials]."""

    ended: Ints
    """Looks after the first request that the new version could have had."""

    by: Ints
    """Number of the rule that stopped it, or `COMPLETED`, `INCONCLUSIVE` or `HARD_STOP`."""

    step: Ints
    """The step it was in."""

    exposed: Ints
    """Requests that the new version had."""


def run(
    rollout: RolloutConfig,
    plan: list[Stage],
    rules: list[Watch],
    arrivals: Arrivals,
    *,
    errors: Signal | None,
    look: float,
    trials: int,
    random: np.random.Generator,
) -> Trials:
    """Take them through the plan.

    A breach ends a trial, whether it would abort or pause. A step without everything by its end
    ends it too (`INCONCLUSIVE`), unless `on_inconclusive` is `promote`.

    Args:
        rollout: the plan.
        plan: its steps, from the first with a weight on.
        rules: those that are looked at.
        arrivals: where events come from.
        errors: what hard stops look at; None: they do not act.
        look: seconds between looks.
        trials: how many, as many as `arrivals` has.
        random: where chance comes from.
    """
    stops = HardStopWatch(rollout.guardrails.hard_stops, look, trials, random)
    walk = _Walk(rules, arrivals, look=look, trials=trials, stops=stops, errors=errors)
    for stage in plan:
        if not walk.going.any():
            break
        walk.step(stage, promote=rollout.guardrails.on_inconclusive == "promote")
    return walk.result


class _Walk:
    def __init__(
        self,
        rules: list[Watch],
        arrivals: Arrivals,
        *,
        look: float,
        trials: int,
        stops: HardStopWatch,
        errors: Signal | None,
    ) -> None:
        self._rules = rules
        self._arrivals = arrivals
        self._look = look
        self._stops = stops
        self._errors = errors
        self._signals = {signal.name: signal for rule in rules for signal in rule.signals}
        if arrivals.keyed and any(rule.rule.prove is not None for rule in rules):
            self._signals[USERS] = Signal("", USERS, 1.0, 0.0, shared=False)
        self._proved = [np.zeros(trials, np.bool_) for _ in rules]
        """By rule: trials that have proven it by the end of an earlier step."""

        self._before: dict[str, dict[float, _Counts]] = {name: {} for name in self._signals}
        self.going = np.ones(trials, np.bool_)
        zeros = np.zeros(trials, np.int64)
        self.result = Trials(zeros.copy(), np.full(trials, COMPLETED), zeros.copy(), zeros.copy())

    def step(self, stage: Stage, *, promote: bool) -> None:
        """One step, in blocks of looks."""
        result, trials = self.result, len(self.going)
        began = result.ended.copy()
        self._arrivals.begin(stage.rho, began)
        result.step[self.going] = stage.number
        here = _Step(trials, self._signals, self.going)
        widest = max((len(one.bins) for one in self._signals.values()), default=1) or 1
        longest = max(1, _CELLS // (trials * widest))
        least, most = (max(1, round(s / self._look)) for s in (stage.at_least, stage.at_most))
        offset = 0
        while here.inside.any() and offset < most:
            left = least - offset if offset < least else max(60, least // 4)
            looks = min(longest, most - offset, left)
            self._block(stage, here, offset, looks, since=max(0, least - 1 - offset))
            offset += looks
        if not promote:
            result.by[here.inside] = INCONCLUSIVE
            self.going &= ~here.inside
        result.ended = began + here.lasted
        result.exposed = result.exposed + here.samples
        self._arrivals.end(here.lasted)
        for name, counts in here.sofar.items():
            self._before[name][stage.rho] = counts
        for number, rule in enumerate(self._rules):
            if rule.rule.prove is not None and rule.rule.metric != "prediction_shift":
                log = rule.proof(self._before, users_of(self._before))
                self._proved[number] |= log >= rule.proven

    def _block(self, stage: Stage, here: "_Step", offset: int, looks: int, *, since: int) -> None:
        """So many looks of a step; from `since` on it may end well."""
        blocks = {
            name: block(here.sofar[name], self._arrivals.events(signal, offset, looks))
            for name, signal in self._signals.items()
        }
        requests = self._arrivals.requests(offset, looks)
        met = self._arrivals.met(offset, looks) if stage.min_keys else requests
        breach, by = self._breaches(stage.rho, blocks, requests, offset)
        ready = np.zeros(requests.shape, np.bool_)
        if since < looks:
            ready[:, since:] = self._proven(stage.rho, blocks, since, looks)
            ready &= here.samples[:, None] + np.cumsum(requests, 1) >= stage.min_samples
            ready &= here.keys[:, None] + np.cumsum(met, 1) >= stage.min_keys
        onward = np.where(ready.any(1), ready.argmax(1), NEVER)
        broken = here.inside & (breach < NEVER) & (breach <= onward)
        self.result.by[broken] = by[broken]
        self.going &= ~broken
        advanced = here.inside & ~broken & (onward < NEVER)
        last = np.where(broken, breach, np.where(advanced, onward, looks - 1))
        here.take(blocks, requests, met, last)
        here.inside &= ~(broken | advanced)

    def _breaches(
        self, rho: float, blocks: dict[str, Block], requests: Ints, offset: int
    ) -> tuple[Ints, Ints]:
        """The first look of a breach, and the rule's number; shape [trials] each."""
        trials = len(requests)
        first, by = np.full(trials, NEVER), np.full(trials, COMPLETED)
        found = [
            (number, rule.first_breach(self._before, rho, blocks))
            for number, rule in enumerate(self._rules)
        ]
        if self._errors is not None:
            watch = self._stops.first(self._arrivals, self._errors, requests, offset, rho)
            found.append((HARD_STOP, watch))
        for number, when in found:
            by = np.where(when < first, number, by)
            first = np.minimum(first, when)
        return first, by

    def _proven(
        self, rho: float, blocks: dict[str, Block], since: int, looks: int
    ) -> NDArray[np.bool_]:
        met = np.ones((len(self.going), looks - since), np.bool_)
        for proved, rule in zip(self._proved, self._rules, strict=True):
            if rule.rule.prove is not None:
                met &= proved[:, None] | rule.proofs(self._before, rho, blocks, since)
        return met


class _Step:
    """What a step has seen so far; trials that have left it stay as they were."""

    def __init__(self, trials: int, signals: dict[str, Signal], going: NDArray[np.bool_]) -> None:
        self.inside = going.copy()
        self.lasted: Ints = np.zeros(trials, np.int64)
        self.samples: Ints = np.zeros(trials, np.int64)
        self.keys: Ints = np.zeros(trials, np.int64)
        self.sofar: dict[str, _Counts] = {}
        for name, signal in signals.items():
            shape = (len(signal.bins) or 1, trials)
            self.sofar[name] = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def take(self, blocks: dict[str, Block], requests: Ints, met: Ints, last: Ints) -> None:
        """Add a block up to the look `last` of each trial."""
        each = np.arange(len(last))
        for name, one in blocks.items():
            canary, production = self.sofar[name]
            self.sofar[name] = (
                np.where(self.inside, one.canary[:, each, last], canary),
                np.where(self.inside, one.production[:, each, last], production),
            )
        self.samples += np.where(self.inside, np.cumsum(requests, 1)[each, last], 0)
        self.keys += np.where(self.inside, np.cumsum(met, 1)[each, last], 0)
        self.lasted += np.where(self.inside, last + 1, 0)
