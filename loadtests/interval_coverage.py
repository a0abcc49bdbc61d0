"""How often the intervals of performance figures hold the truth; they say 95 %.

    python loadtests/interval_coverage.py                  # the table, about five minutes
    python loadtests/interval_coverage.py --rounds 200     # sooner, less sure

Scores are drawn from a model that is slightly miscalibrated; the truth is what two million rows
say. Seeds are fixed: the same command prints the same table. Three kinds of traffic:

  plain      independent rows
  sampled    rows with a score below 0.5 are kept with probability 0.2 and weigh 5
  repeated   each row comes 1 to 7 times, as one entity
"""

import argparse
import sys
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.performance.counts import Counts, Moments, ScoreBins
from serving.performance.figures import figures
from serving.performance.intervals import wilson

SIZES: Final = (50, 100, 300, 1000, 5000)
TRUTH_ROWS: Final = 2_000_000
KINDS: Final = ("plain", "sampled", "repeated")

Array = NDArray[np.float64]
Rows = tuple[Array, Array, Array | None, Array | None]
"""Scores, truth, weights, clusters."""


def draw(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Scores, and what came true: 27 % positive, a slope of 0.8 where 1 was promised."""
    odds = random.normal(-1, 1.5, count)
    true = random.random(count) < 1 / (1 + np.exp(-0.8 * odds + 0.1))
    return 1 / (1 + np.exp(-odds)), true.astype(np.float64)


def plain(random: np.random.Generator, count: int) -> Rows:
    """Independent rows."""
    return *draw(random, count), None, None


def sampled(random: np.random.Generator, count: int) -> Rows:
    """Kept with a probability that depends on the score; about `count` of them."""
    scores, true = draw(random, count * 3)
    chance = np.where(scores > 0.5, 1.0, 0.2)
    kept = random.random(len(scores)) < chance
    return scores[kept], true[kept], 1 / chance[kept], None


def repeated(random: np.random.Generator, count: int) -> Rows:
    """`count` entities, each a few times."""
    scores, true = draw(random, count)
    times = random.integers(1, 8, count)
    clusters = np.repeat(np.arange(count, dtype=np.float64), times)
    return np.repeat(scores, times), np.repeat(true, times), None, clusters


def counted(rows: Rows) -> Counts:
    """Their counts."""
    scores, true, weights, clusters = rows
    decided = (scores >= 0.5).astype(np.float64)
    everything = np.ones(len(scores), np.bool_)
    log_loss = -np.log(np.where(true > 0, scores, 1 - scores))
    measures: dict[str, tuple[Array, NDArray[np.bool_]]] = {
        "accuracy": ((decided == true).astype(np.float64), everything),
        "recall": (decided, true > 0),
        "false_positive_rate": (decided, true == 0),
        "scored_true": (true, true > 0),
        "scored_false": (1 - true, true == 0),
        "brier": ((scores - true) ** 2, everything),
        "log_loss": (log_loss, everything),
        "calibration_gap": (scores - true, everything),
        "absolute_error": (np.abs(scores - true), everything),
        "squared_error": ((scores - true) ** 2, everything),
    }
    return Counts(
        measures={
            name: Moments.of(
                values[of],
                None if weights is None else weights[of],
                None if clusters is None else clusters[of],
            )
            for name, (values, of) in measures.items()
        },
        scores=ScoreBins.of(scores, true, weights),
    )


def coverage(
    kind: Callable[[np.random.Generator, int], Rows],
    count: int,
    rounds: int,
    truth: dict[str, float],
) -> dict[str, tuple[int, int]]:
    """Hits and tries of every figure."""
    random = np.random.default_rng([count, KINDS.index(kind.__name__)])
    found: dict[str, tuple[int, int]] = {}
    for _ in range(rounds):
        for one in figures(counted(kind(random, count))):
            if one.low is not None and one.high is not None:
                hits, tries = found.get(one.name, (0, 0))
                found[one.name] = hits + (one.low <= truth[one.name] <= one.high), tries + 1
    return found


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1000, help="of each cell [default: 1000]")
    rounds = parser.parse_args().rounds
    print("the truth …", file=sys.stderr)
    known = counted(plain(np.random.default_rng(0), TRUTH_ROWS))
    truth = {one.name: one.value for one in figures(known)}
    print(f"| traffic | rows | {' | '.join(truth)} |")
    print(f"|---|--:|{'--:|' * len(truth)}")
    for kind in (plain, sampled, repeated):
        for count in SIZES:
            print(f"{kind.__name__}, {count} …", file=sys.stderr)
            found = coverage(kind, count, rounds, truth)
            cells = [f"{found[name][0] / found[name][1]:.1%}" for name in truth]
            print(f"| {kind.__name__} | {count:,} | {' | '.join(cells)} |", flush=True)
    edge = wilson(0.95, rounds)
    print(f"\nA cell of 95 % is within {edge.low:.1%} and {edge.high:.1%} in 95 of 100 cases.")


if __name__ == "__main__":
    main()
