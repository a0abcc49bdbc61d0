"""Segments become Parquet, dead writers' accounts add up, old files go."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import log_kit
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from waiting_kit import until

from serving.config.schema import LogConfig, ModelLog
from serving.config.snapshot_codec import enc_hook
from serving.config.units import ByteSize, Seconds
from serving.metrics import MetricsFile, read
from serving.recording.keeper import Keeper
from serving.recording.layout import LogFolder, SegmentName
from serving.recording.parquet import SOURCES, convert
from serving.recording.writers import accounts, is_alive

HOUR = 3600.0


def keeper_of(folder: Path, **options: Any) -> Keeper:
    """A keeper of the node that `log_kit` writes as."""
    config = LogConfig(**options)
    metrics = MetricsFile(folder / f"keeper-{time.time_ns()}.metrics")
    return Keeper(config, LogFolder(folder / "log"), "node", metrics)


def told(folder: Path) -> dict[tuple[str, ...], float]:
    """What `/metrics` says of rows and files, all processes added up."""
    found: dict[tuple[str, ...], float] = {}
    for path in folder.glob("*.metrics"):
        for (family, labels), slots in read(path).items():
            if family in {"sluice_log_rows_total", "sluice_log_files_total"}:
                found[labels] = found.get(labels, 0.0) + slots[0]
    return found


def bury(folder: Path, name: str = "w") -> None:
    """Leave a writer's folder as kill -9 does: nobody holds the ledger."""
    shutil.copytree(folder / "log/segments/node" / name, folder / f"log/segments/node/{name}-dead")


def test_a_sealed_segment_becomes_one_file_an_hour(tmp_path: Path) -> None:
    """By the time of the event; the segment is gone, and no row with it."""
    log, plan = log_kit.log_of(tmp_path), log_kit.plan()
    start = log_kit.NOON - log_kit.NOON % HOUR + HOUR - 1
    for number in range(0, 2000, 10):
        log.offer(log_kit.answer(plan, number, at=start))
    log.close()
    keeper_of(tmp_path).turn(start + 60)

    files = sorted((tmp_path / "log").rglob("*.parquet"))
    assert [len(pq.read_table(file)) for file in files] == [100, 100]
    assert len({file.parent.name for file in files}) == 2
    assert files[0].parent.parent.name == "model=m"
    assert not list(tmp_path.rglob("*.arrows"))
    assert not list((tmp_path / "log").rglob("*.tmp"))


def test_a_living_writer_keeps_its_open_segment(tmp_path: Path) -> None:
    """Its rows are read from there."""
    log = log_kit.log_of(tmp_path)
    log.offer(log_kit.answer(log_kit.plan(), 1))
    until(lambda: log.counts()["logged"] == 1)
    [ledger] = tmp_path.rglob("ledger")
    keeper_of(tmp_path).turn(log_kit.NOON)

    assert is_alive(ledger.parent)
    assert len(list(tmp_path.rglob("*.open"))) == 1
    log.close()


def test_what_a_killed_writer_left_open_is_recovered_to_the_last_whole_row(tmp_path: Path) -> None:
    """Half a message is cut off; what is missing is called a crash, and everything adds up."""
    log, plan = log_kit.log_of(tmp_path), log_kit.plan()
    for number in range(20):
        log.offer(log_kit.answer(plan, number))
    until(lambda: log.counts()["logged"] == 20)
    log.publish()
    log._slots[0] += 3  # offered, and never written
    bury(tmp_path)
    [segment] = (tmp_path / "log/segments/node/w-dead").glob("*.open")
    with segment.open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x10\x00\x00\x00half")
    keeper_of(tmp_path).turn(log_kit.NOON)

    [account] = accounts(LogFolder(tmp_path / "log"))
    assert (account.offered, account.logged, account.crash, account.damaged) == (23, 20, 3, 0)
    assert len(log_kit.parquet_rows(tmp_path)) == 20
    assert not (tmp_path / "log/segments/node/w-dead").exists()
    assert told(tmp_path)["offered",] == 23
    assert told(tmp_path)["logged",] + told(tmp_path)["crash",] == 23
    log.close()


def test_a_damaged_segment_gives_what_it_has_and_the_gap_is_told(tmp_path: Path) -> None:
    """By file and place; the other rows are there."""
    log, plan = log_kit.log_of(tmp_path), log_kit.plan()
    for number in range(3):
        log.offer(log_kit.answer(plan, number))
        until(lambda number=number: log.counts()["logged"] == number + 1)  # type: ignore[misc]
    log.close()
    [segment] = tmp_path.rglob("*.arrows")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    bury(tmp_path)
    shutil.rmtree(tmp_path / "log/segments/node/w")
    keeper_of(tmp_path).turn(log_kit.NOON)

    [account] = accounts(LogFolder(tmp_path / "log"))
    gaps = [msgspec.json.decode(x) for x in (tmp_path / "log/gaps.jsonl").read_bytes().splitlines()]
    assert (account.logged, account.damaged, account.crash) == (2, 1, 0)
    assert len(log_kit.parquet_rows(tmp_path)) == 2
    assert gaps[0]["model"] == "m"
    assert gaps[0]["length"] > 0
    assert told(tmp_path)["damaged",] == len(gaps)


