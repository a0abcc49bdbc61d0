"""Drift is not harm: what the levels say over four years of the census, and when the model fails.

    python loadtests/drift_harm.py                 # both tables, about a minute

The demo's first version learned from 2015. The people of 2016 to 2018 drift and the model does as
well as before: the level must never be `trigger`. Then answers are made wrong, and it must be.

Tables:
  years   windows of 5,000 people with their labels: drift, loss, level, and the decision
  adwin   the change detector: alarms where nothing changed, labels until it sees a change

Seeds are fixed: the same command prints the same tables.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import drift_windows as people
import numpy as np
from drift_rates import note
from numpy.typing import NDArray

from serving.config.frozen_bins import Reference
from serving.drift.changes import Adwin
from serving.drift.report import DriftOptions, Window, report
from serving.drift.retraining import RetrainPolicy, RetrainState, decide
from serving.drift.verdict import Evidence, Loss, Tolerances, judge

WINDOW: Final = 5000
HOUR: Final = 3600.0
OPTIONS: Final = DriftOptions(
    important=frozenset({"AGEP", "SCHL", "RELP", "DIS"}), score="probabilities[1]"
)
LIMITS: Final = Tolerances(score="probabilities[1]")

Losses = NDArray[np.float64]


class Line(NamedTuple):
    """What was made of the windows of one year."""

    windows: int
    drifting: int
    """Windows in which a column was named."""
    alerts: int
    triggers: int
    asked: int
    loss: float


def brier(world: people.World) -> Losses:
    """Squared error of each score."""
    apart: Losses = (world.columns["probabilities[1]"].astype(np.float64) - world.employed) ** 2
    return apart


def mean_loss(losses: Losses, reference: Losses) -> Loss:
    """A window's mean loss with its error, beside the reference's."""
    return Loss(
        metric="brier",
        rows=len(losses),
        now=float(losses.mean()),
        error=float(losses.std() / math.sqrt(len(losses))),
        reference=float(reference.mean()),
        reference_error=float(reference.std() / math.sqrt(len(reference))),
    )


def follow(
    world: people.World, frozen: people.Frozen, known: Losses, losses: Losses, order: people.Rows
) -> Line:
    """Judge one year's people, an hour for each window."""
    reference = Reference(
        model="employment",
        rows=len(known),
        created="",
        source="2015",
        columns=frozen.columns,
    )
    windows: list[Window] = []
    state = RetrainState()
    drifting = alerts = triggers = asked = 0
    used = len(order) // WINDOW * WINDOW
    for hour, rows in enumerate(order[:used].reshape(-1, WINDOW)):
        blocks = frozen.blocks(frozen.codes(world, rows))
        named = dict(zip(frozen.columns, blocks, strict=True))
        windows.append(Window(start=hour * HOUR, end=(hour + 1) * HOUR, blocks=named))
        seen = report(reference, windows[-3:], OPTIONS)
        verdict = judge(
            Evidence(drift=seen, realised=mean_loss(losses[rows], known)),
            LIMITS,
        )
        state, decision = decide(state, verdict, RetrainPolicy(), (hour + 1) * HOUR)
        drifting += seen.level != "none"
        alerts += verdict.level == "alert"
        triggers += verdict.level == "trigger"
        asked += decision.ask
    return Line(len(windows), drifting, alerts, triggers, asked, float(losses[order].mean()))


def years(world: people.World) -> Iterator[tuple[str, Line]]:
    """Every year as it was, and the last one with a tenth of the labels turned over."""
    chance = np.random.default_rng(1)
    losses = brier(world)
    learned = np.flatnonzero(world.year == 2015)
    chosen, held = people.split(chance, learned, 1)
    frozen, known = people.Frozen(world, chosen), losses[chosen]
    yield "2015, others", follow(world, frozen, known, losses, chance.permutation(held))
    for year in (2016, 2017, 2018):
        order = chance.permutation(np.flatnonzero(world.year == year))
        yield str(year), follow(world, frozen, known, losses, order)
    turned = chance.random(len(losses)) < 0.1
    wrong = world._replace(employed=np.where(turned, 1 - world.employed, world.employed))
    yield "2018, 10 % of labels turned", follow(world, frozen, known, brier(wrong), order)


def delays(chance: np.random.Generator, rate: float, growth: float, streams: int) -> list[int]:
    """Labels until each of several streams of errors is seen to have become worse.

    10,000 labels before the change, at most 10,000 after it; streams never seen are left out.
    """
    found = []
    for _ in range(streams):
        errors = np.concatenate(
            (chance.random(10_000) < rate, chance.random(10_000) < rate + growth)
        )
        adwin = Adwin()
        for position, error in enumerate(errors.tolist()):
            change = adwin.update(error)
            if change is not None and change.grew and position >= 10_000:
                found.append(position - 9_999)
                break
    return found


def main() -> None:
    """Read the command line and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=people.census.DATA, help="the demo's census")
    parser.add_argument("--streams", type=int, default=40, help="streams for each delay (40)")
    options = parser.parse_args()
    world = people.score(options.data)

    print(
        f"{'people':28} {'windows':>8} {'drift':>6} {'alert':>6} {'trigger':>8} {'asked':>6}  Brier"
    )
    for name, line in years(world):
        print(
            f"{name:28} {line.windows:8} {line.drifting:6} {line.alerts:6} {line.triggers:8} "
            f"{line.asked:6}  {line.loss:.4f}",
            flush=True,
        )

    chance = np.random.default_rng(2)
    errors = world.columns["label"] != world.employed
    learned = errors[world.year == 2015]
    alarms = 0
    for number in range(10):
        note(f"shuffled labels, {number + 1} of 10")
        adwin = Adwin()
        alarms += sum(adwin.update(one) is not None for one in chance.permutation(learned).tolist())
    print(
        f"\nADWIN on the errors of 2015, shuffled: {alarms} alarms in {10 * len(learned):,} labels"
    )
    print(f"\n{'error rate':>14} {'seen':>10} {'median':>8} {'90 %':>8}  labels after the change")
    for growth in (0.02, 0.03, 0.05, 0.1, 0.2):
        note(f"changes of {growth}")
        found = delays(chance, 0.17, growth, options.streams)
        middle, most = np.quantile(found, (0.5, 0.9)) if found else (math.nan, math.nan)
        seen = f"{len(found)} of {options.streams}"
        print(f"{0.17:6.2f} → {0.17 + growth:.2f} {seen:>11} {middle:8.0f} {most:8.0f}", flush=True)


if __name__ == "__main__":
    main()
