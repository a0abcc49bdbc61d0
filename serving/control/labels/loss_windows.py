"""What each version loses, from a model's log and its labels. Runs in the joiner."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.control.labels.joiner_orders import Losses, LossesTold, VersionLosses
from serving.performance.counts import Moments
from serving.performance.losses import LossWindow
from serving.recording.joined import fetch, forget, join
from serving.recording.losses import (
    SUMS,
    Loss,
    SingleLoss,
    loss_of,
    newest_label,
    single_losses,
    sums_of,
)

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
    due = Loss(value="labelled", where=f"made < {plan.now - plan.horizon!r}")
    [span] = fetch(connection, "SELECT min(made) AS since, max(made) AS until FROM joined")
    length = (span["until"] or 0.0) - (span["since"] or 0.0)
    window = order.window * (int(length / order.window / _WINDOWS) + 1)
    buckets = sums_of(
        connection, {**_FILE, "bucket": f"floor(made / {window!r}) * {window!r}"}, loss
    )
    single, more = single_losses(
        connection, loss, after=order.after, upto=order.upto, most=order.most
    )
    ripe = {_key(row): _moments(row) for row in sums_of(connection, _FILE, due)}
    told = LossesTold(
        versions=[
            _version(key, ripe.get(key, Moments()), window, buckets, single)
            for key in map(
                _key, fetch(connection, "SELECT DISTINCT version, digest FROM joined ORDER BY ALL")
            )
        ],
        newest=newest_label(connection),
        read=single[-1].revision if more and single else max(order.after, order.upto),
        more=more,
    )
    forget(connection)
    return told


def _version(
    key: tuple[str, str],
    due: Moments,
    window: float,
    buckets: list[dict[str, Any]],
    single: list[SingleLoss],
) -> VersionLosses:
    version, digest = key
    return VersionLosses(
        version=version,
        digest=digest,
        windows=[
            LossWindow(start=one["bucket"], end=one["bucket"] + window, losses=_moments(one))
            for one in buckets
            if _key(one) == key
        ],
        due=due.rows,
        coverage=due.mean,
        single=[one.loss for one in single if (one.version, one.digest) == key],
    )


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["version"], row["digest"]


def _moments(row: dict[str, Any]) -> Moments:
    return Moments(**{name: row[name] for name in SUMS})
