"""What each version loses, from a model's log and its labels. Runs in the joiner."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.control.joiner_orders import Losses, LossesTold, VersionLosses
from serving.performance.counts import Moments
from serving.performance.losses import LossWindow
from serving.recording.counted import SUMS, Measure, count
from serving.recording.joined import fetch, join
from serving.recording.losses import SingleLoss, loss_of, newest_label, single_losses

if TYPE_CHECKING:
    import duckdb

__all__ = ["measure_losses"]

_WINDOWS: Final = 2000
"""Most windows of an answer; over a longer time each is longer."""

_FILE: Final = {"version": "version", "digest": "digest"}


def measure_losses(connection: "duckdb.DuckDBPyConnection", log: Path, order: Losses) -> LossesTold:
    """Join and count. Raises LogLacks, duckdb.Error."""
    plan = order.plan
    join(connection, log, plan)
    loss = loss_of(plan.task, order.metric, scored=bool(plan.score))
    due = Measure(name="due", value="labelled", where=f"made < {plan.now - plan.horizon!r}")
    [span] = fetch(connection, "SELECT min(made) AS since, max(made) AS until FROM joined")
    length = (span["until"] or 0.0) - (span["since"] or 0.0)
    window = order.window * (int(length / order.window / _WINDOWS) + 1)
    buckets = count(
        connection,
        {**_FILE, "bucket": f"floor(made / {window!r}) * {window!r}"},
        [loss],
        where=loss.where,
    )
    single, more = single_losses(
        connection, loss, after=order.after, upto=order.upto, most=order.most
    )
    return LossesTold(
        versions=[
            _version(row, loss.name, window, buckets, single)
            for row in count(connection, _FILE, [due])
        ],
        newest=newest_label(connection),
        read=single[-1].revision if more and single else max(order.after, order.upto),
        more=more,
    )


def _version(
    row: dict[str, Any],
    metric: str,
    window: float,
    buckets: list[dict[str, Any]],
    single: list[SingleLoss],
) -> VersionLosses:
    key = row["version"], row["digest"]
    due = _moments(row, "due")
    return VersionLosses(
        version=row["version"],
        digest=row["digest"],
        windows=[
            LossWindow(
                start=one["bucket"], end=one["bucket"] + window, losses=_moments(one, metric)
            )
            for one in sorted(buckets, key=lambda one: float(one["bucket"]))
            if (one["version"], one["digest"]) == key
        ],
        due=due.rows,
        coverage=due.mean,
        single=[one.loss for one in single if (one.version, one.digest) == key],
    )


def _moments(row: dict[str, Any], name: str) -> Moments:
    return Moments(**{one: row[f"{name}.{one}"] for one in SUMS})
