"""The books of the log: what adds up, and what does not."""

import random
from pathlib import Path

import log_files_kit as kit
import pyarrow.parquet as pq
import pytest

from serving.recording.layout import LogFolder
from serving.recording.parquet import convert
from serving.recording.removed import note_removed
from serving.recording.verifying import Verdict, total_of, verify
from serving.recording.writers import close_account, note_converted


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    """An empty log."""
    return LogFolder(tmp_path)


def sound(verdict: Verdict) -> bool:
    """Whether it is, and the sums say so too."""
    one = total_of(verdict.writers)
    known = one.logged + one.sampled_out + sum(one.dropped.values())
    assert one.offered == known + one.held + one.crash + one.damaged
    return verdict.sound


def converted(folder: LogFolder) -> list[Path]:
    """The Parquet file of one row, of a writer that is gone."""
    kit.ledger(folder.root, offered=1, logged=1).close()
    own = folder.writer("node", "worker-0-11-aa")
    name = kit.segment(folder.root, [kit.row(1)])
    return convert(folder, name, lambda rows: note_converted(own, name.identity, rows)).files


def test_a_writer_that_lives_may_hold_rows(folder: LogFolder) -> None:
    """They are not written yet."""
    ledger = kit.ledger(folder.root, offered=10, logged=4, sampled_out=2, buffer_full=1)
    kit.segment(folder.root, [kit.row(n) for n in range(4)], sealed=False)
    verdict = verify(folder)
    [writer] = verdict.writers

    assert sound(verdict)
    assert (writer.alive, writer.held, writer.crash) == (True, 3, 0)
    ledger.close()


def test_what_a_dead_writer_held_was_lost_in_the_crash(folder: LogFolder) -> None:
    """It is counted, and no reason for alarm."""
    kit.ledger(folder.root, offered=10, logged=4).close()
    kit.segment(folder.root, [kit.row(n) for n in range(4)], sealed=False)
    verdict = verify(folder)

    assert sound(verdict)
    assert (verdict.writers[0].alive, verdict.writers[0].crash) == (False, 6)


def test_rows_are_found_wherever_they_are(folder: LogFolder) -> None:
    """In a segment, in Parquet of a writer that is there, and of one whose account is closed."""
    kit.ledger(folder.root, "worker-9-1-aa", offered=2, logged=2).close()
    gone = folder.writer("node", "worker-9-1-aa")
    name = kit.segment(folder.root, [kit.row(1), kit.row(2)], writer="worker-9-1-aa")
    convert(folder, name, lambda rows: note_converted(gone, name.identity, rows))
    close_account(folder, gone)
    kit.ledger(folder.root, offered=3, logged=3).close()
    own = folder.writer("node", "worker-0-11-aa")
    name = kit.segment(folder.root, [kit.row(3)])
    convert(folder, name, lambda rows: note_converted(own, name.identity, rows))
    kit.segment(folder.root, [kit.row(4), kit.row(5)], number=1)
    verdict = verify(folder)

    assert sound(verdict)
    assert (verdict.rows, verdict.missing, verdict.files) == (5, 0, 3)


def test_rows_that_were_logged_and_cannot_be_read_are_told(folder: LogFolder) -> None:
    """By file and by writer."""
    kit.ledger(folder.root, offered=6, logged=6).close()
    path = kit.segment(folder.root, [kit.row(n) for n in range(6)]).path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    verdict = verify(folder)

    assert not sound(verdict)
    assert [damage.file.rpartition("/")[2] for damage in verdict.damages] == [path.name]
    assert verdict.writers[0].damaged == 2
    assert verdict.problems == ["2 rows that node/worker-0-11-aa had logged cannot be read"]


def test_one_bit_anywhere_in_a_parquet_file_is_found(folder: LogFolder) -> None:
    """Every page is compared with its checksum; what cannot be told apart is no damage."""
    [path] = converted(folder)
    assert verify(folder).sound
    data, rows = path.read_bytes(), pq.read_table(path, partitioning=None)
    footer = int.from_bytes(data[-8:-4], "little")
    silent = []
    for place in random.Random(7).sample(range(4, len(data) - 8 - footer), 60):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        verdict = verify(folder)
        if verdict.sound and not pq.read_table(path, partitioning=None).equals(rows):
            silent.append(place)
        for damage in verdict.damages:
            assert damage.file == str(path.relative_to(folder.root))

    assert silent == []


def test_a_file_that_is_there_twice_does_not_add_up(folder: LogFolder) -> None:
    """Somebody copied it; every average would be wrong."""
    [path] = converted(folder)
    path.with_name("copy~v1~0.parquet").write_bytes(path.read_bytes())
    verdict = verify(folder)

    assert not sound(verdict)
    assert verdict.problems[0].startswith("there are 1 rows more than were logged")


def test_rows_deleted_for_their_age_are_told_and_no_damage(folder: LogFolder) -> None:
    """Retention is what the owner asked for; noted twice, after a crash, it counts once."""
    [path] = converted(folder)
    note_removed(folder, path, "expired")
    assert verify(folder).removed == 0  # killed before it was done
    note_removed(folder, path, "expired")
    path.unlink()
    verdict = verify(folder)

    assert sound(verdict)
    assert (verdict.rows, verdict.removed, verdict.missing) == (0, 1, 0)


def test_a_file_that_somebody_deleted_is_missed(folder: LogFolder) -> None:
    """Nothing else would tell."""
    [path] = converted(folder)
    path.unlink()
    verdict = verify(folder)

    assert not sound(verdict)
    assert verdict.missing == 1
    assert "1 rows are missing" in verdict.problems[0]


def test_a_writer_that_has_more_than_it_was_offered_does_not_add_up(folder: LogFolder) -> None:
    """No writer can."""
    kit.ledger(folder.root, offered=1, logged=1).close()
    kit.segment(folder.root, [kit.row(1), kit.row(2)])
    verdict = verify(folder)

    assert not verdict.sound
    assert verdict.problems[0] == "node/worker-0-11-aa has 1 rows more than it was offered"


def test_segments_without_a_ledger_are_not_accounted_for(folder: LogFolder) -> None:
    """Their rows are read, and cannot be checked."""
    kit.segment(folder.root, [kit.row(1)])
    verdict = verify(folder)

    assert not verdict.sound
    assert "has segments and no ledger" in verdict.problems[0]
