"""How soon a version that is worse is stopped."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from plans import ERRORS, RAMP, demo, plan, usual

from serving.config.schema import RolloutConfig, Rule
from serving.config.units import Seconds
from serving.rollout.evidence.agreement import log_share_below
from serving.rollout.simulate.verdicts import Answer, Question, answer
from serving.rollout.simulate.world import CANARIES, Canary, World

__all__ = ["Detection", "detections", "disagreement"]

SEED = 11
USERS = 200_000
"""So many that most of those who could show a regression in an hour have not yet."""

_TAIL = Rule(name="slow", metric="latency", exceeds=Seconds(0.05), tolerance=1.0)
_QUANTILES = Rule(name="slow", metric="latency", tolerance=1.0)
_SCORES = Rule(name="scores", metric="prediction_shift", tolerance=1.0)
_RARE = (0.979, 0.02, 0.001)
_COARSE = 10.0
"""Seconds between looks at a plan of many hours."""


class Detection(NamedTuple):
    """A row of the table."""

    words: str
    question: Question
    most: float | None = None
    """Seconds that the median may be; None: nothing is promised."""


def detections(runs: int) -> Iterator[Detection]:
    """Every row, at 100 requests a second unless it says otherwise."""

    def ask(
        rollout: RolloutConfig, canary: Canary, *, rate: float = 100.0, keys: int | None = None,
        world: World | None = None, hard_stops: bool = False, runs: int = runs,
    ) -> Question:  # fmt: skip
        return Question(
            rollout=rollout, canary=canary, keys=keys, runs=runs, seed=SEED, hard_stops=hard_stops,
            world=msgspec.structs.replace(world or World(), requests_per_second=rate),
        )  # fmt: skip

    five = plan(5.0)
    twice, fourfold = CANARIES["fails-twice-as-often"], CANARIES["fails-four-times-as-often"]
    yield Detection("errors 0.5 → 0.75 %, 5 %", ask(five, CANARIES["fails-half-more"]))
    yield Detection("errors 0.5 → 1 %, 5 %", ask(five, twice), 480.0)
    yield Detection("errors 0.5 → 2 %, 5 %", ask(five, fourfold), 150.0)
    users = f"{USERS:,} users"
    few = max(1, runs // 10)
    yield Detection(f"errors 0.5 → 1 %, 5 %, {users}", ask(five, twice, keys=USERS, runs=few))
    yield Detection(f"errors 0.5 → 2 %, 5 %, {users}", ask(five, fourfold, keys=USERS, runs=few))
    yield Detection("errors 0.5 → 1 %, ramp", ask(plan(*RAMP), twice))
    always = CANARIES["always-fails"]
    for rate in (100.0, 200.0, 1000.0):
        words = f"all errors, 5 %, {rate:g}/s"
        yield Detection(words, ask(five, always, rate=rate, hard_stops=True), 2.0)
        tolerant = plan(5.0, rules=(msgspec.structs.replace(ERRORS, tolerance=1.5),))
        words = f"all errors, tolerance 1.5, 5 %, {rate:g}/s"
        yield Detection(words, ask(tolerant, always, rate=rate, hard_stops=True), 2.0)
    slow = CANARIES["slow-tail"]
    yield Detection("3 × as many beyond a bound (1 %), 5 %", ask(plan(5.0, rules=(_TAIL,)), slow))
    yield Detection(
        "the same, bounds at production's p50, p90, p99", ask(plan(5.0, rules=(_QUANTILES,)), slow)
    )
    flipped, scores = CANARIES["flipped"], plan(5.0, rules=(_SCORES,))
    yield Detection("2 % of predictions to another tenth, 5 %", ask(scores, flipped, runs=few))
    tolerant = plan(5.0, rules=(msgspec.structs.replace(_SCORES, tolerance=1.5),))
    rare = World(bins=_RARE)
    yield Detection(
        "2 % of predictions to a class of 0.1 %, tolerance 1.5, 5 %",
        ask(tolerant, flipped, world=rare, runs=few),
    )
    own = demo()
    for name, rollout in (("the usual plan", usual()), ("the demo's plan", own)):
        for words, canary in (
            ("as good", CANARIES["as-good"]),
            ("errors 0.5 → 1 %", twice),
            ("errors 0.5 → 2 %", fourfold),
            ("all errors", always),
            ("3 × as many slow", slow),
            ("2 % flipped", flipped),
        ):
            if rollout is not None:
                question = ask(rollout, canary, hard_stops=True, runs=few)
                look = 1.0 if canary.always_fails or rollout is own else _COARSE
                yield Detection(f"{name}: {words}", msgspec.structs.replace(question, look=look))


def tried(detection: Detection) -> Answer:
    """Its answer."""
    return answer(detection.question)


def disagreement(runs: int, *, per_second: float = 25.0, at_least: float = 0.99) -> list[float]:
    """Seconds until copies show that 2 % of the predictions differ where 1 % may, sorted.

    Args:
        runs: how many.
        per_second: copies a second, each of a key of its own.
        at_least: of the rule.
    """
    random, limit = np.random.default_rng(SEED), np.log(1 / 0.05)
    found = []
    for _ in range(runs):
        agreeing = copies = second = 0
        while log_share_below(agreeing, copies, at_least) < limit:
            second += 1
            new = int(random.poisson(per_second))
            copies, agreeing = copies + new, agreeing + int(random.binomial(new, 0.98))
        found.append(float(second))
    return sorted(found)
