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
  harm      the four years: does drift, or the model's error, say that the model got worse
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
from msgspec.structs import replace
from numpy.typing import NDArray

DEMO: Final = Path(__file__).parents[1] / "configs" / "demo"
sys.path.insert(0, str(DEMO))

import census  # noqa: E402 - a script of the demo, found by the line above

from serving.drift.bins import Counts, compile_bins  # noqa: E402
from serving.drift.distributions import chi_square_tail  # noqa: E402
from serving.drift.freezing import freeze  # noqa: E402
from serving.drift.statistics import (  # noqa: E402
    ReferenceCounts,
    compare,
    compare_columns,
    dispersion,
    q_values,
    reference_counts,
)

SIZES: Final = (100, 200, 500, 1000, 5000)
ALPHA: Final = 0.01
MIN_EFFECT: Final = 0.01
BLOCKS: Final = 30
REFERENCE: Final = 40_000
PER_REFERENCE: Final = 10

Codes = NDArray[np.intp]
Rows = NDArray[np.int64]


class World(NamedTuple):
    """The census, scored once."""

    columns: dict[str, NDArray[Any]]
    year: NDArray[np.int64]
    employed: NDArray[np.int64]


def score(path: Path) -> World:
    """Read everybody and ask the demo's first version about each."""
    everybody = census.read(path)
    session = onnxruntime.InferenceSession(DEMO / "artifacts" / "employment-v1.onnx")
    label, probabilities = session.run(None, {"X": everybody.features})
    columns = {name: everybody.features[:, i] for i, name in enumerate(census.FEATURES)}
    columns |= {"label": label, "probabilities[1]": probabilities[:, 1]}
    return World(columns, everybody.year, everybody.employed)


class Frozen:
    """A reference, and how it sorts."""

    def __init__(self, world: World, rows: Rows) -> None:
        self.columns = freeze({name: values[rows] for name, values in world.columns.items()})
        self.bins = {name: compile_bins(one) for name, one in self.columns.items()}
        self.references = [reference_counts(one) for one in self.columns.values()]

    def codes(self, world: World, rows: Rows) -> Codes:
        """Bin of each row and column, shape [rows, columns]."""
        return np.stack(
            [self.bins[name].places(values[rows]) for name, values in world.columns.items()], 1
        )

    def blocks(self, codes: Codes, number: int = BLOCKS) -> list[Counts]:
        """Counts of a window, its rows in order of time, in as many parts of equal length."""
        part = np.arange(len(codes)) * number // len(codes)
        return [
            np.bincount(part * bins.size + codes[:, i], minlength=number * bins.size).reshape(
                number, bins.size
            )
            for i, bins in enumerate(self.bins.values())
        ]


# --- where rows come from -------------------------------------------------------------------

Draw = Callable[[np.random.Generator, Rows, int], Rows]
"""(chance, rows at hand in file order, n) to n rows in the order in which they are asked."""


def independent(chance: np.random.Generator, pool: Rows, n: int) -> Rows:
    """Each row by itself."""
    return chance.choice(pool, n, replace=False)


