"""Arrow columns as a view's types: whole columns where they fit, values named where they do not."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_cache.codec import MAX_STRING_BYTES
from feature_cache.ingest import INTEGER_RANGES, MAX_FLOAT32, Unfit, event_time_ms

__all__ = ["Column", "convert", "convert_times", "could_be"]


class Column:
    """Values of one field, where there are none, and which do not fit."""

    def __init__(self, values: Any, nulls: NDArray[np.bool_]) -> None:
        self.values = values
        self.nulls = nulls
        self.bad: dict[int, str] = {}


def could_be(found: Any, kind: str) -> bool:
    """Whether values of a Parquet type may be values of a view's; `time` is an event time."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    text = pa.types.is_string(found) or pa.types.is_large_string(found)
    if kind == "time":
        return bool(text or pa.types.is_temporal(found) or pa.types.is_integer(found))
    if kind == "string":
        return bool(text)
    if kind == "bool":
        return bool(pa.types.is_boolean(found))
    return bool(
        pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    )


def convert(name: str, array: Any, kind: str) -> Column:
    """One column as the view's type."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    if kind == "string":
        texts = array.cast(pa.string()).fill_null("").to_pylist()
        column = Column(texts, nulls)
        long = pc.greater(pc.binary_length(array.cast(pa.string())), MAX_STRING_BYTES)
        for row in np.flatnonzero(long.fill_null(False).to_numpy(zero_copy_only=False)).tolist():
            column.bad[row] = f"{name} is longer than 1 MiB"
            texts[row] = ""
        return column
    bad: dict[int, str] = {}
    if kind == "bool":
        wanted = pa.bool_()
    else:
        wanted = pa.int64() if kind in INTEGER_RANGES else pa.float64()
    if pa.types.is_string(array.type):
        array = _parsed(name, array, kind, wanted, bad)
    elif pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    elif pa.types.is_null(array.type):
        array = array.cast(wanted)
    values = array.fill_null(False if kind == "bool" else 0).to_numpy(zero_copy_only=False)
    column = Column(values, nulls)
    column.bad = bad
    if kind == "bool":
        return column
    unfit = _unfit(values, kind)
    for row in np.flatnonzero(unfit).tolist():
        column.bad.setdefault(row, f"{name} is {kind}, and {values[row]} is none")
    with np.errstate(over="ignore", invalid="ignore"):
        column.values = np.where(unfit, 0, values).astype(kind)
    return column


def _unfit(values: Any, kind: str) -> Any:
    """Where numbers are none of the type: out of range, or not whole."""
    if kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[kind]
        if values.dtype.kind == "f":
            # 2^63 - 1 is no float64; the next one is 2^63, which no int64 holds.
            within = (values >= low) & (values <= high) & (values < 2.0**63)
            return ~(within & (np.floor(values) == values))
        if values.dtype.kind == "u":
            return values > np.uint64(high)
        return (values < low) | (values > high)
    if kind == "float32" and values.dtype == np.float64:
        return np.isfinite(values) & (np.abs(values) > MAX_FLOAT32)
    return np.zeros(len(values), np.bool_)


def _parsed(name: str, texts: Any, kind: str, wanted: Any, bad: dict[int, str]) -> Any:
    """Text as numbers: at once, or one by one where some are none."""
    trimmed = pc.utf8_trim_whitespace(texts)
    try:
        return trimmed.cast(wanted)
    except pa.ArrowInvalid:
        pass
    values: list[Any] = []
    for row, text in enumerate(trimmed.to_pylist()):
        try:
            values.append(pa.array([text], pa.string()).cast(wanted)[0].as_py())
        except pa.ArrowInvalid:
            bad[row] = f"{name} is {kind}, and '{text[:64]}' is none"
            values.append(None)
    return pa.array(values, wanted)


def convert_times(array: Any) -> Column:
    """Event times as milliseconds since 1970; integers are that already."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    bad: dict[int, str] = {}
    if pa.types.is_string(array.type):
        array = _parsed_times(array, bad)
    elif pa.types.is_temporal(array.type):
        array = array.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    column = Column(array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64), nulls)
    column.bad = bad
    return column


def _parsed_times(texts: Any, bad: dict[int, str]) -> Any:
    for kind in (pa.int64(), pa.timestamp("ms"), pa.timestamp("ms", "UTC")):
        try:
            return texts.cast(kind).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
    values: list[int | None] = []
    for row, text in enumerate(texts.to_pylist()):
        try:
            whole = text is not None and text.strip().lstrip("-").isdigit()
            values.append(None if text is None else event_time_ms(int(text) if whole else text))
        except Unfit as error:
            bad[row] = str(error)
            values.append(0)
    return pa.array(values, pa.int64())
