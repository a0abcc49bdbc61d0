"""What Locust's users ask: models, entities by popularity and batch sizes. Pure.

A request is made of what the target says of its model (OIP V2 metadata and, where it is offered,
the configuration extension), so that the same file tests any model.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.types import NUMPY_OF, TensorMetadata

__all__ = ["Asked", "Mix", "Popularity", "asked", "batch_sizes", "weighted"]

T = TypeVar("T")

_KEYS: Final = ("INT32", "INT64", "UINT32", "UINT64", "BYTES")
"""Datatypes wide enough to name an entity."""

_MOST_ROWS: Final = 32
"""The largest batch that is tried unless one asks for more."""


class Popularity:
    """Zipf: the entity of rank k is asked for in proportion to k to the power of -`exponent`.

    A few entities make most of real traffic; caches and single hot keys show only then. 0 makes
    all entities alike. `entities` is how many there are, numbered from 1 by rank.
    """

    def __init__(self, entities: int, exponent: float) -> None:
        if entities < 1 or not 0 <= exponent < 10:
            raise ValueError(
                f"popularity of {entities} entities with exponent {exponent}: "
                "expected at least one entity and an exponent from 0 to 10"
            )
        shares = np.arange(1, entities + 1, dtype=np.float64) ** -exponent
        self._up_to = np.cumsum(shares) / shares.sum()

    def share(self, rank: int) -> float:
        """The part of requests that ask for the entity of this rank, from 1."""
        before = self._up_to[rank - 2] if rank > 1 else 0.0
        return float(self._up_to[rank - 1] - before)

    def draw(self, rows: int, chance: random.Random) -> list[int]:
        """So many entities, independently."""
        drawn = [chance.random() for _ in range(rows)]
        places = np.searchsorted(self._up_to, drawn, side="right")
        return [int(place) + 1 for place in np.minimum(places, len(self._up_to) - 1)]


class Mix(Generic[T]):
    """Values with weights, drawn by chance."""

    def __init__(self, weights: Mapping[T, float]) -> None:
        if not weights or min(weights.values()) < 0 or not sum(weights.values()) > 0:
            raise ValueError("a mix needs a value with a weight above 0, and none below")
        self.values: Final = list(weights)
        self._up_to = list(accumulate(weights.values()))

    def draw(self, chance: random.Random) -> T:
        """One of them."""
        return chance.choices(self.values, cum_weights=self._up_to)[0]


def weighted(text: str) -> dict[str, float]:
    """Read `NAME[:WEIGHT],…`; without a weight it is 1.

    Raises:
        ValueError: a weight is no number, or a name is empty or given twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, colon, weight = part.strip().rpartition(":")
        if not colon:
            name, weight = weight, "1"
        try:
            value = float(weight)
        except ValueError:
            value = -1.0
        if not name or name in found or not 0 <= value < float("inf"):
            raise ValueError(f"`{part.strip()}` in `{text}`: expected NAME or NAME:WEIGHT, each once")
        found[name] = value
    return found


def batch_sizes(text: str, most: int) -> dict[int, float]:
    """Rows of a request with their weights: as `text` says, else by what the model takes at once.

    Args:
        text: `ROWS[:WEIGHT],…`; empty to go by the model.
        most: its `max_batch_size`; 0 if it does not say.

    Raises:
        ValueError: `text` names something that is no count of rows.
    """
    if text:
        found = {}
        for rows, weight in weighted(text).items():
            if not rows.isdecimal() or int(rows) < 1:
                raise ValueError(f"`{rows}` in `{text}` is no number of rows")
            found[int(rows)] = weight
        return found
    largest = min(most, _MOST_ROWS)
    # Single rows are most of what a gateway sees; each doubling of the rows is half as frequent.
    return {1: 1.0} | {2**at: 0.5 ** (at + 2) for at in range(1, 6) if 2**at <= largest}


class Asked(msgspec.Struct, frozen=True):
    """What requests of one model hold.

    `inputs` are those that are sent, `entity` is the one that names who is asked about (empty if
    none does), `outputs` what comes back.
    """

    model: str
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[str]
    entity: str
    rows: Mix[int]

    def feed(
        self, rows: int, who: Popularity, chance: random.Random
    ) -> dict[str, NDArray[Any]]:
        """One request's arrays by input: popular entities, and any numbers for what is none."""
        return {
            one.name: _filled(one, rows, who, chance, key=one.name == self.entity)
            for one in self.inputs
        }


def asked(
    model: str,
    declared: Sequence[TensorMetadata],
    outputs: Sequence[str],
    *,
    rows: Mix[int],
    entity: str = "",
) -> Asked:
    """Choose the inputs that are sent: those that have to be, and the entity.

    Args:
        model: its name.
        declared: every input, in the target's order (a Sluice declares entity keys first).
        outputs: names of what it answers.
        rows: how many a request has.
        entity: the input that names the entity; empty for the first that can.

    Raises:
        ValueError: the model has no input of that name, or none at all.
    """
    if not declared:
        raise ValueError(f"model `{model}` declares no input: nothing can be asked")
    names = [one.name for one in declared]
    if entity and entity not in names:
        raise ValueError(f"model `{model}` has no input `{entity}`; it has {', '.join(names)}")
    # Features may be sent along but need not: what has to be sent, or the key alone.
    needed = [one for one in declared if not one.optional]
    keys = [one for one in needed or declared if one.datatype in _KEYS and len(one.shape) == 1]
    key = entity or (keys[0].name if keys else "")
    chosen = needed or [one for one in declared if one.name == (key or names[0])]
    if key and key not in [one.name for one in chosen]:
        chosen = [*chosen, *(one for one in declared if one.name == key)]
    return Asked(model, chosen, outputs, key, rows)


def _filled(
    one: TensorMetadata, rows: int, who: Popularity, chance: random.Random, *, key: bool
) -> NDArray[Any]:
    # A first dimension that is not free is no batch: the model takes exactly so many.
    shape = [rows if at == 0 and size < 0 else max(1, size) for at, size in enumerate(one.shape)]
    count = int(np.prod(shape, dtype=np.int64))
    if key:
        drawn: list[Any] = who.draw(count, chance)
    elif one.datatype == "BYTES" or np.issubdtype(NUMPY_OF[one.datatype], np.integer):
        drawn = [chance.randrange(100) for _ in range(count)]
    elif one.datatype == "BOOL":
        drawn = [chance.random() < 0.5 for _ in range(count)]
    else:
        drawn = [chance.random() for _ in range(count)]
    if one.datatype == "BYTES":
        texts = np.empty(count, np.object_)
        texts[:] = [str(value).encode() for value in drawn]
        return texts.reshape(shape)
    if one.datatype == "BF16":  # the high half of an FP32
        return (np.asarray(drawn, np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(shape)
    return np.asarray(drawn).astype(NUMPY_OF[one.datatype]).reshape(shape)
