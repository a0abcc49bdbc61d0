"""What Locust's users ask: models, entities by popularity and batch sizes. Pure.

A request is made of what the target says of its model (OIP V2 metadata and, where it is offered,
the configuration extension), so that the same file tests any model.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.loadtest.answers import Expected
from serving.loadtest.reading import expected
from serving.loadtest.scenario import RequestKind
from serving.types import NUMPY_OF, TensorMetadata

__all__ = [
    "Asked", "Mix", "Popularity", "batch_sizes", "from_metadata", "from_scenario", "weighted",
]  # fmt: skip

T = TypeVar("T")

_KEYS: Final = ("INT32", "INT64", "UINT32", "UINT64", "BYTES")
"""Datatypes wide enough to name an entity."""

_MOST_ROWS: Final = 32
"""The largest batch that is tried unless one asks for more."""


class Popularity:
    """Zipf: the entity of rank k is asked for in proportion to k to the power of -`exponent`.

    A few entities make most of real traffic; caches and single hot keys show only then. 0 makes
    all entities alike. `entities` is how many there are, numbered by rank from `first` on.
    """

    def __init__(self, entities: int, exponent: float, first: int = 1) -> None:
        if entities < 1 or not 0 <= exponent < 10:
            raise ValueError(
                f"popularity of {entities} entities with exponent {exponent}: "
                "expected at least one entity and an exponent from 0 to 10"
            )
        self._first = first
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
        return [int(place) + self._first for place in np.minimum(places, len(self._up_to) - 1)]


class Mix(Generic[T]):
    """Values with weights, drawn by chance."""

    def __init__(self, weights: Iterable[tuple[T, float]]) -> None:
        pairs = list(weights)
        if not pairs or min(weight for _, weight in pairs) < 0 or not sum(w for _, w in pairs) > 0:
            raise ValueError("a mix needs a value with a weight above 0, and none below")
        self.values: Final = [value for value, _ in pairs]
        self._up_to = list(accumulate(weight for _, weight in pairs))

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
            raise ValueError(
                f"`{part.strip()}` in `{text}`: expected NAME or NAME:WEIGHT, each once"
            )
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


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request. `name` is what tables call it.

    `inputs` are those that are sent, `outputs` what comes back, `keys` says by input name how
    popular the entities are that it names.
    """

    name: str
    model: str
    version: str = ""
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[str]
    keys: Mapping[str, Popularity]
    rows: Mix[int]
    expected: Expected
    headers: Mapping[str, str] = {}

    def feed(self, chance: random.Random) -> dict[str, NDArray[Any]]:
        """One request's arrays by input: popular entities, and any numbers for what is none."""
        rows = self.rows.draw(chance)
        return {
            one.name: _filled(one, rows, self.keys.get(one.name), chance) for one in self.inputs
        }


def from_metadata(
    model: str,
    declared: Sequence[TensorMetadata],
    outputs: Sequence[str],
    *,
    rows: Mix[int],
    who: Popularity,
) -> Asked:
    """Choose what is sent by what the target says of a model: what has to be, else one entity key.

    Args:
        model: its name.
        declared: every input, in the target's order (a Sluice declares entity keys first).
        outputs: names of what it answers.
        rows: how many a request has.
        who: how popular entities are.

    Raises:
        ValueError: the model declares no input.
    """
    if not declared:
        raise ValueError(f"model `{model}` declares no input: nothing can be asked")
    # Features may be sent along but need not: what has to be sent, or the key alone.
    needed = [one for one in declared if not one.optional]
    keys = [one for one in needed or declared if one.datatype in _KEYS and len(one.shape) == 1]
    chosen = needed or keys[:1] or list(declared[:1])
    popular = {keys[0].name: who} if keys else {}
    return Asked(
        name=model,
        model=model,
        inputs=chosen,
        outputs=outputs,
        keys=popular,
        rows=rows,
        # Whether it takes batches at all is its own affair.
        expected=Expected(model=model, rows=False),
    )


def from_scenario(
    kind: RequestKind, declared: Sequence[TensorMetadata], outputs: Sequence[str]
) -> Asked:
    """What a scenario's kind asks; inputs that have to be sent and are no entity get any numbers.

    Raises:
        ValueError: it needs what only `sluice loadtest` does, or names an input the model lacks.
    """
    name = kind.name or ":".join(filter(None, (kind.model, kind.version)))
    if kind.body or any(entity.file for entity in kind.entity.values()):
        raise ValueError(
            f"request `{name}`: `body` and `entity.….file` are for `sluice loadtest`; "
            "say `keys` and `first` instead"
        )
    names = [one.name for one in declared]
    for key in kind.entity:
        if key not in names:
            raise ValueError(
                f"request `{name}`: model `{kind.model}` has no input `{key}`; "
                f"it has {', '.join(names)}"
            )
    return Asked(
        name=name,
        model=kind.model,
        version=kind.version,
        inputs=[one for one in declared if one.name in kind.entity or not one.optional],
        outputs=outputs,
        keys={key: Popularity(one.keys, one.zipf, one.first) for key, one in kind.entity.items()},
        rows=Mix((rows, 1.0) for rows in kind.rows),
        expected=expected(kind),
        headers=kind.headers,
    )


def _filled(
    one: TensorMetadata, rows: int, who: Popularity | None, chance: random.Random
) -> NDArray[Any]:
    # A first dimension that is not free is no batch: the model takes exactly so many.
    shape = [rows if at == 0 and size < 0 else max(1, size) for at, size in enumerate(one.shape)]
    count = int(np.prod(shape, dtype=np.int64))
    if who is not None:
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
        return (
            (np.asarray(drawn, np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(shape)
        )
    return np.asarray(drawn).astype(NUMPY_OF[one.datatype]).reshape(shape)
