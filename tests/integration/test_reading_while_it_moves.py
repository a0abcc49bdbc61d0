"""Whatever the keeper is doing, a reader sees every row once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import log_kit
import pyarrow.parquet as pq
import pytest
from waiting_kit import until

from serving.config.schema import LogConfig
from serving.config.units import Seconds
from serving.metrics import MetricsFile
from serving.recording.keeper import Keeper
from serving.recording.layout import LogFolder
from serving.recording.reading import OpenLog
from serving.recording.tailing import Follower, Wanted

ROUNDS = 60


class Restless:
    """A writer that seals all the time, and a keeper that converts and merges all the time."""

    def __init__(self, folder: Path) -> None:
        self.folder = LogFolder(folder / "log")
        self.log = log_kit.log_of(folder, segment_age=Seconds(0.02))
        config = LogConfig(segment_age=Seconds(0.0), retention=Seconds(1e9))
        metrics = MetricsFile(folder / "keeper.metrics")
        self._keeper = Keeper(config, self.folder, "node", metrics, settled=0.0)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._turn)
        self._offered = 0
        self._thread.start()

    def offer(self, rows: int) -> None:
        """Answer requests about persons who never asked before."""
        plan = log_kit.plan()
        for _ in range(rows):
            self.log.offer(log_kit.answer(plan, self._offered))
            self._offered += 1

    def _turn(self) -> None:
        now = log_kit.NOON + 1e6
        while not self._ending.is_set():
            self._keeper.turn(now)
            now += 60.0  # so that it tidies up every time

    def close(self) -> None:
        """End the keeper, then the writer."""
        self._ending.set()
        self._thread.join()
        self.log.close()


@pytest.fixture
def restless(tmp_path: Path) -> Iterator[Restless]:
    """A log that does not keep still."""
    made = Restless(tmp_path)
    yield made
    made.close()


def people(folder: LogFolder) -> list[int]:
    """Whom the log is about at one moment."""
    found: list[int] = []
    with OpenLog(folder) as log:
        for segment in log.segments:
            for batch in log.contents(segment).batches:
                found += batch["entity.person_id"].to_pylist()
        for file in log.parquet:
            found += pq.ParquetFile(file.pinned).read()["entity.person_id"].to_pylist()
        assert log.damages == []
    return sorted(found)


def test_every_look_has_every_row_once(restless: Restless, record_property: Any) -> None:
    """All that was logged before the look is there, and nothing twice."""
    kinds: set[str] = set()
    for _ in range(ROUNDS):
        restless.offer(20)
        before = restless.log.counts()["logged"]
        seen = people(restless.folder)
        assert seen == list(range(len(seen)))
        assert len(seen) >= before
        kinds |= {path.name.partition("-")[0] for path in restless.folder.parquet.rglob("m*-*")}
    record_property("seen", f"{len(seen)} rows, {ROUNDS} looks")

    assert "merged" in kinds


def test_who_follows_gets_every_row_once(restless: Restless) -> None:
    """While its files are sealed, converted and merged under it."""
    follower = Follower(restless.folder, Wanted(None, (), ()))
    seen: list[int] = []

    def look() -> bool:
        seen.extend(row["entity.person_id"] for row in follower.more())
        return len(seen) >= ROUNDS * 20

    for _ in range(ROUNDS):
        restless.offer(20)
        look()
    until(look)
    look()
    follower.close()

    assert sorted(seen) == list(range(ROUNDS * 20))
