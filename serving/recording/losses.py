"""Losses of joined rows: what a metric is in SQL, sums of it, and single losses in label order.

Needs the temporary table `joined` (`serving.recording.joined`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.recording.joined import LogLacks, fetch

if TYPE_CHECKING:
    import duckdb

__all__ = ["SUMS", "Loss", "SingleLoss", "loss_of", "newest_label", "single_losses", "sums_of"]


SUMS: Final = ("rows", "clusters", "w", "wx", "ww", "wwx", "wwxx")
"""What `sums_of` sums; the fields of `Moments`."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the rows that fulfil a condition; both in SQL over `joined`."""

    value: str
    where: str


_TRUE: Final = "y IN (0, 1)"
_SCORED: Final = f"s BETWEEN 0 AND 1 AND {_TRUE}"
_NUMBERS: Final = "isfinite(d) AND isfinite(y)"
# A score of 0 for what came true is infinitely wrong; as in scikit-learn the worst is one machine
# epsilon of float32 away from it.
_LOG_LOSS: Final = "-ln(greatest(if(y = 1, s, 1 - s), 1.1920929e-07))"
_OF_SCORES: Final = ("brier", "log_loss")
_LOSSES: Final[dict[tuple[str, str], Loss]] = {
    ("binary", "error"): Loss(value="(d <> y)", where=f"d IS NOT NULL AND {_TRUE}"),
    ("binary", "brier"): Loss(value="(s - y) * (s - y)", where=_SCORED),
    ("binary", "log_loss"): Loss(value=_LOG_LOSS, where=_SCORED),
    ("multiclass", "error"): Loss(
        value="NOT coalesce(d = y, dt = yt)",
        where="labelled AND coalesce(d = y, dt = yt) IS NOT NULL",
    ),
    ("regression", "absolute_error"): Loss(value="abs(d - y)", where=_NUMBERS),
    ("regression", "squared_error"): Loss(value="(d - y) * (d - y)", where=_NUMBERS),
}


class SingleLoss(msgspec.Struct, frozen=True):
    """What one row of a version lost."""

    version: str
    digest: str
    revision: int
    loss: float


def loss_of(task: str, metric: str, *, scored: bool) -> Loss:
    """The loss that a metric names: 0 is the best.

    Raises:
        LogLacks: the task has no such metric, or it needs a score.
    """
    found = _LOSSES.get((task, metric))
    if found is None or (metric in _OF_SCORES and not scored):
        raise LogLacks(
            f"`{metric}` cannot be told of `{task or 'no task'}`; see monitoring.prediction"
        )
    return found


def sums_of(
    connection: "duckdb.DuckDBPyConnection", keys: Mapping[str, str], one: Loss
) -> list[dict[str, Any]]:
    """Sums of a value for each combination of keys, by cluster first.

    Args:
        connection: it has the table `joined`.
        keys: names and what they are, in SQL over `joined`.
        one: the value, and of which rows.

    Returns:
        One mapping a group: every key, and each of `SUMS`, the fields of `Moments`.
    """
    named = ", ".join(f"{what} AS {name}" for name, what in keys.items())
    by = ", ".join(keys)
    query = f"""
        SELECT {by}, sum(n)::BIGINT AS rows, count(*) AS clusters, sum(cw) AS w, sum(cx) AS wx,
            sum(cw * cw) AS ww, sum(cw * cx) AS wwx, sum(cx * cx) AS wwxx
        FROM (
            SELECT {named}, c, count(*) AS n, sum(w) AS cw, sum(w * ({one.value})::DOUBLE) AS cx
            FROM joined WHERE {one.where} GROUP BY {by}, c
        ) GROUP BY {by} ORDER BY {by}
    """  # noqa: S608 - made of this package's own words
    return fetch(connection, query)


def newest_label(connection: "duckdb.DuckDBPyConnection") -> int:
    """The revision of the model's newest label, joined or not; 0 without one."""
    [row] = fetch(connection, "SELECT coalesce(max(revision), 0) AS newest FROM __labels")
    return int(row["newest"])


def single_losses(
    connection: "duckdb.DuckDBPyConnection", loss: Loss, *, after: int, upto: int, most: int
) -> tuple[list[SingleLoss], bool]:
    """Losses whose label has a revision after `after` and up to `upto`, in that order.

    A label may be of several rows (shadow copies share it); those stay together.

    Returns:
        About `most` of them, and whether there are others.
    """
    rows = fetch(
        connection,
        f"""
        SELECT version, digest, revision, ({loss.value})::DOUBLE AS loss FROM joined
        WHERE ({loss.where}) AND revision > $after AND revision <= $upto
        ORDER BY revision, version LIMIT $most
        """,  # noqa: S608 - a measure is made of this package's own words
        after=after,
        upto=upto,
        most=most + 1,
    )
    more = len(rows) > most
    if more and rows[0]["revision"] != rows[-1]["revision"]:
        rows = [row for row in rows if row["revision"] != rows[-1]["revision"]]
    return [SingleLoss(**row) for row in rows], more
