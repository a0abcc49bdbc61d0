"""Rows to Delta Lake: a table for each model, partitioned by hour.

Columns are named as in the log, with `_` for the first dot (`feature_AGEP`); `source_file` says
which file of the log a row comes from. A file replaces its own rows in one commit, so that sent
again, or written anew because rows were erased, it leaves no duplicates. (What a commit replaced is
in the table's history until `vacuum`.)
"""

from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from serving.recording.shipping.target import Consignment, ShippingFailed, required

__all__ = ["DeltaTarget", "fitted"]

_SIGNED: Final = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}
"""Delta Lake has no unsigned integers."""


class DeltaTarget:
    """A folder of tables.

    Args:
        root: a directory, or an address that deltalake knows (`s3://BUCKET/PREFIX`).
        options: its storage options.

    Raises:
        ExtraMissing: deltalake is not installed.
    """

    def __init__(self, root: str, options: dict[str, str]) -> None:
        self._delta = required("deltalake")
        self._errors = required("deltalake.exceptions")
        self._root = root.rstrip("/")
        self._options = options or None

    def ship(self, consignment: Consignment) -> int:
        """Commit one file."""
        address = f"{self._root}/{consignment.model}"
        try:
            rows = fitted(pq.read_table(consignment.path, partitioning=None), consignment)
            self._write(address, rows, consignment.file)
        except (self._errors.DeltaError, OSError, pa.ArrowException) as error:
            raise ShippingFailed(f"{address} did not take {consignment.file}: {error}") from error
        return int(rows.num_rows)

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, address: str, rows: pa.Table, file: str) -> None:
        write: Any = self._delta.write_deltalake
        try:
            table = self._delta.DeltaTable(address, storage_options=self._options)
        except self._errors.TableNotFoundError:
            write(address, rows, partition_by=["hour"], storage_options=self._options)
            return
        quoted = file.replace("'", "''")
        write(
            table,
            rows,
            mode="overwrite",
            predicate=f"source_file = '{quoted}'",
            schema_mode="merge",
            storage_options=self._options,
        )


def fitted(rows: pa.Table, consignment: Consignment) -> pa.Table:
    """Rows of a file as Delta Lake takes them: signed, without dots, with where they come from."""
    columns: dict[str, Any] = {
        "source_file": pa.repeat(consignment.file, rows.num_rows),
        "hour": pa.repeat(consignment.hour, rows.num_rows),
    }
    for field in rows.schema:
        kind = _signed(field.type)
        column = rows[field.name]
        columns[field.name.replace(".", "_", 1)] = (
            column if kind == field.type else column.cast(kind)
        )
    return pa.table(columns)


def _signed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_signed(kind.value_type))
    return _SIGNED.get(kind, kind)
