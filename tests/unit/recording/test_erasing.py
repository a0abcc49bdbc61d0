"""After an erasure no byte of the subject is in the log's folder, and the books are right."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import log_files_kit as kit
import log_kit
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from waiting_kit import until

from serving.config.schema import ModelLog
from serving.files import try_lock
from serving.recording import erasing, parquet
from serving.recording.columns import digest_with
from serving.recording.erasing import ErasureIncomplete
from serving.recording.erasures import erase, receipts
from serving.recording.layout import LogFolder
from serving.recording.parquet import convert, merge
from serving.recording.reading import OpenLog, sources_of
from serving.recording.tailing import Wanted, newest
from serving.recording.verifying import verify
from serving.recording.writers import note_converted

MARK = "SUBJECT-TO-BE-GONE"
TEXT_KEY = kit.SCHEMA.append(pa.field("entity.email", pa.string()))
ME = {"email": MARK}


def mine(number: int, **more: Any) -> dict[str, Any]:
    """A row of the subject; its mark is in the file's bytes, uncompressed or not."""
    return kit.row(number, **more) | {"entity.email": MARK, "request_id": MARK}


def theirs(number: int, **more: Any) -> dict[str, Any]:
    """A row of somebody else."""
    return kit.row(number, **more) | {"entity.email": f"person-{number}"}


def people(folder: LogFolder) -> list[int]:
    """Whom the log is about now."""
    with OpenLog(folder) as log:
        rows = newest(log, Wanted(None, (), ()), 1000)
        assert not log.damages
    return sorted(row["entity.person_id"] for row in rows)


def tables(path: Path) -> list[pa.Table]:
    """What a file of the log says to whoever can read it."""
    if path.suffix == ".parquet":
        return [pq.ParquetFile(path).read()]
    if path.suffix in {".open", ".arrows"}:
        return [pa.ipc.open_stream(path.read_bytes()).read_all()]
    return []


def assert_gone(folder: LogFolder) -> None:
    """No file of the folder, of whatever name, holds the mark, as bytes or as a value."""
    for path in [one for one in folder.root.rglob("*") if one.is_file()]:
        assert MARK.encode() not in path.read_bytes(), path
        for table in tables(path):
            assert MARK not in str(table.to_pylist()), path


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    """A log with the subject in every kind of file, of a writer that is gone."""
    folder = LogFolder(tmp_path)
    kit.ledger(tmp_path, offered=11, logged=11).close()
    own = folder.writer("node", "worker-0-11-aa")

    def parquet_of(number: int, *rows: dict[str, Any]) -> list[Path]:
        name = kit.segment(tmp_path, list(rows), number=number, schema=TEXT_KEY)
        return convert(folder, name, lambda count: note_converted(own, name.identity, count)).files

    merge(folder, [*parquet_of(0, mine(0), theirs(1)), *parquet_of(1, theirs(2), mine(3))])
    parquet_of(2, mine(4, at=kit.EPOCH + kit.HOUR))
    parquet_of(3, theirs(5, at=kit.EPOCH + 2 * kit.HOUR))
    kit.segment(tmp_path, [mine(6), theirs(7), mine(8), theirs(9)], number=4, schema=TEXT_KEY)
    kit.segment(tmp_path, [mine(10)], number=5, schema=TEXT_KEY, sealed=False)
    return folder


def test_no_byte_of_the_subject_is_left_and_nobody_else_is_touched(folder: LogFolder) -> None:
    """Merged and single Parquet, sealed and abandoned segments."""
    receipt = erase(folder, ME)

    assert receipt.rows == 6
    assert receipt.complete
    assert people(folder) == [1, 2, 5, 7, 9]
    assert_gone(folder)


