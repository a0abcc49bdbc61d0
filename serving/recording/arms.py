"""Joined rows as units of a comparison of two versions: who was drawn for which, and what was lost.

Needs the temporary table `joined`, made with `JoinPlan.units` (`serving.recording.joined`). A unit
is a key, or a request that was drawn by itself. It counts once: by its rows at the probability and
with the version of its first one, since a key that moved to the canary when the weight rose was
not drawn again.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.recording.joined import fetch
from serving.recording.losses import Loss

if TYPE_CHECKING:
    import duckdb

__all__ = ["Pairs", "Units", "labelled_rows", "labelled_units", "loss_pairs", "loss_units"]

_ARMS: Final = """
    why IN ('assigned', 'random') AND p > 0 AND p < 1
    AND (role = 'canary' AND version = $canary OR role = 'production' AND version = $production)
"""
# 1 - (1 - ρ) is not ρ to the last bit.
_ARM: Final = "role = 'canary' AS arm, round(if(role = 'canary', p, 1 - p), 9) AS rho"
_NO_SLICE: Final = "''"


class Units(NamedTuple):
    """Units of both versions, one place each, in order."""

    value: NDArray[np.float64]
    """Mean over the unit's rows."""

    canary: NDArray[np.bool_]
    rho: NDArray[np.float64]
    """Probability of the canary, above 0 and below 1."""

    slice: NDArray[Any]
    """Text; a unit is there once in each slice that it has rows of."""


class Pairs(NamedTuple):
    """Units whose rows were predicted by both versions, in order."""

    canary: NDArray[np.float64]
    production: NDArray[np.float64]
    """Mean losses over the same rows."""

    slice: NDArray[Any]


def loss_units(
    connection: "duckdb.DuckDBPyConnection", loss: Loss, sides: tuple[str, str], sliced: str = ""
) -> Units:
    """Losses of drawn units, in the order in which their first label came.

    Args:
        connection: it has the table.
        loss: of a row.
        sides: the versions: canary, production.
        sliced: column of `joined` to tell slices by.
    """
    where = f"labelled AND ({loss.where})"
    return _units(connection, sides, value=loss.value, where=where, order="revision", sliced=sliced)


def labelled_units(
    connection: "duckdb.DuckDBPyConnection", sides: tuple[str, str], *, before: float
) -> Units:
    """Of drawn units the share of rows with a label, in the order of their first prediction.

    Args:
        connection: it has the table.
        sides: the versions: canary, production.
        before: only predictions made before this, seconds since 1970.
    """
    where = f"made < {before!r}"
    return _units(connection, sides, value="labelled", where=where, order="made", sliced="")


def loss_pairs(
    connection: "duckdb.DuckDBPyConnection", loss: Loss, sides: tuple[str, str], sliced: str = ""
) -> Pairs:
    """Losses of shadow copies and of the answers they were compared with; as `loss_units`."""
    slice_ = _slice_of(sliced)
    found = connection.execute(
        f"""
        WITH lost AS (
            SELECT pair, unit, role, revision, ({loss.value})::DOUBLE AS loss, {slice_} AS slice
            FROM joined WHERE labelled AND ({loss.where}) AND (
                role = 'shadow' AND version = $canary OR role = 'production'
                AND version = $production AND why NOT IN ('version', 'override')
            )
        )
        SELECT avg(c.loss) AS canary, avg(p.loss) AS production, p.slice AS slice
        FROM lost c JOIN lost p ON c.pair = p.pair
        WHERE c.role = 'shadow' AND p.role = 'production'
        GROUP BY p.unit, p.slice ORDER BY min(p.revision), p.unit
        """,  # noqa: S608 - made of this package's own words
        {"canary": sides[0], "production": sides[1]},
    ).fetchnumpy()
    return Pairs(
        np.asarray(found["canary"], np.float64),
        np.asarray(found["production"], np.float64),
        np.asarray(found["slice"]),
    )


def labelled_rows(connection: "duckdb.DuckDBPyConnection", canary: str) -> tuple[int, float | None]:
    """Rows of the canary with a label, copies among them; and the median delay of all labels."""
    [row] = fetch(
        connection,
        """
        SELECT count(*) FILTER (labelled AND version = $canary AND role IN ('canary', 'shadow'))
            AS labels, median(delay) AS delay
        FROM joined
        """,
        canary=canary,
    )
    return row["labels"], row["delay"]


def _units(
    connection: "duckdb.DuckDBPyConnection",
    sides: tuple[str, str],
    *,
    value: str,
    where: str,
    order: str,
    sliced: str,
) -> Units:
    found = connection.execute(
        f"""
        WITH drawn AS (
            SELECT unit, {_ARM}, {_slice_of(sliced)} AS slice, {order} AS place,
                ({value})::DOUBLE AS value
            FROM joined WHERE {_ARMS} AND {where}
        ), firsts AS (
            SELECT unit, arg_min({{'arm': arm, 'rho': rho}}, place) AS first
            FROM drawn GROUP BY unit
        )
        SELECT avg(d.value) AS value, any_value(d.arm) AS arm, any_value(d.rho) AS rho, d.slice
        FROM drawn d JOIN firsts f ON d.unit = f.unit
        WHERE d.arm = f.first.arm AND d.rho = f.first.rho
        GROUP BY d.unit, d.slice ORDER BY min(d.place), d.unit
        """,  # noqa: S608 - made of this package's own words
        {"canary": sides[0], "production": sides[1]},
    ).fetchnumpy()
    return Units(
        np.asarray(found["value"], np.float64),
        np.asarray(found["arm"], np.bool_),
        np.asarray(found["rho"], np.float64),
        np.asarray(found["slice"]),
    )


def _slice_of(column: str) -> str:
    return f"coalesce({column}, '(none)')" if column else _NO_SLICE