def test_done_again_after_a_crash_conversion_doubles_nothing(tmp_path: Path) -> None:
    """The files are the same ones; a reader meanwhile leaves them out, for the segment is there."""
    log, plan = log_kit.log_of(tmp_path), log_kit.plan()
    for number in range(10):
        log.offer(log_kit.answer(plan, number))
    log.close()
    folder = LogFolder(tmp_path / "log")
    [name] = folder.live()
    copy = name.path.read_bytes()
    convert(folder, name)
    name.path.write_bytes(copy)  # as if the process had died before it removed it
    again = SegmentName.parse(name.path)
    assert again is not None
    done = convert(folder, again)

    assert done.rows == len(log_kit.parquet_rows(tmp_path)) == 10


def test_a_disk_that_refuses_leaves_the_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again later; nothing half is left."""
    log = log_kit.log_of(tmp_path)
    log.offer(log_kit.answer(log_kit.plan(), 1))
    log.close()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("serving.recording.parquet.os.fsync", full)
        keeper_of(tmp_path).turn(log_kit.NOON)
    assert len(log_kit.rows_of(tmp_path)) == 1
    assert [path for path in (tmp_path / "log/parquet").rglob("*") if path.is_file()] == []
    keeper_of(tmp_path).turn(log_kit.NOON)
    assert len(log_kit.parquet_rows(tmp_path)) == 1


def test_files_of_a_past_hour_become_one_that_names_its_sources(tmp_path: Path) -> None:
    """Versions with other columns go together; what one does not have is null."""
    for name, plan in {
        "a": log_kit.plan(),
        "b": log_kit.plan(ModelLog(fields={"SEX": "drop"}), version="v2"),
    }.items():
        log = log_kit.log_of(tmp_path, name)
        for number in range(10):
            log.offer(log_kit.answer(plan, number))
        log.close()
    keeper = keeper_of(tmp_path)
    keeper.turn(log_kit.NOON)
    before = {path.name for path in (tmp_path / "log").rglob("*.parquet")}
    keeper.turn(log_kit.NOON + 3 * HOUR)

    [merged] = (tmp_path / "log").rglob("*.parquet")
    rows = pq.ParquetFile(merged).read().to_pylist()
    sources = pq.read_schema(merged).metadata[SOURCES]
    assert len(before) == 2
    assert set(msgspec.json.decode(sources)) == before
    assert sorted(row["version"] for row in rows) == ["v1"] * 10 + ["v2"] * 10
    assert {row["feature.SEX"] for row in rows if row["version"] == "v2"} == {None}


def test_files_that_do_not_go_together_stay_apart(tmp_path: Path) -> None:
    """And are not tried again and again."""
    folder = LogFolder(tmp_path / "log").hour("m", "2026-01-01T00")
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), folder / "w~v1~1.parquet")
    pq.write_table(pa.table({"x": [[1]]}), folder / "w~v2~2.parquet")
    keeper = keeper_of(tmp_path, retention=Seconds(1e9))
    keeper.turn(log_kit.NOON)
    keeper.turn(log_kit.NOON + HOUR)

    assert len(list(folder.glob("*.parquet"))) == 2
    assert len(keeper._stubborn) == 1


def test_what_is_too_old_or_too_much_goes(tmp_path: Path) -> None:
    """Whole files, counted by reason, and empty folders with them."""
    plan = log_kit.plan()
    for name, hours in {"old": 0, "middle": 50, "young": 99}.items():
        log = log_kit.log_of(tmp_path, name)
        log.offer(log_kit.answer(plan, 1, at=log_kit.NOON + hours * HOUR))
        log.close()
    keeper_of(tmp_path).turn(log_kit.NOON)
    keeper_of(tmp_path, retention=Seconds(60 * HOUR)).turn(log_kit.NOON + 100 * HOUR)
    hours = sorted(path.parent.name for path in (tmp_path / "log").rglob("*.parquet"))
    keeper_of(tmp_path, max_size=ByteSize(0)).turn(log_kit.NOON + 100 * HOUR)

    assert len(hours) == 2
    assert not list((tmp_path / "log/parquet").glob("model=*/hour=*"))
    assert told(tmp_path)["expired",] == 1
    assert told(tmp_path)["over_size",] == 2


def test_the_program_ends_politely_and_with_its_parent(tmp_path: Path) -> None:
    """SIGTERM ends it with 0 after what it is at."""
    # The program goes by the real time, at which a row of `log_kit.NOON` is old.
    config = LogConfig(retention=Seconds(1e10))
    log = log_kit.log_of(tmp_path)
    log.offer(log_kit.answer(log_kit.plan(), 1))
    log.close()
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "serving.recording.keeper"),
            *("--log", str(tmp_path / "log")),
            *("--metrics", str(tmp_path)),
            *("--node", "node"),
            *("--config", msgspec.json.encode(config, enc_hook=enc_hook).decode()),
            *("--parent", str(os.getpid())),
        ]
    )
    try:
        until(lambda: len(list(tmp_path.rglob("*.parquet"))) == 1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(log_kit.BOUND_SECONDS) == 0
    finally:
        child.kill()
        child.wait()