def test_the_receipt_names_files_and_digests_and_nobody(folder: LogFolder) -> None:
    """It is what an auditor compares, and kept in the log."""
    before = {
        str(path.relative_to(folder.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.root.rglob("*")
        if path.is_file()
    }
    receipt = erase(folder, ME)

    assert receipts(folder) == [receipt]
    for file in receipt.files:
        assert file.sha256_before == before[file.file]
        path = folder.root / file.file
        now = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
        assert file.sha256_after == now
    assert receipt.subject == {"email": digest_with(folder.hash_key())(MARK)}


def test_the_books_add_up_after_an_erasure(folder: LogFolder) -> None:
    """Erased rows were logged, and are not damage."""
    assert verify(folder).sound
    erase(folder, ME)
    verdict = verify(folder)

    assert verdict.sound, verdict.problems
    assert (verdict.rows, verdict.erased, verdict.missing) == (5, 6, 0)


def test_a_merged_file_still_names_its_sources(folder: LogFolder) -> None:
    """One of them may come back from a backup; it does not count then either."""
    [merged] = folder.parquet.rglob("merged-*")
    before = sources_of(merged)
    erase(folder, ME)

    assert sources_of(merged) == before


def test_erasing_again_finds_nothing(folder: LogFolder) -> None:
    """The second receipt says so."""
    erase(folder, ME)
    receipt = erase(folder, ME)

    assert (receipt.rows, receipt.files) == (0, [])


def test_only_the_models_that_are_named_are_searched(folder: LogFolder) -> None:
    """Another model's rows stay."""
    kit.segment(folder.root, [mine(20)], model="fraud", number=9, schema=TEXT_KEY)
    receipt = erase(folder, ME, {"fraud"})

    assert receipt.rows == 1
    assert {file.model for file in receipt.files} == {"fraud"}
    assert 0 in people(folder)


def test_halves_and_leftovers_go_with_it(folder: LogFolder) -> None:
    """What a keeper that was killed left behind holds people as well."""
    [merged] = folder.parquet.rglob("merged-*")
    source = merged.with_name(sources_of(merged)[0])
    source.write_bytes(merged.read_bytes())
    merged.with_name(f".{source.name}.tmp").write_bytes(merged.read_bytes())
    [segment] = folder.segments.rglob("*~4.arrows")
    merged.with_name("worker-0-11-aa~v1~4.parquet").write_bytes(merged.read_bytes())
    erase(folder, ME)

    assert_gone(folder)
    assert people(folder) == [1, 2, 5, 7, 9]
    assert segment.exists()


def test_damaged_stretches_cannot_be_searched_and_go(tmp_path: Path) -> None:
    """They may be anybody's."""
    folder = LogFolder(tmp_path)
    path = kit.segment(tmp_path, [theirs(n) for n in range(6)], schema=TEXT_KEY).path
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + len(MARK)] = MARK.encode()
    path.write_bytes(data)
    receipt = erase(folder, {"email": "nobody"})

    assert receipt.rows == 0
    assert len(receipt.files) == 1
    assert_gone(folder)
    assert people(folder) == [0, 1, 4, 5]


def test_a_parquet_file_that_cannot_be_read_is_named(folder: LogFolder) -> None:
    """The erasure is not complete, and everything else is done."""
    [file] = folder.parquet.glob("*/hour=2025-10-09T11/*.parquet")
    file.write_bytes(b"damaged")
    receipt = erase(folder, ME)

    assert not receipt.complete
    assert [one.file for one in receipt.unreadable] == [str(file.relative_to(folder.root))]
    assert receipt.rows == 6


def test_models_whose_rows_do_not_have_the_key_are_named(folder: LogFolder) -> None:
    """Whose they are cannot be told."""
    kit.segment(folder.root, [kit.row(30)], model="anonymous", number=9)

    assert erase(folder, ME).not_by_this_key == ["anonymous"]


def test_a_number_is_compared_as_a_number_and_a_word_is_none(tmp_path: Path) -> None:
    """`person_id=7` is the row with 7, and `person_id=seven` nobody's."""
    kit.segment(tmp_path, [kit.row(7), kit.row(70)])

    assert erase(LogFolder(tmp_path), {"person_id": "seven"}).rows == 0
    assert erase(LogFolder(tmp_path), {"person_id": "7"}).rows == 1
    assert people(LogFolder(tmp_path)) == [70]


def test_of_an_entity_with_several_keys_all_have_to_match(folder: LogFolder) -> None:
    """A household's number alone is not a person."""
    assert erase(folder, {"email": MARK, "person_id": "8"}).rows == 1


def test_a_hashed_key_is_found_by_its_hash(tmp_path: Path) -> None:
    """The log holds only digests; the key to them is in it."""
    plan = log_kit.plan(ModelLog(fields={"person_id": "hash"}))
    log = log_kit.log_of(tmp_path)
    for number in (41, 42, 42):
        log.offer(log_kit.answer(plan, number))
    log.close()
    receipt = erase(LogFolder(tmp_path / "log"), {"person_id": "42"})

    assert receipt.rows == 2
    assert len(log_kit.rows_of(tmp_path)) == 1


def test_a_writer_that_lives_is_asked_to_seal(tmp_path: Path) -> None:
    """Its open segment is erased too, while it goes on."""
    log = log_kit.log_of(tmp_path)
    plan = log_kit.plan()
    for number in (41, 42, 43):
        log.offer(log_kit.answer(plan, number))
    until(lambda: log.counts()["logged"] == 3)
    folder = LogFolder(tmp_path / "log")
    receipt = erase(folder, {"person_id": "42"})
    log.offer(log_kit.answer(plan, 44))
    log.close()

    assert receipt.rows == 1
    assert people(folder) == [41, 43, 44]
    verdict = verify(folder)
    assert verdict.sound, verdict.problems


def test_a_writer_that_does_not_seal_is_named(
    folder: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure says that it is not complete, and has a receipt of what it did."""
    monkeypatch.setattr(erasing, "_SEAL_SECONDS", 0.0)
    stuck = kit.ledger(folder.root, "worker-1-12-bb", offered=1, logged=1)
    kit.segment(folder.root, [mine(40)], writer="worker-1-12-bb", schema=TEXT_KEY, sealed=False)
    with pytest.raises(ErasureIncomplete, match="worker-1-12-bb did not seal"):
        erase(folder, ME)
    stuck.close()

    assert erase(folder, ME).rows == 7
    assert_gone(folder)


def test_nothing_is_erased_while_the_keeper_merges(
    folder: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would publish what it read before."""
    monkeypatch.setattr(erasing, "_KEEPER_SECONDS", 0.0)
    lock = try_lock(folder.root / "keeper.lock")
    assert lock is not None
    with pytest.raises(ErasureIncomplete, match="keeper"):
        erase(folder, ME)
    os.close(lock)

    assert receipts(folder) == []


def test_a_segment_being_converted_does_not_bring_the_subject_back(
    folder: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper read it before, and publishes after: it notices, and starts again."""
    name = next(one for one in folder.live() if one.number == 4)
    reads = parquet.read_segment

    def read_then_erase(path: Path) -> Any:
        contents = reads(path)
        monkeypatch.setattr(parquet, "read_segment", reads)
        erase(folder, ME)
        return contents

    monkeypatch.setattr(parquet, "read_segment", read_then_erase)
    with pytest.raises(OSError, match="was changed while it was read"):
        convert(folder, name)
    assert_gone(folder)
    convert(folder, name)

    assert_gone(folder)
    assert people(folder) == [1, 2, 5, 7, 9]


def test_killed_at_any_rename_erasing_again_finishes(folder: LogFolder) -> None:
    """A file is the old one or the new one, and the books add up at the end."""
    code = (
        "import os, signal, sys, pathlib\n"
        "left = int(sys.argv[2])\n"
        "def hook(event, args):\n"
        "    global left\n"
        "    if event == 'os.rename' and 'erasing' in str(args[0]):\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(hook)\n"
        "from serving.recording.erasures import erase\n"
        "from serving.recording.layout import LogFolder\n"
        f"erase(LogFolder(pathlib.Path(sys.argv[1])), {ME!r})\n"
    )
    for after in range(2):
        killed = subprocess.run(
            [sys.executable, "-c", code, str(folder.root), str(after)], check=False
        )
        assert killed.returncode == -signal.SIGKILL
    erase(folder, ME)

    assert_gone(folder)
    assert people(folder) == [1, 2, 5, 7, 9]
    verdict = verify(folder)
    assert verdict.sound, verdict.problems
    assert verdict.erased == 6
