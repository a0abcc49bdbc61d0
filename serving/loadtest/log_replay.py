"""Requests of the prediction log: when they came, and which entities they were about."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.errors import SluiceError
from serving.loadtest.scenario import LogReplay
from serving.recording.query import Query
from serving.recording.views import quoted

__all__ = ["CannotReplay", "Recorded", "read_log"]

_MEMORY: Final = 1 << 30
_SECONDS: Final = 300.0


class CannotReplay(SluiceError):
    """The log has no such requests, or keeps what is needed in another form."""


class Recorded(msgspec.Struct, frozen=True):
    """Requests in the order of their times.

    `times` in seconds since 1970, `first` the first row of each request, `rows` how many it has;
    `keys` a value a row by entity.
    """

    times: NDArray[np.float64]
    first: NDArray[np.int64]
    rows: NDArray[np.int64]
    keys: dict[str, list[Any]]


def read_log(folder: Path, replay: LogReplay, entities: list[str]) -> Recorded:
    """Read times and the keys of `entities`.

    Raises:
        CannotReplay: there are none, or a time in the scenario is not one.
        QueryFailed: the log cannot be asked, or has no such model or column.
    """
    columns = "".join(f", {quoted(name)}" for name in entities)
    # A shadow's row is a copy that the gateway made; a request that was refused before its keys
    # were read cannot be asked again.
    known = "".join(f" AND (code = 'OK' OR {quoted(name)} IS NOT NULL)" for name in entities)
    sql = (  # all names are quoted, and the query can only read
        f'SELECT epoch(event_time) AS at, "row"{columns} FROM {quoted(replay.model)} '  # noqa: S608
        f"WHERE role <> 'shadow'{known} "
        f'ORDER BY event_time, prediction_id, "row" LIMIT {replay.at_most}'
    )
    since, until = _moment(replay.since), _moment(replay.until)
    times: list[float] = []
    places: list[int] = []
    keys: dict[str, list[Any]] = {name: [] for name in entities}
    # Files of other times are left unread, and with them the names of the columns.
    counted = _answer(folder, f"SELECT count(*) FROM {quoted(replay.model)}", since, until)  # noqa: S608
    if any(count for batch in counted for count in batch.column(0).to_pylist()):
        for batch in _answer(folder, sql, since, until):
            times += batch.column(0).to_pylist()
            places += batch.column(1).to_pylist()
            for place, name in enumerate(entities, 2):
                keys[name] += batch.column(place).to_pylist()
    if not times:
        raise CannotReplay(f"the log has no request of `{replay.model}` in that time")
    for name, values in keys.items():
        if any(value is None for value in values):
            without = sum(value is None for value in values)
            raise CannotReplay(
                f"{without} of {len(values)} rows of the log have no `{name}`, as those requests "
                "brought their features themselves; ask with a `body` instead"
            )
    first = [i for i, place in enumerate(places) if not i or place == 0]
    rows = np.diff([*first, len(places)])
    if len(places) == replay.at_most and len(first) > 1:
        first, rows = first[:-1], rows[:-1]  # its other rows may have been cut off
    return Recorded(np.array(times)[first], np.array(first), rows, keys)


def _answer(folder: Path, sql: str, since: float | None, until: float | None) -> list[Any]:
    with Query(folder, sql, memory=_MEMORY, timeout=_SECONDS, since=since, until=until) as asked:
        return list(asked.batches())


def _moment(text: str) -> float | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CannotReplay(f"`{text}` is no time such as 2026-11-29T19:00:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
