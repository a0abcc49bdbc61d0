"""The log never makes a request wait, and says what became of every row."""

import errno
import os
import random
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import log_kit
import pytest
from waiting_kit import until

from serving.config.schema import ModelLog, RoleShares
from serving.config.units import ByteSize, Seconds
from serving.recording.ledger import DROPPED, read_ledger
from serving.recording.packing import packed
from serving.recording.prediction_log import PredictionLog


def adds_up(log: PredictionLog) -> bool:
    """Whether everything offered is accounted for: nothing is held any more."""
    counts = log.counts()
    known = counts["logged"] + counts["sampled_out"] + sum(counts[each] for each in DROPPED)
    return counts["offered"] == known


class Disk:
    """`os.write` to segments that can be made slow or full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        self.open = threading.Event()
        self.open.set()
        self._write = os.write
        monkeypatch.setattr("serving.recording.segment.os.write", self.write)

    def write(self, descriptor: int, data: Any) -> int:
        """As the disk would."""
        self.open.wait(log_kit.BOUND_SECONDS)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self._write(descriptor, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that ends well."""
    made = Disk(monkeypatch)
    yield made
    made.error = 0
    made.open.set()


def test_what_is_offered_is_in_a_segment_soon(tmp_path: Path) -> None:
    """Answers and refusals, in the order they came."""
    log, plan = log_kit.log_of(tmp_path), log_kit.plan()
    for number in range(5):
        log.offer(log_kit.answer(plan, number))
    log.offer(log_kit.refusal(plan, 5))
    until(lambda: adds_up(log))
    rows = log_kit.rows_of(tmp_path)

    assert sorted(row["entity.person_id"] for row in rows) == list(range(6))
    assert log.counts() | {"offered": 6, "logged": 6} == log.counts()
    log.close()


def test_closing_writes_what_is_held_and_seals(tmp_path: Path) -> None:
    """A graceful stop loses nothing, however rarely the log writes."""
    log, plan = log_kit.log_of(tmp_path, flush=Seconds(3600.0)), log_kit.plan()
    for number in range(3000):
        log.offer(log_kit.answer(plan, number, rows=2))
    log.close()
    [segment] = (tmp_path / "log" / "segments").rglob("*~*")

    assert segment.suffix == ".arrows"
    assert len(log_kit.rows_of(tmp_path)) == log.counts()["logged"] == 6000
    assert adds_up(log)


def test_two_versions_have_two_segments(tmp_path: Path) -> None:
    """Their columns may differ."""
    log = log_kit.log_of(tmp_path)
    for version in ("v1", "v2"):
        log.offer(log_kit.answer(log_kit.plan(version=version), 1))
    log.close()

    names = {path.name for path in (tmp_path / "log").rglob("*.arrows")}
    assert {name.split("~")[1] for name in names} == {"v1", "v2"}


def test_a_segment_that_is_old_or_large_is_sealed(tmp_path: Path) -> None:
    """So that it can become Parquet while the writer goes on."""
    log = log_kit.log_of(tmp_path, segment_age=Seconds(0.02))
    plan = log_kit.plan()
    log.offer(log_kit.answer(plan, 1))
    until(lambda: len(list(tmp_path.rglob("*.arrows"))) == 1)
    log.offer(log_kit.answer(plan, 2))
    until(lambda: len(list(tmp_path.rglob("*.arrows"))) == 2)
    log.close()

    large = log_kit.log_of(tmp_path, "large", segment_size=ByteSize(1))
    large.offer(log_kit.answer(plan, 3))
    until(lambda: len(list(tmp_path.rglob("*.arrows"))) == 3)
    large.close()


def test_a_slow_disk_costs_rows_and_no_time(tmp_path: Path, disk: Disk) -> None:
    """Offers return while the disk stands still; beyond the buffer they are dropped and counted."""
    plan = log_kit.plan()
    size = packed(log_kit.answer(plan, 0)).size
    log = log_kit.log_of(tmp_path, buffer=ByteSize(100 * size))
    disk.open.clear()
    for number in range(1000):
        log.offer(log_kit.answer(plan, number, role="canary"))
    while_slow = log.counts()
    disk.open.set()
    log.close()

    assert while_slow["offered"] == 1000
    assert while_slow["logged"] == 0
    assert 800 < log.counts()["buffer_full"] < 1000
    assert adds_up(log)
    assert len(log_kit.rows_of(tmp_path)) == log.counts()["logged"] > 0


def test_shadow_rows_go_first_and_refusals_last(tmp_path: Path, disk: Disk) -> None:
    """A buffer that fills is kept for what evidence is made of."""
    plan = log_kit.plan()
    size = packed(log_kit.answer(plan, 0)).size
    log = log_kit.log_of(tmp_path, buffer=ByteSize(100 * size))
    disk.open.clear()
    taken = {}
    for role in ("shadow", "production", "canary"):
        before = log.counts()["offered"], log._lost["buffer_full"]
        for number in range(200):
            log.offer(log_kit.answer(plan, number, role=role))
        taken[role] = 200 - (log._lost["buffer_full"] - before[1])
    log.offer(log_kit.refusal(plan, 1))
    disk.open.set()
    log.close()

    assert taken["shadow"] >= 50
    assert taken["production"] >= 37
    assert taken["canary"] >= 12
    assert taken["shadow"] + taken["production"] < 100
    assert adds_up(log)


