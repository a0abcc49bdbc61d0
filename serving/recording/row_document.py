"""A row of the log as a document: what `log tail --json` and Kafka get."""

from typing import Any, Final

import orjson

__all__ = ["as_json", "document"]

_GROUPS: Final = {
    "entity": "entity",
    "feature": "features",
    "input": "inputs",
    "output": "outputs",
    "status": "feature_status",
    "age": "feature_age_seconds",
}


def document(row: dict[str, Any]) -> dict[str, Any]:
    """The columns all rows have, then `entity`, `features`, `outputs` and so on by name.

    Columns without a value are left out. `event_time` is a datetime in UTC.
    """
    found: dict[str, Any] = {}
    for column, value in row.items():
        kind, dot, name = column.partition(".")
        if value is None:
            continue
        if dot and kind in _GROUPS:
            found.setdefault(_GROUPS[kind], {})[name] = value
        else:
            found[column] = value
    return found


def as_json(document: dict[str, Any]) -> bytes:
    """One line of JSON. What is no number in JSON (NaN, infinity) is null; bytes are text."""
    return orjson.dumps(document, default=_other, option=orjson.OPT_UTC_Z)


def _other(value: object) -> object:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
