"""Loading while the store is away: rows are written once, or it is said where to go on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import feature_kit
import numpy as np
import pytest
import store_kit

from feature_cache.ingest import Reject, Rows
from feature_cache.loading import LoadReport, Stopped, load

ROWS = 500


class Batch:
    """Some rows of a file."""

    def __init__(self, first: int, now_ms: int) -> None:
        self.first = first
        self.count = ROWS
        ids = list(range(first, first + ROWS))
        self.rows = Rows({"person_id": [*ids]}, {"rooms": ids}, {}, np.full(ROWS, now_ms, np.int64))
        self.rejects: list[tuple[Reject, dict[str, Any]]] = []


def batches(bench: feature_kit.Bench, first: int = 0, count: int = 10) -> Iterator[Batch]:
    """A file's batches from a row on."""
    now_ms = round(bench.wall.now * 1e3)
    for at in range(first, count * ROWS, ROWS):
        yield Batch(at, now_ms)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[store_kit.ValkeyServer]:
    """A running server."""
    server = store_kit.ValkeyServer(tmp_path).start()
    yield server
    server.kill()


async def test_a_store_that_comes_back_gets_every_row(valkey: store_kit.ValkeyServer) -> None:
    """Killed in the middle and started again: loading goes on by itself."""
    async with feature_kit.over_server(valkey.url) as bench:
        report, starting = LoadReport(), []

        def seen(batch: Any) -> None:
            if batch.first == 4 * ROWS:
                valkey.kill()
                starting.append(asyncio.create_task(asyncio.to_thread(valkey.start)))

        await load(
            bench.cache, "home", batches(bench), oldest_ms=0, report=report, seen=seen, patience=30
        )
        await starting[0]

        assert report.written + report.not_newer == report.read == 10 * ROWS
        after = range(5 * ROWS, 10 * ROWS)
        batch = await bench.cache.fetch(
            bench.compile([("home", "rooms")]), {"person_id": list(after)}
        )
        assert batch.values["X"].ravel().tolist() == [*after]


async def test_a_store_that_stays_away_stops_the_load_where_it_can_go_on(
    valkey: store_kit.ValkeyServer,
) -> None:
    """What is before `next_row` is written; the rest is loaded from there."""
    async with feature_kit.over_server(valkey.url) as bench:
        report = LoadReport()

        def seen(batch: Any) -> None:
            if batch.first == 2 * ROWS:
                valkey.freeze()

        with pytest.raises(Stopped, match="the store does not answer") as stopped:
            await load(
                bench.cache,
                "home",
                batches(bench),
                oldest_ms=0,
                report=report,
                seen=seen,
                patience=0.1,
            )
        assert stopped.value.report.next_row == 3 * ROWS
        valkey.thaw()
        await feature_kit.until(lambda: bench.cache.store.link.connected)  # type: ignore[attr-defined]
        rest = LoadReport(next_row=report.next_row)
        await load(
            bench.cache,
            "home",
            batches(bench, report.next_row),
            oldest_ms=0,
            report=rest,
            seen=lambda _: None,
        )

        assert report.read + rest.read == 10 * ROWS
        assert rest.next_row == 10 * ROWS


async def test_a_store_without_memory_stops_the_load_with_its_words(
    valkey: store_kit.ValkeyServer,
) -> None:
    """Waiting would not help."""
    valkey.client().config_set("maxmemory", "1mb")
    async with feature_kit.over_server(valkey.url) as bench:
        with pytest.raises(Stopped, match="the store refuses to write: OOM"):
            await load(
                bench.cache,
                "home",
                batches(bench, count=200),
                oldest_ms=0,
                report=LoadReport(),
                seen=lambda _: None,
            )
