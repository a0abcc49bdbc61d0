"""Windows of traffic made of the demo's people: independent, in runs, in bursts, again and again.

A part of `drift_rates.py` and `drift_harm.py`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

DEMO: Final = Path(__file__).parents[1] / "configs" / "demo"
sys.path.insert(0, str(DEMO))

import census  # noqa: E402 - a script of the demo, found by the line above

from serving.drift.bins import Counts, compile_bins  # noqa: E402
from serving.drift.freezing import freeze  # noqa: E402
from serving.drift.statistics import reference_counts  # noqa: E402

BLOCKS: Final = 30
"""Parts of a window."""

REFERENCE: Final = 40_000
"""Rows of a reference."""

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
