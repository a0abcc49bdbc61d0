"""Joined rows become sums: what `serving.performance.counts` is made of, by SQL.

Needs the temporary table `joined` (`serving.recording.joined`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.recording.joined import fetch

if TYPE_CHECKING:
    import duckdb

__all__ = ["SUMS", "Bin", "Measure", "count", "count_scores", "delays", "measures_of", "top_values"]

SUMS: Final = ("rows", "clusters", "w", "wx", "ww", "wwx", "wwxx")
"""What is summed of a measure; the fields of `Moments`."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the rows that fulfil a condition; both in SQL over `joined`."""

    name: str
    value: str
    where: str


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of one score bin: of rows that came true, that did not, and of score."""

    place: int
    positive: float
    negative: float
    score: float


_TRUTH: Final = "y IN (0, 1)"
_SCORED: Final = f"s BETWEEN 0 AND 1 AND {_TRUTH}"
# A score of 0 for what came true is infinitely wrong; as in scikit-learn the worst is one machine
# epsilon of float32 away from it.
_LOST: Final = "-ln(greatest(if(y = 1, s, 1 - s), 1.1920929e-07))"
_BINARY: Final = (
    Measure(name="accuracy", value="(d = y)", where=f"d IS NOT NULL AND {_TRUTH}"),
    Measure(name="selection_rate", value="(d = 1)", where="d IS NOT NULL"),
    Measure(name="recall", value="(d = 1)", where="d IS NOT NULL AND y = 1"),
    Measure(name="false_positive_rate", value="(d = 1)", where="d IS NOT NULL AND y = 0"),
    Measure(name="precision", value="y", where=f"d = 1 AND {_TRUTH}"),
    Measure(name="base_rate", value="y", where=_TRUTH),
)
_SCORES: Final = (
    Measure(name="calibration_gap", value="s - y", where=_SCORED),
    Measure(name="brier", value="(s - y) * (s - y)", where=_SCORED),
    Measure(name="log_loss", value=_LOST, where=_SCORED),
    # AUC needs these two over the rows that have a score.
    Measure(name="scored_true", value="1", where=f"{_SCORED} AND y = 1"),
    Measure(name="scored_false", value="1", where=f"{_SCORED} AND y = 0"),
)
_MULTICLASS: Final = (
    Measure(
        name="accuracy",
        value="coalesce(d = y, dt = yt)",
        where="labelled AND coalesce(d = y, dt = yt) IS NOT NULL",
    ),
)
_REGRESSION: Final = (
    Measure(name="absolute_error", value="abs(d - y)", where="isfinite(d) AND isfinite(y)"),
    Measure(name="squared_error", value="(d - y) * (d - y)", where="isfinite(d) AND isfinite(y)"),
    Measure(name="bias", value="d - y", where="isfinite(d) AND isfinite(y)"),
)


def measures_of(task: str, *, scored: bool) -> list[Measure]:
    """What is measured of a task, with a score or without; nothing of an unknown one."""
    if task == "binary":
        return [*_BINARY, *(_SCORES if scored else ())]
    return list({"multiclass": _MULTICLASS, "regression": _REGRESSION}.get(task, ()))


def count(
    connection: "duckdb.DuckDBPyConnection",
    keys: Mapping[str, str],
    measures: Sequence[Measure],
    where: str = "true",
) -> list[dict[str, Any]]:
    """Count every measure for each combination of keys.

    Args:
        connection: it has the table `joined`.
        keys: names and what they are, in SQL over `joined`.
        measures: what.
        where: only these rows.

    Returns:
        One mapping a group: every key, `rows`, `labelled`, and `MEASURE.SUM` for each of `SUMS`.
    """
    named = [f"{what} AS {name}" for name, what in keys.items()]
    inner = [*named, "c", "count(*) AS n", "count(*) FILTER (labelled) AS told"]
    outer = [*keys, "sum(n)::BIGINT AS rows", "sum(told)::BIGINT AS labelled"]
    for place, one in enumerate(measures):
        inner += [
            f"count(*) FILTER ({one.where}) AS n{place}",
            f"sum(w) FILTER ({one.where}) AS w{place}",
            f"sum(w * ({one.value})::DOUBLE) FILTER ({one.where}) AS x{place}",
        ]
        w, x = f"w{place}", f"x{place}"
        sums = (
            f"sum(n{place})::BIGINT", f"count({w})", f"sum({w})", f"sum({x})",
            f"sum({w} * {w})", f"sum({w} * {x})", f"sum({x} * {x})",
        )  # fmt: skip
        outer += [
            f'coalesce({of}, 0) AS "{one.name}.{name}"' for name, of in zip(SUMS, sums, strict=True)
        ]
    by = f"GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)}" if keys else ""
    query = f"""
        SELECT {", ".join(outer)} FROM (
            SELECT {", ".join(inner)} FROM joined WHERE {where}
            GROUP BY {", ".join([*keys, "c"])}
        ) {by}
    """  # noqa: S608 - made of this file's own words and quoted names
    return fetch(connection, query)


def count_scores(
    connection: "duckdb.DuckDBPyConnection",
    keys: Mapping[str, str],
    *,
    per_unit: int,
    units: int,
    where: str = "true",
) -> dict[tuple[Any, ...], list[Bin]]:
    """Rows with a score and a label by score bin, for each combination of keys.

    Args:
        connection: it has the table `joined`.
        keys: as in `count`.
        per_unit: bins of one unit of log-odds.
        units: of log-odds to each side of even.
        where: only these rows.
    """
    half = per_unit * units
    place = f"""CASE WHEN s <= 0 THEN 0 WHEN s >= 1 THEN {2 * half + 1} ELSE
        greatest(least(floor({per_unit} * ln(s / (1 - s))), {half - 1}), -{half})::INTEGER
        + {half + 1} END"""
    named = [f"{what} AS {name}" for name, what in keys.items()]
    query = f"""
        SELECT {", ".join([*named, f"{place} AS place"])},
            coalesce(sum(w) FILTER (y = 1), 0) AS positive,
            coalesce(sum(w) FILTER (y = 0), 0) AS negative, sum(w * s) AS score
        FROM joined WHERE {_SCORED} AND ({where}) GROUP BY {", ".join([*keys, "place"])}
    """  # noqa: S608 - made of this file's own words and quoted names
    found: dict[tuple[Any, ...], list[Bin]] = {}
    for row in fetch(connection, query):
        one = Bin(
            place=int(row["place"]),
            positive=row["positive"],
            negative=row["negative"],
            score=row["score"],
        )
        found.setdefault(tuple(row[name] for name in keys), []).append(one)
    return found


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


def delays(
    connection: "duckdb.DuckDBPyConnection", seconds: Sequence[float], now: float
) -> list[dict[str, Any]]:
    """Labelled within each delay, of the rows at least that old: sums as of one measure each."""
    measures = [
        Measure(
            name=str(place),
            value=f"coalesce(delay <= {delay!r}, false)",
            where=f"role <> 'shadow' AND made <= {now - delay!r}",
        )
        for place, delay in enumerate(seconds)
    ]
    return count(connection, {}, measures) if measures else []
