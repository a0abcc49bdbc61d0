"""One request as the pipeline hands it over: references only, nothing copied."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from numpy.typing import NDArray

from feature_cache.assembly import Batch
from serving.recording import record
from serving.recording.recorder import Entry
from serving.recording.row_plan import RowPlan
from serving.types import Tensor

__all__ = ["Offer", "rows_of"]


class Offer(msgspec.Struct, gc=False):
    """What the log is made of. Arrays are those of the request: nobody changes them any more."""

    plan: RowPlan
    head: Entry
    """The fields of a `PredictionRecord`."""

    seconds: tuple[float, ...]
    """Durations of `STATIONS`; those of a refused request are 0 but for the whole."""

    traceparent: str | None
    inputs: list[Tensor]
    """What the client sent."""

    feed: dict[str, NDArray[Any]] | None
    """What the model was given; None: it was refused before."""

    batch: Batch | None
    """What the store said."""

    names: tuple[str, ...]
    outputs: Sequence[NDArray[Any]] | None
    """Outputs in the order of `names`; None: there are none."""

    size: int = 0
    """About how many bytes this keeps in memory; whoever keeps it says so."""

    @property
    def role(self) -> str:
        """Role of the version that answered; empty if none was picked."""
        return self.head[record.ROLE]  # type: ignore[return-value]

    @property
    def fine(self) -> bool:
        """Whether it was answered."""
        return self.head[record.CODE] == "OK"

    @property
    def rows(self) -> int:
        """Rows in the log: instances, and one for a request that was refused before it had any."""
        return self.head[record.ROWS] or 1  # type: ignore[return-value]


class _Headed(Protocol):
    @property
    def head(self) -> Entry: ...


def rows_of(offers: Sequence[_Headed]) -> list[int]:
    """`rows` of each; a property would cost as much again as the rest of the walk."""
    place = record.ROWS
    return [offer.head[place] or 1 for offer in offers]  # type: ignore[misc]
