"""The demo's people: what `data/census.parquet` holds and who among them has a number."""

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

__all__ = ["DATA", "FEATURES", "PEOPLE", "Census", "people", "read"]

DATA: Final = Path(__file__).parent / "data" / "census.parquet"

FEATURES: Final = (
    "AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG",
    "MIL", "ANC", "NATIVITY", "DEAR", "DEYE", "DREM", "SEX", "RAC1P",
)  # fmt: skip
"""Columns of the models' input, in order, named by the survey's own codes."""

PEOPLE: Final = 20_000
"""How many people of 2018 have a `person_id`, 1 to this."""


class Census(NamedTuple):
    """People in the survey's order; row i of every array is the same person."""

    features: NDArray[np.float32]
    """Shape [people, 16], columns as `FEATURES`."""

    employed: NDArray[np.int64]
    """Shape [people]: 1 employed, 0 not."""

    year: NDArray[np.int64]
    """Shape [people]: 2015 to 2018."""


def read(path: Path = DATA, years: Collection[int] = (2015, 2016, 2017, 2018)) -> Census:
    """Read the people of some years, in file order."""
    table = pq.read_table(path)
    year = table["year"].to_numpy().astype(np.int64) + 2000
    wanted = np.isin(year, list(years))
    columns = [table[name].to_numpy()[wanted] for name in FEATURES]
    employed = table["employed"].to_numpy()[wanted]
    return Census(np.stack(columns, 1).astype(np.float32), employed.astype(np.int64), year[wanted])


def people(path: Path = DATA) -> Census:
    """The people of 2018 with a number: row i is `person_id` i + 1.

    They are spread evenly over the year. Its first 20,000 would not do: the file begins with
    those who live in institutions and dormitories, of whom far fewer work.
    """
    everyone = read(path, {2018})
    rows = np.arange(PEOPLE) * len(everyone.employed) // PEOPLE
    return Census(*(values[rows] for values in everyone))
