"""The prediction log of a model as a view that SQL can be asked of."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

__all__ = ["log_relation", "quoted"]

_EMPTY: Final = """
    SELECT NULL::VARCHAR AS prediction_id, NULL::INTEGER AS "row", NULL::TIMESTAMPTZ AS event_time,
    NULL::VARCHAR AS version, NULL::VARCHAR AS role, NULL::VARCHAR AS code,
    NULL::DOUBLE AS sample_weight, NULL::VARCHAR AS "hour" WHERE false
"""


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def log_relation(connection: "duckdb.DuckDBPyConnection", log_dir: Path, model: str) -> None:
    """Register a view named like the model over its rows of the log.

    A model without rows gets a view without rows. Column `hour` is the folder's, UTC, so that a
    condition on it leaves whole folders unopened.
    """
    folder = log_dir / "parquet" / f"model={model}"
    body = _EMPTY
    if any(folder.glob("hour=*/*.parquet")):
        pattern = str(folder / "hour=*" / "*.parquet").replace("'", "''")
        body = (
            f"SELECT * FROM read_parquet('{pattern}', union_by_name=true, "  # noqa: S608 - quoted
            "hive_partitioning=true, hive_types={'hour': VARCHAR})"
        )
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(model)} AS {body}")
