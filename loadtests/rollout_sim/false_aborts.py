"""How often a version that is as good as production is stopped, by our rule and by others."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from minutes import by_minute
from plans import ERRORS, RAMP, plan
from rivals import RIVALS

from serving.performance.intervals import wilson
from serving.rollout.simulate.arrivals import Requests
from serving.rollout.simulate.crowd import Crowd
from serving.rollout.simulate.scenarios import SCENARIOS, traffic
from serving.rollout.simulate.stages import stages
from serving.rollout.simulate.verdicts import Answer, Question, answer
from serving.rollout.simulate.world import CANARIES, World, signals_of

__all__ = ["Case", "Row", "cases", "row"]

KEYS: Final = {10: 1_000, 100: 5_000, 1000: 10_000}
"""Users behind so many requests a second."""

WEIGHTS: Final = ((1.0,), (5.0,), (25.0,), RAMP)
SEED: Final = 7
_BATCH_CELLS: Final = 500_000


class Case(NamedTuple):
    """A row of the table."""

    weights: tuple[float, ...]
    per_second: int
    scenario: str
    keys: int | None
    canary: str = "as-good"

    @property
    def words(self) -> str:
        """As it stands in the table."""
        weights = "/".join(f"{weight:g}" for weight in self.weights)
        unit = "requests" if self.keys is None else f"{self.keys} users"
        better = ", half the errors" if self.canary == "better" else ""
        return f"{self.scenario}, {weights} %, {self.per_second}/s, {unit}{better}"


class Row(NamedTuple):
    """What came of it: ours, and the share that each other rule stops."""

    case: Case
    ours: Answer
    others: dict[str, float]


def cases(*, quick: bool = False) -> Iterator[Case]:
    """Every scenario, weight, rate, and unit; a few of them if it has to be quick."""
    for weights in ((5.0,), RAMP) if quick else WEIGHTS:
        for per_second in (100,) if quick else (10, 100, 1000):
            for scenario in ("flat", "incident", "rising") if quick else SCENARIOS:
                yield Case(weights, per_second, scenario, None)
                yield Case(weights, per_second, scenario, KEYS[per_second])
    # Users who have fewer errors with the new version have more of them left for later.
    yield Case(RAMP, 100, "flat", KEYS[100], "better")
    yield Case(RAMP, 100, "rising", KEYS[100], "better")


def row(case: Case, runs: int, told: Callable[[str], None]) -> Row:
    """Try a case: an hour, looked at every second, alpha 0.05, one rule, tolerance 1."""
    told(case.words)
    world = World(requests_per_second=case.per_second)
    question = Question(
        rollout=plan(*case.weights),
        world=world,
        canary=CANARIES[case.canary],
        scenario=case.scenario,
        keys=case.keys,
        runs=runs,
        seed=SEED,
    )
    return Row(case, answer(question), _others(case, world, runs))


def _others(case: Case, world: World, runs: int) -> dict[str, float]:
    found = plan(*case.weights)
    steps = stages(found, world)
    course = traffic(case.scenario, sum(stage.at_least for stage in steps))
    (errors,) = signals_of(ERRORS, world, CANARIES[case.canary])
    stopped = dict.fromkeys(RIVALS, 0)
    batch = max(1, min(200, _BATCH_CELLS // (case.keys or 1)))
    for begun in range(0, runs, batch):
        trials = min(batch, runs - begun)
        random = np.random.default_rng([SEED, begun])
        rate = world.requests_per_second
        arrivals = (
            Requests(course, rate, trials, random)
            if case.keys is None
            else Crowd(course, rate, case.keys, trials, random)
        )
        minutes = by_minute(
            arrivals, steps, errors, traffic=course, per_second=rate, trials=trials, random=random
        )
        for name, rule in RIVALS.items():
            stopped[name] += int(rule(minutes).any(1).sum())
    return {name: count / runs for name, count in stopped.items()}


def interval(count: int, runs: int) -> str:
    """A share with its Wilson interval, in percent."""
    found = wilson(count / runs, runs)
    return f"{100 * count / runs:.1f} ({100 * found.low:.1f}–{100 * found.high:.1f})"
