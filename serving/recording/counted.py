"""Joined rows as columns, a part of them at a time, told apart by what is asked for.

Needs the temporary table `joined` (`serving.recording.joined`). A part holds all rows of the
clusters in it, so what is counted of the parts adds up.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from serving.recording.joined import fetch

if TYPE_CHECKING:
    import duckdb

__all__ = ["groups_of", "parts_of", "top_values"]

_PART_ROWS: Final = 500_000
"""Rows in memory at a time: about 100 MiB with all that is made of them."""

_NUMBER: Final = "coalesce({0}, 'NaN')::DOUBLE"


def groups_of(
    connection: "duckdb.DuckDBPyConnection", keys: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Every combination of keys that is there, in order; makes the table `groups` of them.

    Args:
        connection: it has the table `joined`.
        keys: names and what they are, in SQL over `joined`.
    """
    named = ", ".join(f"{what} AS key_{name}" for name, what in keys.items()) or "0 AS key_"
    order = ", ".join(f"key_{name}" for name in keys) or "key_"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE groups AS
        SELECT *, row_number() OVER (ORDER BY {order}) - 1 AS number
        FROM (SELECT DISTINCT {named} FROM joined)
        """  # noqa: S608 - made of our own words and quoted names
    )
    rows = fetch(connection, "SELECT * FROM groups ORDER BY number")
    return [{name: row[f"key_{name}"] for name in keys} for row in rows]


def parts_of(
    connection: "duckdb.DuckDBPyConnection",
    keys: Mapping[str, str],
    *,
    now: float,
    horizon: float,
    where: str = "true",
) -> Iterator[dict[str, Any]]:
    """Columns of all rows, as `serving.performance.measures.Rows` has them.

    Args:
        connection: it has the table `groups` of the same keys.
        keys: as in `groups_of`.
        now: seconds since 1970.
        horizon: seconds after which a row is due.
        where: only these rows.
    """
    [size] = fetch(connection, "SELECT count(*) AS rows FROM joined")
    parts = size["rows"] // _PART_ROWS + 1
    match = " AND ".join(f"{what} IS NOT DISTINCT FROM g.key_{name}" for name, what in keys.items())
    numbers = ", ".join(
        f'{_NUMBER.format(what)} AS "{name}"'
        for name, what in {
            "truth": "j.y",
            "right": "if(j.labelled, coalesce(j.d = j.y, j.dt = j.yt), NULL)::DOUBLE",
            "decision": "j.d",
            "score": "j.s",
            "delay": "j.delay",
        }.items()
    )
    for part in range(parts):
        yield connection.execute(
            f"""
            SELECT g.number AS "group", j.c AS cluster, j.w AS weight, j.labelled, {numbers},
                {now!r} - j.made AS age, {now!r} - j.made > {horizon!r} AS due
            FROM joined j JOIN groups g ON {match or "true"}
            WHERE j.c % {parts} = {part} AND ({where})
            """  # noqa: S608 - made of our own words and quoted names
        ).fetchnumpy()


def top_values(
    connection: "duckdb.DuckDBPyConnection", column: str, most: int
) -> tuple[list[str], bool]:
    """The `most` most frequent values of a slice column, and whether there are others."""
    rows = fetch(
        connection,
        f"SELECT {column} AS value, count(*) AS n FROM joined WHERE {column} IS NOT NULL "  # noqa: S608
        f"GROUP BY 1 ORDER BY n DESC, value LIMIT {most + 1}",
    )
    return [str(row["value"]) for row in rows[:most]], len(rows) > most
