"""How often the drift report is wrong, and how often it is right, on people of the census.

    python loadtests/drift_rates.py                      # every table, about ten minutes
    python loadtests/drift_rates.py --windows 200        # sooner, with wider intervals
    python loadtests/drift_rates.py --only alarms,power  # some of the tables

Each window is drawn from people whom the reference does not hold, and judged as the gateway would:
16 features, the decision and the score of the demo's model. A reference serves ten windows, then
another one is drawn and frozen. Rates come with their 95 % Wilson interval. Seeds are fixed: the
same command prints the same table.

Tables:
  alarms    nothing changed: how often does a report name any column, beside fixed thresholds
  traffic   nothing changed, but rows come in households, batches, or again and again
  power     something did change
  cost      microseconds to count a row, milliseconds to judge a window

"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from drift_windows import (
    REFERENCE,
    Codes,
    Draw,
    Frozen,
    Rows,
    World,
    bursts,
    census,
    independent,
    regulars,
    runs,
    score,
    split,
)
from msgspec.structs import replace
from numpy.typing import NDArray

from serving.drift.bins import Counts, compile_bins
from serving.drift.distributions import chi_square_tail
from serving.drift.freezing import freeze
from serving.drift.statistics import (
    ReferenceCounts,
    compare,
    compare_columns,
    dispersion,
    q_values,
    unrest,
)

SIZES: Final = (100, 200, 500, 1000, 5000)
ALPHA: Final = 0.01
MIN_EFFECT: Final = 0.01
PER_REFERENCE: Final = 10


# --- how a window is judged -----------------------------------------------------------------


class Verdicts(NamedTuple):
    """Whether each rule names any column of one window."""

    psi: bool
    """PSI of any column is 0.1 or more: the usual fixed threshold."""
    js: bool
    """Jensen-Shannon distance of any column is 0.1 or more: another."""
    uncorrected: bool
    """χ² with p < 0.05 in any column."""
    independent: bool
    """Ours, as if rows were independent and each column's p were all there is to know."""
    first_order: bool
    """χ² / φ for the values, each column by itself; rare ones as if rows were independent."""
    ours: bool
    """The test as shipped."""
    told: bool
    """The same, where the shift is also larger than min_effect."""


def judge(
    references: list[ReferenceCounts],
    blocks: list[Counts],
    restless: float = 1.0,
    *,
    rules: Collection[str] = Verdicts._fields,
) -> Verdicts:
    """Judge a window by these rules; the verdict of a costly one that is not asked for is no."""
    totals = [one.sum(0) for one in blocks]
    shares = [
        (r.counts / r.counts.sum(), t / t.sum()) for r, t in zip(references, totals, strict=True)
    ]
    plain = []
    if not {"uncorrected", "independent", "first_order"}.isdisjoint(rules):
        plain = [compare(one, total[None]) for one, total in zip(references, totals, strict=True)]
    full = compare_columns(references, blocks, restless)
    scaled = [
        p_value(p.statistic * p.dof / compare(r, b).overdispersion, p.dof, p.rare_p)
        for r, b, p in zip(references, blocks, plain, strict=False)
        if "first_order" in rules
    ]
    named = [
        q < ALPHA and one.psi_star > MIN_EFFECT
        for q, one in zip(q_values([one.p for one in full]), full, strict=True)
    ]
    return Verdicts(
        psi=max(psi(p, q, t.sum()) for (p, q), t in zip(shares, totals, strict=True)) >= 0.1,
        js=max(jensen_shannon(p, q) for p, q in shares) >= 0.1,
        uncorrected=any(one.p < 0.05 for one in plain),
        independent=any(q < ALPHA for q in q_values([one.p for one in plain])),
        first_order=any(q < ALPHA for q in q_values(scaled)),
        ours=min(q_values([one.p for one in full])) < ALPHA,
        told=any(named),
    )


def p_value(chi_square: float, dof: float, rare_p: float) -> float:
    """Both tests of a column together, the first referred to χ²."""
    values = chi_square_tail(chi_square, dof) if dof else 1.0
    return min(1.0, values / 0.9, rare_p / 0.1)


def psi(p: NDArray[np.float64], q: NDArray[np.float64], n: int) -> float:
    """Population stability index over the frozen bins, empty ones taken as half a row."""
    p, q = np.maximum(p, 0.5 / REFERENCE), np.maximum(q, 0.5 / n)
    return float((q - p) @ np.log(q / p))


def jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Jensen-Shannon distance to the base 2, as scipy and the drift tools have it."""
    middle = (p + q) / 2

    def divergence(one: NDArray[np.float64]) -> float:
        inside = one > 0
        return float(one[inside] @ np.log2(one[inside] / middle[inside]))

    return math.sqrt(max(0.0, (divergence(p) + divergence(q)) / 2))


# --- tables ---------------------------------------------------------------------------------


class Case(NamedTuple):
    """Where windows come from and what is done to them."""

    name: str
    draw: Draw = independent
    length: int = 1
    year: int = 2015
    change: Callable[[np.random.Generator, Frozen, Codes], None] | None = None
    past: int = 0
    """So many earlier windows, kept with the reference, tell how much healthy ones vary."""
    before: int = 0
    """Or so many windows right before, as in a report."""


def nulls(share: float) -> Callable[[np.random.Generator, Frozen, Codes], None]:
    """A share of the ages is missing."""

    def change(chance: np.random.Generator, frozen: Frozen, codes: Codes) -> None:
        del frozen
        codes[chance.random(len(codes)) < share, 0] = 0

    return change


def new_category(chance: np.random.Generator, frozen: Frozen, codes: Codes) -> None:
    """3 % of the rows have a marital status that nobody had."""
    position = list(frozen.columns).index("MAR")
    codes[chance.random(len(codes)) < 0.03, position] = 2


def months(chance: np.random.Generator, frozen: Frozen, codes: Codes) -> None:
    """A tenth of the ages is in months."""
    column = frozen.columns["AGEP"]
    lows = np.array([0.0] * 4 + column.edges[:-1])  # each bin's least age stands for the bin
    chosen = (chance.random(len(codes)) < 0.1) & (codes[:, 0] >= 4)
    codes[chosen, 0] = frozen.bins["AGEP"].places(12 * lows[codes[chosen, 0]])


def cut_ages(chance: np.random.Generator, frozen: Frozen, codes: Codes) -> None:
    """The survey wrote the highest ages as 94 in 2015 and as 95 in 2018; undo that."""
    del chance
    above = codes[:, 0] == 3
    codes[above, 0] = frozen.bins["AGEP"].size - 1


ALARMS: Final = (Case("nothing changed"),)
TRAFFIC: Final = (
    Case("households of 3", runs(3), 3),
    Case("runs of 10 in the file", runs(10), 10),
    Case("runs of 50 in the file", runs(50), 50),
    Case("each person 5 times at once", bursts(5)),
    Case("each person 20 times at once", bursts(20)),
    Case("each person 5 times, whenever", regulars(5)),
    Case("the same, 48 windows in the log", regulars(5), past=48),
    Case("the same, 8 windows before", regulars(5), before=8),
    Case("the same, 24 windows before", regulars(5), before=24),
    Case("20 times at once, 8 before", bursts(20), before=8),
)
POWER: Final = (
    Case("5 % nulls in one column", change=nulls(0.05)),
    Case("2 % nulls in one column", change=nulls(0.02)),
    Case("3 % of a new category", change=new_category),
    Case("10 % of ages in months", change=months),
    Case("2018 instead of 2015", year=2018),
    Case("the same, ages coded alike", year=2018, change=cut_ages),
)


def trials(
    world: World, case: Case, n: int, windows: int, rules: Collection[str] = Verdicts._fields
) -> Iterator[Verdicts]:
    """Verdicts on so many windows of n rows."""
    chance = np.random.default_rng([1, n, *case.name.encode()])
    learned = np.flatnonzero(world.year == 2015)
    for number in range(windows):
        if number % PER_REFERENCE == 0:
            reference, pool = split(chance, learned, case.length)
            frozen = Frozen(world, reference)
            if case.year != 2015:
                pool = np.flatnonzero(world.year == case.year)
            references = seasoned(world, case, frozen, pool, n=n, chance=chance)
            restless = 1.0
            if case.before:
                before = earlier(world, case, frozen, pool, n=n, chance=chance)
                restless = unrest(references, before)
        codes = frozen.codes(world, case.draw(chance, pool, n))
        if case.change is not None:
            case.change(chance, frozen, codes)
        yield judge(references, frozen.blocks(codes), restless, rules=rules)


def seasoned(
    world: World, case: Case, frozen: Frozen, pool: Rows, *, n: int, chance: np.random.Generator
) -> list[ReferenceCounts]:
    """The reference, with the overdispersion that past windows show, if there are any."""
    if not case.past:
        return frozen.references
    case = case._replace(before=case.past)
    past = earlier(world, case, frozen, pool, n=n, chance=chance)
    return [
        replace(one, overdispersion=dispersion(column, one))
        for one, column in zip(frozen.references, past, strict=True)
    ]


def earlier(
    world: World, case: Case, frozen: Frozen, pool: Rows, *, n: int, chance: np.random.Generator
) -> list[Counts]:
    """Counts of windows before the one that is judged, shape [windows, bins] for each column."""
    windows = [
        frozen.blocks(frozen.codes(world, case.draw(chance, pool, n)), 1)
        for _ in range(case.before)
    ]
    return [np.concatenate(column) for column in zip(*windows, strict=True)]


def wilson(hits: int, number: int) -> tuple[float, float]:
    """95 % interval of a rate (E. B. Wilson, 1927)."""
    z, rate = 1.959964, hits / number
    middle = (rate + z * z / (2 * number)) / (1 + z * z / number)
    half = z * math.sqrt(rate * (1 - rate) / number + z * z / (4 * number**2))
    half /= 1 + z * z / number
    return max(0.0, middle - half), min(1.0, middle + half)


def rate(verdicts: list[Verdicts], rule: str) -> str:
    """A rate in percent with its interval."""
    hits = sum(getattr(one, rule) for one in verdicts)
    low, high = wilson(hits, len(verdicts))
    return f"{100 * hits / len(verdicts):.1f} ({100 * low:.1f}–{100 * high:.1f})"


def table(
    world: World,
    cases: tuple[Case, ...],
    sizes: tuple[int, ...],
    rules: dict[str, str],
    windows: int,
) -> None:
    """Run the cases and print one row for each case and rule: percent of windows."""
    print(f"\n{'case':32} {'rule':26}" + "".join(f"{f'n={n}':>19}" for n in sizes))
    for case in cases:
        columns = []
        for n in sizes:
            note(f"{case.name}, n={n}")
            columns.append(list(trials(world, case, n, windows, rules)))
        for rule, words in rules.items():
            cells = "".join(f"{rate(column, rule):>19}" for column in columns)
            print(f"{case.name:32} {words:26}{cells}", flush=True)


def cost(world: World) -> None:
    """Print what counting and judging take, the quickest of many repetitions."""
    chance = np.random.default_rng(1)
    columns = {str(i): chance.normal(size=20_000).astype(np.float32) for i in range(30)}
    counters = [compile_bins(one) for one in freeze(columns).values()]
    for rows in (64, 256, 1000):
        values = chance.normal(size=(rows, 30)).astype(np.float32)
        took = quickest(
            lambda values=values: [one.count(values[:, i]) for i, one in enumerate(counters)]
        )
        print(f"count {rows:5} rows of 30 features  {1e6 * took / rows:6.2f} µs a row")
    frozen = Frozen(world, np.flatnonzero(world.year == 2015))
    later = np.flatnonzero(world.year == 2018)[:5000]
    blocks = frozen.blocks(frozen.codes(world, later))
    took = quickest(lambda: compare_columns(frozen.references, blocks))
    print(f"judge a window of 18 columns in 30 parts  {1e3 * took:6.2f} ms")


def quickest(action: Callable[[], object]) -> float:
    """Seconds of the quickest of 200 runs."""
    best = math.inf
    for _ in range(200):
        began = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - began)
    return best


def note(text: str) -> None:
    """Say on standard error what is being done, if somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{time.strftime('%H:%M:%S')} {text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=2000, help="windows a rate of false alarms")
    parser.add_argument("--only", default="alarms,traffic,power,cost", help="tables to print")
    parser.add_argument("--data", type=Path, default=census.DATA, help="the census, as the demo's")
    options = parser.parse_args()
    chosen = options.only.split(",")
    world = score(options.data)
    began = time.monotonic()
    ours = {"ours": "this test", "told": "… and PSI* > 0.01"}
    if "alarms" in chosen:
        fixed = {"psi": "PSI ≥ 0.1", "js": "Jensen-Shannon ≥ 0.1", "uncorrected": "χ², p < 0.05"}
        table(world, ALARMS, SIZES, fixed | ours, windows=options.windows)
    if "traffic" in chosen:
        plain = {"independent": "as if independent", "first_order": "χ² / φ of the values alone"}
        sizes = (500, 1000, 5000)
        table(world, TRAFFIC, sizes, plain | ours, windows=max(1, options.windows // 4))
    if "power" in chosen:
        rules = {"psi": "PSI ≥ 0.1", "js": "Jensen-Shannon ≥ 0.1"} | ours
        table(world, POWER, SIZES, rules, windows=max(1, options.windows // 4))
    if "cost" in chosen:
        print()
        cost(world)
    note(f"{time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