def runs(length: int) -> Draw:
    """Rows that stand together in the file come together, so many at a time."""

    def draw(chance: np.random.Generator, pool: Rows, n: int) -> Rows:
        starts = chance.permutation(len(pool) // length)[: -(-n // length)] * length
        return pool[(starts[:, None] + np.arange(length)).ravel()[:n]]

    return draw


def bursts(times: int) -> Draw:
    """A person is asked about several times, one after the other."""

    def draw(chance: np.random.Generator, pool: Rows, n: int) -> Rows:
        return np.repeat(chance.choice(pool, -(-n // times), replace=False), times)[:n]

    return draw


def regulars(times: int) -> Draw:
    """Few people a window, each asked about several times, at any moment of it."""

    def draw(chance: np.random.Generator, pool: Rows, n: int) -> Rows:
        return chance.permutation(bursts(times)(chance, pool, n))

    return draw


def split(chance: np.random.Generator, rows: Rows, length: int) -> tuple[Rows, Rows]:
    """A reference of whole runs, and the rest in file order."""
    number = len(rows) // length
    chosen = np.zeros(number, bool)
    chosen[chance.permutation(number)[: REFERENCE // length]] = True
    grouped = rows[: number * length].reshape(number, length)
    return grouped[chosen].ravel(), grouped[~chosen].ravel()


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
    """Ours with χ² / φ, each column by itself."""
    ours: bool
    """The test as shipped."""
    told: bool
    """The same, where the shift is also larger than min_effect."""


def judge(references: list[ReferenceCounts], blocks: list[Counts]) -> Verdicts:
    """Judge a window by every rule."""
    totals = [one.sum(0) for one in blocks]
    shares = [
        (r.counts / r.counts.sum(), t / t.sum()) for r, t in zip(references, totals, strict=True)
    ]
    plain = [compare(one, total[None]) for one, total in zip(references, totals, strict=True)]
    full = compare_columns(references, blocks)
    scaled = [
        p_value(p.statistic * p.dof / compare(r, b).overdispersion, p.dof, p.rare_p)
        for r, b, p in zip(references, blocks, plain, strict=True)
    ]
    named = [
        q < ALPHA and one.psi_star > MIN_EFFECT
        for q, one in zip(q_values([one.p for one in full]), full, strict=True)
    ]
    return Verdicts(
        psi=max(psi(p, q, t.sum()) for (p, q), t in zip(shares, totals, strict=True)) >= 0.1,
        js=max(jensen_shannon(p, q) for p, q in shares) >= 0.1,
        uncorrected=any(one.p < 0.05 for one in plain),
        independent=min(q_values([one.p for one in plain])) < ALPHA,
        first_order=min(q_values(scaled)) < ALPHA,
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
    """So many earlier windows tell how much healthy ones vary."""


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
    Case("the same, with 48 past windows", regulars(5), past=48),
)
POWER: Final = (
    Case("5 % nulls in one column", change=nulls(0.05)),
    Case("2 % nulls in one column", change=nulls(0.02)),
    Case("3 % of a new category", change=new_category),
    Case("10 % of ages in months", change=months),
    Case("2018 instead of 2015", year=2018),
    Case("the same, ages coded alike", year=2018, change=cut_ages),
)


def trials(world: World, case: Case, n: int, windows: int, seed: int = 1) -> Iterator[Verdicts]:
    """Verdicts on so many windows of n rows."""
    chance = np.random.default_rng([seed, n, *case.name.encode()])
    learned = np.flatnonzero(world.year == 2015)
    for number in range(windows):
        if number % PER_REFERENCE == 0:
            reference, pool = split(chance, learned, case.length)
            frozen = Frozen(world, reference)
            if case.year != 2015:
                pool = np.flatnonzero(world.year == case.year)
            references = seasoned(world, case, frozen, pool, n=n, chance=chance)
        codes = frozen.codes(world, case.draw(chance, pool, n))
        if case.change is not None:
            case.change(chance, frozen, codes)
        yield judge(references, frozen.blocks(codes))


def seasoned(
    world: World, case: Case, frozen: Frozen, pool: Rows, *, n: int, chance: np.random.Generator
) -> list[ReferenceCounts]:
    """The reference, with the overdispersion that past windows show, if there are any."""
    if not case.past:
        return frozen.references
    past = [
        frozen.blocks(frozen.codes(world, case.draw(chance, pool, n)), 1) for _ in range(case.past)
    ]
    return [
        replace(one, overdispersion=dispersion(np.concatenate(column), one))
        for one, *column in zip(frozen.references, *past, strict=True)
    ]


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
            columns.append(list(trials(world, case, n, windows)))
        for rule, words in rules.items():
            cells = "".join(f"{rate(column, rule):>19}" for column in columns)
            print(f"{case.name:32} {words:26}{cells}", flush=True)


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
    parser.add_argument("--only", default="alarms,traffic,power,harm", help="tables to print")
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
        rules = {"independent": "as if independent", "first_order": "χ² / φ, each alone"} | ours
        table(world, TRAFFIC, (500, 1000, 5000), rules, windows=options.windows)
    if "power" in chosen:
        rules = {"psi": "PSI ≥ 0.1", "js": "Jensen-Shannon ≥ 0.1"} | ours
        table(world, POWER, SIZES, rules, windows=max(1, options.windows // 4))
    note(f"{time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
