"""Rows as others write them, checked against a view: what fits, and why the rest does not.

Nothing here does I/O. `objects` takes JSON objects (pushes, streams); `tables.TableFile` makes
the same `Rows` of Parquet and CSV columns.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.codec import MAX_STRING_BYTES
from feature_cache.keys import ENTITY_RANGES, EntityValue
from feature_cache.views import FeatureView

__all__ = [
    "EVENT_TIME",
    "INTEGER_RANGES",
    "MAX_FLOAT32",
    "Reject",
    "Rows",
    "Unfit",
    "event_time_ms",
    "names_problem",
    "objects",
]

EVENT_TIME: Final = "event_time"
"""The name under which a row says when it was true."""

MAX_FLOAT32: Final = float(np.finfo(np.float32).max)
INTEGER_RANGES: Final = {
    f"int{bits}": (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64)
}
FUTURE_MS: Final = 60_000
"""A row further ahead than this is refused: it would keep every true row out until then."""


class Unfit(ValueError):
    """One value, or one row, that the view cannot take."""


class Reject(msgspec.Struct, frozen=True):
    """A row that does not fit: its number, counted from 0, and why."""

    row: int
    reason: str


class Rows(msgspec.Struct):
    """Rows that fit a view, by column, as `FeatureCache.write` takes them.

    Shapes: every column, mask and `event_ms` is [n]. `event_ms` is milliseconds since 1970.
    """

    entities: dict[str, list[EntityValue]]
    columns: dict[str, Any]
    nulls: dict[str, NDArray[np.bool_]]
    event_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.event_ms)


def objects(
    view: FeatureView, rows: Sequence[Any], now_ms: int
) -> tuple[Rows, list[int], list[Reject]]:
    """Check JSON objects: a value for every key and field, and perhaps `event_time`.

    Args:
        view: whose rows they are.
        rows: decoded JSON; `null` says that there is no value.
        now_ms: event time of rows that state none, milliseconds since 1970.

    Returns:
        The rows that fit, their numbers in `rows`, and the others with the reason.
    """
    taken: list[Mapping[str, Any]] = []
    times: list[int] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    for number, row in enumerate(rows):
        try:
            times.append(_checked(view, row, now_ms))
        except Unfit as error:
            rejects.append(Reject(number, str(error)))
        else:
            taken.append(row)
            numbers.append(number)
    columns: dict[str, Any] = {}
    nulls = {}
    for name, field in view.fields.items():
        values = [row[name] for row in taken]
        missing = [value is None for value in values]
        if any(missing):
            nulls[name] = np.array(missing, np.bool_)
            stand_in = "" if field.type == "string" else 0
            values = [stand_in if value is None else value for value in values]
        columns[name] = values
    entities = {name: [row[name] for row in taken] for name in view.entity}
    return Rows(entities, columns, nulls, np.array(times, np.int64)), numbers, rejects


def _checked(view: FeatureView, row: Any, now_ms: int) -> int:
    """The event time of a row that fits. Raises Unfit."""
    if not isinstance(row, dict):
        raise Unfit("a row is an object of names and values")
    known = {*view.entity, *view.fields}
    if problem := names_problem(view, row):
        raise Unfit(problem)
    for name in row.keys() - known - {EVENT_TIME}:
        raise Unfit(f"the view has no '{name[:64]}'{_suggestion(name, known)}")
    for name, kind in view.entity.items():
        _check_key(name, kind, row[name])
    for name, field in view.fields.items():
        value = row[name]
        if value is None:
            if view.on_missing == "reject":
                raise Unfit(f"no value for {name}, and the view rejects requests without one")
        else:
            _check_value(name, field.type, value)
    stated = row.get(EVENT_TIME)
    event_ms = now_ms if stated is None else event_time_ms(stated)
    if event_ms > now_ms + FUTURE_MS:
        raise Unfit(f"{EVENT_TIME} is {(event_ms - now_ms) / 1e3:,.0f} s in the future")
    return event_ms


def names_problem(view: FeatureView, names: Any) -> str:
    """Which keys and fields of a view are not among `names`; empty if all of them are."""
    missing = [name for name in (*view.entity, *view.fields) if name not in names]
    if not missing:
        return ""
    extra = set(names) - {*view.entity, *view.fields, EVENT_TIME}
    return f"no {', '.join(missing[:8])}{_suggestion(missing[0], extra)}"


def _suggestion(name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f" (is '{near[0]}' meant?)" if near else ""


def _check_key(name: str, kind: str, value: Any) -> None:
    if kind == "string":
        if not isinstance(value, str):
            raise Unfit(f"the key {name} is a string, not {_word(value)}")
        _utf8(f"the key {name}", value)
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit(f"the key {name} is {kind}, not {_word(value)}")
    low, high = ENTITY_RANGES[kind]
    if not low <= value <= high:
        raise Unfit(f"the key {name} is {kind}, and {value} is out of its range")


def _check_value(name: str, kind: str, value: Any) -> None:
    if kind == "string":
        if not isinstance(value, str):
            raise Unfit(f"{name} is a string, not {_word(value)}")
        if len(_utf8(name, value)) > MAX_STRING_BYTES:
            raise Unfit(f"{name} is longer than 1 MiB")
        return
    if kind == "bool":
        if not isinstance(value, bool):
            raise Unfit(f"{name} is true or false, not {_word(value)}")
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit(f"{name} is {kind}, not {_word(value)}")
    if kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[kind]
        if not isinstance(value, int) or not low <= value <= high:
            raise Unfit(f"{name} is {kind}, and {value} is none")
    elif abs(value) > (MAX_FLOAT32 if kind == "float32" else _MAX_FLOAT64):
        raise Unfit(f"{name} is {kind}, and {value} is too large for it")


def _utf8(what: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Unfit(f"{what} holds half of a surrogate pair, which is no character") from None


_MAX_FLOAT64: Final = float(np.finfo(np.float64).max)


def _word(value: Any) -> str:
    """What a JSON value is called."""
    if value is None:
        return "null"
    words = {bool: "true or false", int: "a number", float: "a number", str: "a string"}
    return words.get(type(value), "a list or object")


def event_time_ms(value: Any) -> int:
    """An event time: milliseconds since 1970, or ISO 8601; a time without a zone is UTC.

    Raises:
        Unfit: it is neither, or before 1970.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        event_ms = value
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise Unfit(
                f"{EVENT_TIME} '{value[:64]}' is neither ISO 8601 nor milliseconds since 1970"
            ) from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        event_ms = round(moment.timestamp() * 1e3)
    else:
        raise Unfit(f"{EVENT_TIME} is ISO 8601 or milliseconds since 1970, not {_word(value)}")
    if not 0 <= event_ms < 1 << 63:
        raise Unfit(f"{EVENT_TIME} is before 1970 or beyond all time")
    return event_ms
