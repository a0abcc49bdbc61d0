"""How far forecasts, proofs and loss bounds of rollouts hold: the tables of `docs/decisions.md`.

    python loadtests/rollout_sim/evidence.py [forecasts|proofs|losses]

Seeds are fixed. A minute for all three.
"""

import math
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serving.performance.intervals import wilson
from serving.rollout.evidence.first_events import ratio_of_users
from serving.rollout.evidence.losses import LEAST_UNITS, asymptotic, betting, effects
from serving.rollout.evidence.power import detection_events, proof_events
from serving.rollout.evidence.relative_risk import (
    log_breach_array,
    log_proof,
    log_proof_array,
    theta,
)

ALPHA = 0.05
LOOKS = 60
USERS = 5000

_Floats = NDArray[np.float64]
_Rates = Callable[[np.random.Generator], _Floats]


def forecasts() -> None:
    """How many of 400 rollouts need fewer events than `power` says."""
    chance = np.random.default_rng(5)
    print("| what | weight | forecast, events | median | done by the forecast |")
    print("|---|---|---|---|---|")
    for ratio, null, rho, share in (
        (2.0, 1.0, 0.05, 1), (2.0, 1.5, 0.05, 4), (4.0, 1.5, 0.05, 4), (1.5, 1.0, 0.25, 1),
    ):  # fmt: skip
        events = detection_events(ratio, null, rho, ALPHA / share)
        first = _first(
            chance, theta(ratio, rho), rho, events=events, share=share, null=null, breach=True
        )
        what = f"{ratio:g} × found, tolerance {null:g}, α/{share}"
        _row(what, rho, events, first)
    for prove, rho in ((2.0, 0.05), (1.5, 0.05), (2.0, 0.25), (1.5, 0.5)):
        events = proof_events(prove, rho, ALPHA)
        _row(
            f"prove {prove:g}",
            rho,
            events,
            _first(chance, rho, rho, events, 1, prove, breach=False),
        )


def _first(
    chance: np.random.Generator,
    likely: float,
    rho: float,
    *,
    events: float,
    share: int,
    null: float,
    breach: bool,
) -> _Floats:
    number = np.arange(1, round(4 * events))
    canary = (chance.random((400, len(number))) < likely).cumsum(1)
    log_e = (log_breach_array if breach else log_proof_array)(
        {rho: (canary, number - canary)}, null
    )
    there = log_e >= math.log(share / ALPHA)
    return np.where(there.any(1), there.argmax(1) + 1.0, np.inf)


def _row(what: str, rho: float, events: float, first: _Floats) -> None:
    done = (first <= events).mean()
    print(f"| {what} | {rho:.0%} | {events:.0f} | {np.median(first):.0f} | {done:.0%} |")


CROWDS: dict[str, _Rates] = {
    "alike": lambda _: np.ones(USERS),
    "Gamma, variance 2": lambda chance: chance.gamma(0.5, 2.0, USERS),
    "Gamma, variance 4": lambda chance: chance.gamma(0.25, 4.0, USERS),
    "Pareto 1.2": lambda chance: chance.pareto(1.2, USERS) / 5.0,
}


def proofs() -> None:
    """How often "below `prove`" is proven: of a canary just as bad as that, and of a good one."""
    print("| users | events each | weight, prove | false, plain | false, of users | true |")
    print("|---|---|---|---|---|---|")
    for name, crowd in CROWDS.items():
        for events in (0.05, 0.3, 3.0):
            for rho, prove in ((0.25, 2.0), (0.05, 3.0)):
                plain, false = _proven(300, crowd, events, rho, ratio=prove, prove=prove)
                _, true = _proven(60, crowd, events, rho, ratio=1.0, prove=prove)
                ends = wilson(false, 300)
                print(
                    f"| {name} | {events:g} | {rho:.0%}, {prove:g} | {plain:.0%} | "
                    f"{false:.1%} ({ends.low:.1%} to {ends.high:.1%}) | {true:.0%} |"
                )


def _proven(
    runs: int, crowd: _Rates, events: float, rho: float, *, ratio: float, prove: float
) -> tuple[float, float]:
    """Share of rollouts with a proof at some look: of the plain ratio, of that of users."""
    chance = np.random.default_rng(1)
    found = [0, 0]
    for _ in range(runs):
        canary = chance.random(USERS) < rho
        rates = events * crowd(chance) * np.where(canary, ratio, 1.0)
        first = chance.exponential(1.0, USERS) / np.maximum(rates, 1e-12)
        at = np.arange(1, LOOKS + 1) / LOOKS
        mine = (first[canary][:, None] <= at).sum(0)
        others = (first[~canary][:, None] <= at).sum(0)
        plain = log_proof_array({rho: (mine, others)}, prove)
        found[0] += bool((plain >= math.log(1 / ALPHA)).any())
        found[1] += any(
            log_proof({rho: (int(s), int(f))}, ratio_of_users(prove, f / (~canary).sum()))
            >= math.log(1 / ALPHA)
            for s, f in zip(mine, others, strict=True)
        )
    return found[0] / runs, found[1] / runs


def losses() -> None:
    """How often alike versions are called worse, looked at from 100 units each to 20,000."""
    chance = np.random.default_rng(2)
    looks = np.unique(np.geomspace(200, 20_000, 40).astype(int))
    print("| compared | false, at 5 % |")
    print("|---|---|")
    for rho in (0.01, 0.05, 0.25):
        wrong = 0
        for _ in range(400):
            canary = chance.random(20_000) < rho
            phi = effects((chance.random(20_000) < 0.1).astype(float), canary, np.full(20_000, rho))
            enough = [t for t in looks if canary[:t].sum() >= LEAST_UNITS]
            wrong += any(_refuted(phi[:t], "asymptotic") for t in enough)
        _share(f"units, weight {rho:.0%}, error rate 10 %", wrong)
    for kind in ("asymptotic", "betting"):
        wrong = 0
        for _ in range(400):
            values = chance.choice([-1.0, 0.0, 1.0], 20_000, p=[0.01, 0.98, 0.01])
            wrong += any(_refuted(values[:t], kind) for t in looks)
        _share(f"pairs, {kind}, 2 % differ", wrong)


def _refuted(values: _Floats, kind: str) -> bool:
    known = (asymptotic if kind == "asymptotic" else betting)(
        values, limit=0.0, prove=1.0, low_error=ALPHA, high_error=ALPHA
    )
    return known.log_e >= math.log(1 / ALPHA)


def _share(what: str, wrong: int) -> None:
    ends = wilson(wrong / 400, 400)
    print(f"| {what} | {wrong / 400:.1%} ({ends.low:.1%} to {ends.high:.1%}) |")


if __name__ == "__main__":
    tables = {"forecasts": forecasts, "proofs": proofs, "losses": losses}
    for chosen in sys.argv[1:] or tables:
        tables[chosen]()
        print()
