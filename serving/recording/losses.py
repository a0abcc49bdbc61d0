"""Losses of joined rows: which measure a metric is, and single losses in the order of labels.

Needs the temporary table `joined` (`serving.recording.joined`).
"""

from typing import TYPE_CHECKING

import msgspec

from serving.recording.counted import Measure, measures_of
from serving.recording.joined import LogLacks, fetch

if TYPE_CHECKING:
    import duckdb

__all__ = ["SingleLoss", "loss_of", "newest_label", "single_losses"]


class SingleLoss(msgspec.Struct, frozen=True):
    """What one row of a version lost."""

    version: str
    digest: str
    revision: int
    loss: float


def loss_of(task: str, metric: str, *, scored: bool) -> Measure:
    """The measure of a metric, a loss: 0 is the best.

    Raises:
        LogLacks: the task has no such metric, or it needs a score.
    """
    known = {one.name: one for one in measures_of(task, scored=scored)}
    right = known.get("accuracy")
    if metric == "error" and right is not None:
        return Measure(name=metric, value=f"1 - ({right.value})::INTEGER", where=right.where)
    if metric in known:
        return known[metric]
    raise LogLacks(f"`{metric}` cannot be told of `{task or 'no task'}`; see monitoring.prediction")


def newest_label(connection: "duckdb.DuckDBPyConnection") -> int:
    """The revision of the model's newest label, joined or not; 0 without one."""
    [row] = fetch(connection, "SELECT coalesce(max(revision), 0) AS newest FROM __labels")
    return int(row["newest"])


def single_losses(
    connection: "duckdb.DuckDBPyConnection", loss: Measure, *, after: int, upto: int, most: int
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
