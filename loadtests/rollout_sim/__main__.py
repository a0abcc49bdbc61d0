"""How often a plan stops a good version, and how soon a bad one.

    python -m loadtests.rollout_sim                # every table, about ten minutes on one core
    python -m loadtests.rollout_sim --quick        # fewer rows: a minute
    python -m loadtests.rollout_sim --only detection,stops
    python -m loadtests.rollout_sim --only aborts --row "rising, 5 %" --runs 4000

Traffic is made up second by second (`serving.rollout.simulate`), the evidence is looked at every
second by the functions that control uses, and rates come with their 95 % Wilson interval. Seeds
are fixed: the same command prints the same tables.

  aborts     a version as good as production, for an hour; beside it the same traffic through the
             rules of other tools. Exit 1 if an upper end is above alpha.
  detection  a version that is worse. Exit 1 if a median is above what is promised.
  stops      what hard stops do to a good version while both versions fail more often
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

# `python -m loadtests.rollout_sim` does not put this folder on the path; by its name it is.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from detection import detections, disagreement, tried
from false_aborts import cases, interval, row
from rivals import RIVALS
from stops import incidents

from serving.performance.intervals import wilson

ALPHA: Final = 0.05
TABLES: Final = ("aborts", "detection", "stops")


def main() -> int:
    """Print what was asked for; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs",
        type=int,
        help="of a row [2000; 1000 with users or a worse version, 200 incidents]",
    )
    parser.add_argument("--only", help=f"tables, by comma: {','.join(TABLES)}")
    parser.add_argument("--row", default="", help="of `aborts`, only those with this text")
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(TABLES)
    if unknown := [name for name in wanted if name not in TABLES]:
        parser.error(f"there is no table {unknown[0]}; there is {', '.join(TABLES)}")
    broken = 0
    started = time.monotonic()
    if "aborts" in wanted:
        broken += _aborts(given.runs, quick=given.quick, row_text=given.row)
    if "detection" in wanted:
        broken += _detection(given.runs or (200 if given.quick else 1000))
    if "stops" in wanted:
        broken += _stops(given.runs or 200, quick=given.quick)
    _told(f"{time.monotonic() - started:.0f} s")
    print(f"\n{broken} of what is promised does not hold" if broken else "\nall promises hold")
    return 1 if broken else 0


def _aborts(runs: int | None, *, quick: bool, row_text: str) -> int:
    print("Stopped, though as good as production: percent of the runs (95 % interval)\n")
    print("| traffic | runs | **e-process, each second** | " + " | ".join(RIVALS) + " |")
    print("|---" * (3 + len(RIVALS)) + "|")
    broken = 0
    worst = 0.0
    for case in (one for one in cases(quick=quick) if row_text in one.words):
        number = runs or (2000 if case.keys is None else 1000)
        found = row(case, number, _told)
        worst = max(worst, found.ours.high)
        broken += found.ours.high > ALPHA
        others = " | ".join(f"{100 * share:.0f}" for share in found.others.values())
        ours = interval(found.ours.stopped, number)
        print(f"| {case.words} | {number} | **{ours}** | {others} |", flush=True)
    print(f"\nthe highest upper end is {100 * worst:.2f} %, alpha {100 * ALPHA:g} %\n")
    return broken


def _detection(runs: int) -> int:
    print("Worse than production: how many are stopped, and when\n")
    print(
        "| the new version | runs | stopped, % | promoted, % | median | p90 | its requests | by |"
    )
    print("|---|---|---|---|---|---|---|---|")
    broken = 0
    for one in detections(runs):
        _told(one.words)
        found = tried(one)
        kept = one.most is None or (found.median is not None and found.median <= one.most)
        broken += not kept
        by = ", ".join(f"{rule} {count}" for rule, count in found.by.items())
        promised = "" if one.most is None else f" (≤ {one.most:g} s{'' if kept else ': NOT KEPT'})"
        print(
            f"| {one.words} | {found.runs} | {interval(found.stopped, found.runs)} "
            f"| {100 * found.completed / found.runs:.0f} "
            f"| {_time(found.median)}{promised} | {_time(found.p90)} "
            f"| {'–' if found.exposed is None else f'{found.exposed:.0f}'} | {by} |",
            flush=True,
        )
    seconds = disagreement(min(runs, 200))
    median, late = seconds[len(seconds) // 2], seconds[len(seconds) * 9 // 10]
    print(
        f"| copies: 2 % differ, at_least 0.99, 25 a second | {len(seconds)} | 100 | 0 "
        f"| {_time(median)} | {_time(late)} | 0 | agreement |\n"
    )
    return broken


def _stops(runs: int, *, quick: bool) -> int:
    print("Stopped by a hard stop though as good: five minutes in which both versions fail\n")
    print(
        "| weight | its requests | share that fails | stopped, % | a breaker without production |"
    )
    print("|---|---|---|---|---|")
    broken = 0
    for one in incidents(runs, quick=quick):
        broken += wilson(one.stopped / runs, runs).high > ALPHA
        print(
            f"| {one.rho:.0%} | {one.per_second:g}/s | {one.share:.0%} "
            f"| {interval(one.stopped, runs)} | {interval(one.plain, runs)} |",
            flush=True,
        )
    print()
    return broken


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _told(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
