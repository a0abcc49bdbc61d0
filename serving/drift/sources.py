"""Read what a reference is frozen from: a Parquet or CSV table, or the prediction log.

The only part of the package that touches files; the rest is given arrays.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.drift.columns import output_columns
from serving.recording.layout import LogFolder
from serving.recording.reading import OpenLog

__all__ = ["LogRows", "UnfitSource", "log_tables", "read_log", "read_table"]

_ROWS: Final = 131_072
_HOUR_US: Final = 3_600_000_000
_NUMBERS: Final = "bhilBHILefd"


class UnfitSource(ValueError):
    """No reference can be made of it. The message says what to do."""


class LogRows(msgspec.Struct):
    """Answered rows of one version in the prediction log.

    `features` and `outputs` hold columns of shape [rows]; `hours` the hour of each row since
    1970; `statuses` rows by view and status.
    """

    features: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    hours: NDArray[np.int64]
    statuses: dict[str, dict[str, int]]


def read_table(path: Path) -> dict[str, NDArray[Any]]:
    """Every column of a table that can be binned, by name; shape [rows], or [rows, k] of lists.

    Args:
        path: Parquet (`.parquet`, `.pq`) or CSV (`.csv`), with a line of names.

    Raises:
        UnfitSource: it is neither, or cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            table = pacsv.read_csv(path)
        elif suffix in {".parquet", ".pq"}:
            table = pq.read_table(path)
        else:
            raise UnfitSource(f"{path.name} ends in neither .parquet nor .csv")
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UnfitSource(f"{path.name} cannot be read: {reason}") from error
    return _arrays(table, table.column_names)


def read_log(folder: Path, model: str, version: str) -> LogRows:
    """Every answered production row of a version in the log's Parquet files.

    Args:
        folder: the log's directory, which holds `parquet/`.
        model: whose rows.
        version: the version that answered.

    Raises:
        UnfitSource: there are no such rows, or they cannot be read.
    """
    root = folder / "parquet" / f"model={model}"
    files = sorted(root.glob("hour=*/*.parquet"))
    if not files:
        raise UnfitSource(
            f"the log holds no Parquet file of `{model}`; rows become Parquet when their segment "
            "is sealed (`log.segment_age`)"
        )
    wanted = (
        (pc.field("version") == version)
        & (pc.field("role") == "production")
        & (pc.field("code") == "OK")
    )
    try:
        schema = pa.unify_schemas([pq.read_schema(file) for file in files])
        table = pads.dataset(files, schema=schema, format="parquet").to_table(filter=wanted)
    except (OSError, pa.ArrowException) as error:
        raise UnfitSource(f"the log cannot be read: {str(error).splitlines()[0]}") from error
    if not table.num_rows:
        raise UnfitSource(f"the log holds no production answer of version `{version}`")
    times = table["event_time"].cast(pa.int64()).to_numpy()
    arrays = _arrays(table, table.column_names)
    return LogRows(
        features=_under("feature.", arrays),
        outputs={
            name: column
            for output, values in _under("output.", arrays).items()
            for name, column in output_columns(output, values).items()
        },
        hours=times // _HOUR_US,
        statuses={
            view: dict(Counter(str(one or "") for one in values))
            for view, values in _under("status.", arrays).items()
        },
    )


def log_tables(
    log: LogFolder, model: str, names: Iterable[str], since: float, damages: list[str]
) -> Iterator[pa.Table]:
    """Rows of a model that were answered from some time on, a bounded number at a time.

    Args:
        log: the log; segments that are still being written are read too.
        model: whose rows.
        names: columns that are wanted, as far as a file has them.
        since: seconds since 1970.
        damages: what could not be read is added, in words.

    Raises:
        OSError: the log cannot be read.
    """
    wanted = list(names)
    begin = pa.scalar(int(since * 1e6), pa.timestamp("us", "UTC"))
    with OpenLog(log, [model], since=since) as opened:
        for segment in opened.segments:
            batches = opened.contents(segment).batches
            if batches:
                yield _since(pa.Table.from_batches(batches), wanted, begin)
        for file in list(opened.parquet):
            try:
                with pq.ParquetFile(file.pinned, page_checksum_verification=True) as source:
                    own = [name for name in wanted if name in source.schema_arrow.names]
                    for batch in source.iter_batches(_ROWS, columns=own):
                        yield _since(pa.Table.from_batches([batch]), own, begin)
            except (pa.ArrowException, OSError) as error:
                opened.exclude(file, str(error))
        damages += [f"{one.file}: {one.reason}" for one in opened.damages]


def _since(table: pa.Table, names: Sequence[str], begin: pa.Scalar) -> pa.Table:
    own = [name for name in names if name in table.column_names]
    return table.select(own).filter(pc.greater_equal(table["event_time"], begin))


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def _arrays(table: pa.Table, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    found = {}
    for name in names:
        values = _array(table[name].combine_chunks())
        if values is not None:
            found[name] = values
    return found


def _array(column: pa.Array) -> NDArray[Any] | None:
    """Numbers with NaN for null, texts with None, lists of one length as [rows, k]; else None."""
    if isinstance(column, pa.ChunkedArray):  # no rows, or more text than one chunk holds
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_boolean(kind):
        if not column.null_count:
            values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
            return values
        column = column.cast(pa.float32())
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _matrix(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), object)
    values = column.to_numpy(zero_copy_only=False)
    return values if values.dtype.char in _NUMBERS else None


def _matrix(column: pa.Array) -> NDArray[Any] | None:
    inner = _array(column.flatten())
    rows = len(column)
    if inner is None or not rows or column.null_count or len(inner) % rows:
        return None
    lengths = pc.unique(pc.list_value_length(column))
    return inner.reshape(rows, -1) if len(lengths) == 1 else None
