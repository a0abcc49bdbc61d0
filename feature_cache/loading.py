"""Loading a file into a view: batch by batch, again where the store was away for a moment."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from feature_cache.cache import FeatureCache
from feature_cache.errors import StoreRefused, Unavailable
from feature_cache.ingest import Reject, Rows

__all__ = ["LoadReport", "Stopped", "load"]

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_SLICE_ROWS: Final = 2000
_PASSING: Final = frozenset({"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN"})
"""Answers of a store that is about to be well again."""


class LoadReport(msgspec.Struct):
    """What became of a file's rows.

    `read` is written + not_newer + expired + rejected. `not_newer`: the store has a row that is
    as new; `expired`: older than the view's keep_for. `next_row` is where to go on.
    """

    read: int = 0
    written: int = 0
    not_newer: int = 0
    expired: int = 0
    rejected: int = 0
    next_row: int = 0


class Stopped(Exception):
    """The store gave up on us; everything before `report.next_row` is written."""

    def __init__(self, reason: str, report: LoadReport) -> None:
        super().__init__(reason)
        self.report = report


class Batch(Protocol):
    """See `tables.Checked`."""

    first: int
    count: int
    rows: Rows
    rejects: list[tuple[Reject, dict[str, Any]]]


async def load(
    cache: FeatureCache | None,
    view: str,
    batches: Iterator[Batch],
    *,
    oldest_ms: int,
    report: LoadReport,
    seen: Callable[[Any], None],
    patience: float = 30.0,
) -> None:
    """Write batches of rows, in order, and count what became of them.

    Args:
        cache: where to; None writes nothing and counts as written what would be.
        view: by name.
        batches: from `TableFile.batches`.
        oldest_ms: rows from before this are expired; milliseconds since 1970.
        report: is brought up to date as rows are written.
        seen: told each batch when it is written.
        patience: seconds to wait for a store that is away.

    Raises:
        Stopped: the store refused rows, or stayed away. Loading the file again is safe.
    """
    # The next batch is read and checked, in a thread, while this one is written.
    coming = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
    while (batch := await coming) is not None:
        coming = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
        try:
            await _take(cache, view, batch, oldest_ms=oldest_ms, report=report, patience=patience)
        except BaseException:
            await asyncio.wait({coming})
            raise
        seen(batch)


async def _take(
    cache: FeatureCache | None,
    view: str,
    batch: Batch,
    *,
    oldest_ms: int,
    report: LoadReport,
    patience: float,
) -> None:
    """Write one batch, and count what became of its rows."""
    rows = batch.rows
    alive = rows.event_ms > oldest_ms
    if not alive.all():
        rows = _some(rows, alive)
    done = len(rows)
    if cache is not None and done:
        done = await _write_all(cache, view, rows, report, patience)
    report.read += batch.count
    report.written += done
    report.not_newer += len(rows) - done
    report.expired += len(batch.rows) - len(rows)
    report.rejected += len(batch.rejects)
    report.next_row = batch.first + batch.count


async def _write_all(
    cache: FeatureCache, view: str, rows: Rows, report: LoadReport, patience: float
) -> int:
    """Two slices at a time: one is packed here while the store writes the other."""
    slices = iter([slice(at, at + _SLICE_ROWS) for at in range(0, len(rows), _SLICE_ROWS)])

    async def some() -> int:
        return sum(
            [await _write(cache, view, _some(rows, part), report, patience) for part in slices]
        )

    working = [asyncio.ensure_future(some()) for _ in range(2)]
    try:
        return sum(await asyncio.gather(*working))
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


async def _write(
    cache: FeatureCache, view: str, rows: Rows, report: LoadReport, patience: float
) -> int:
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + patience, _FIRST_PAUSE_SECONDS
    while True:
        try:
            taken = await cache.write(view, rows.entities, rows.columns, rows.event_ms, rows.nulls)
        except StoreRefused as error:
            if error.code not in _PASSING or loop.time() > until:
                raise Stopped(f"the store refuses to write: {error}", report) from error
        except Unavailable as error:
            if loop.time() > until:
                raise Stopped(f"the store does not answer: {error}", report) from error
        else:
            return sum(taken)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _some(rows: Rows, wanted: Any) -> Rows:
    """Rows by a mask or a slice."""

    def pick(values: Any) -> Any:
        if isinstance(values, np.ndarray) or isinstance(wanted, slice):
            return values[wanted]
        return [value for value, keep in zip(values, wanted.tolist(), strict=True) if keep]

    return Rows(
        {name: pick(values) for name, values in rows.entities.items()},
        {name: pick(values) for name, values in rows.columns.items()},
        {name: pick(mask) for name, mask in rows.nulls.items()},
        rows.event_ms[wanted],
    )