def test_a_full_disk_costs_rows_until_there_is_room(tmp_path: Path, disk: Disk) -> None:
    """They are counted, the log goes on by itself, and no half batch is left behind."""
    log, plan = log_kit.log_of(tmp_path), log_kit.plan()
    disk.error = errno.ENOSPC
    log.offer(log_kit.answer(plan, 1))
    until(lambda: log.counts()["disk_full"] == 1)
    disk.error = 0

    def logged() -> bool:
        log.offer(log_kit.answer(plan, 2))
        return log.counts()["logged"] > 0

    until(logged)
    log.close()

    rows = log_kit.rows_of(tmp_path)
    assert len(rows) == log.counts()["logged"]
    assert adds_up(log)


def test_a_broken_disk_is_told_apart_from_a_full_one(tmp_path: Path, disk: Disk) -> None:
    """Somebody has to look at the one, and to make room on the other."""
    log, plan = log_kit.log_of(tmp_path), log_kit.plan()
    disk.error = errno.EIO
    log.offer(log_kit.answer(plan, 1))
    until(lambda: log.counts()["disk_error"] == 1)
    disk.error = 0
    log.offer(log_kit.answer(plan, 2))
    log.close()

    assert [row["entity.person_id"] for row in log_kit.rows_of(tmp_path)] == [2]
    assert adds_up(log)


def test_too_little_free_space_is_a_full_disk(tmp_path: Path) -> None:
    """The log leaves room for the store's own files."""
    log = log_kit.log_of(tmp_path, min_free=ByteSize(1 << 60))

    def refused() -> bool:
        log.offer(log_kit.answer(log_kit.plan(), 1))
        return log.counts()["disk_full"] > 0

    until(refused)
    log.close()

    assert adds_up(log)


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path) -> None:
    """Requests are served; their rows are counted as lost."""
    (tmp_path / "log").write_text("a file where the log should be")
    log = log_kit.log_of(tmp_path)
    log.offer(log_kit.answer(log_kit.plan(), 1))
    until(lambda: log.counts()["disk_error"] == 1)
    log.close()

    assert adds_up(log)


def test_sampling_keeps_weights_and_all_refusals(tmp_path: Path) -> None:
    """A row that is kept stands for 1/share; rows of one request stay together."""
    plan = log_kit.plan(ModelLog(sample=RoleShares(production=0.25, canary=1.0)))
    log = log_kit.log_of(tmp_path)
    log._random = random.Random(7).random
    for number in range(2000):
        log.offer(log_kit.answer(plan, number, rows=2))
    for number in range(10):
        log.offer(log_kit.answer(plan, number, role="canary"))
        log.offer(log_kit.refusal(plan, number))
    log.close()

    rows = log_kit.rows_of(tmp_path)
    kept = [row for row in rows if row["role"] == "production" and row["code"] == "OK"]
    assert sum(row["sample_weight"] for row in kept) == pytest.approx(4000, rel=0.15)
    assert {row["sample_weight"] for row in kept} == {4.0}
    assert sum(row["row"] for row in kept) * 2 == len(kept)
    assert sum(row["role"] == "canary" for row in rows) == 10
    assert sum(row["code"] != "OK" for row in rows) == 10
    assert log.counts()["sampled_out"] == 4000 - len(kept)
    assert adds_up(log)


def test_a_row_that_cannot_be_written_takes_no_other_along(tmp_path: Path) -> None:
    """It is counted; the thread lives on."""
    log, plan, other = log_kit.log_of(tmp_path), log_kit.plan(), log_kit.plan(model="other")
    broken = log_kit.answer(other, 1)
    broken.feed = {}
    log.offer(broken)
    log.offer(log_kit.answer(plan, 2))
    log.close()

    assert log.counts()["unwritable"] == 1
    assert [row["entity.person_id"] for row in log_kit.rows_of(tmp_path)] == [2]
    assert adds_up(log)


def test_the_ledger_outlives_its_writer_and_knows_what_was_told(tmp_path: Path) -> None:
    """Somebody else can bring /metrics up to date."""
    log, plan = log_kit.log_of(tmp_path, flush=Seconds(3600.0)), log_kit.plan()
    log.offer(log_kit.answer(plan, 1))
    log.publish()
    log.offer(log_kit.answer(plan, 2, rows=3))
    [ledger] = tmp_path.rglob("ledger")

    assert read_ledger(ledger)["offered"] == 4
    assert read_ledger(ledger, told=True)["offered"] == 1
    log.close()
    assert read_ledger(ledger)["logged"] == 4
    ledger.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a writer's ledger"):
        read_ledger(ledger)


def test_a_log_keeps_nothing_of_a_plan_that_is_gone(tmp_path: Path) -> None:
    """A table that is replaced takes its plans along, and what the log worked out for them."""
    log = log_kit.log_of(tmp_path)
    gone = []
    for number in range(3):
        plan = log_kit.plan()
        gone.append(weakref.ref(plan))
        log.offer(log_kit.answer(plan, number))
        until(lambda: adds_up(log))
    del plan
    until(lambda: all(one() is None for one in gone))
    log.close()

    assert log.counts()["logged"] == 3
