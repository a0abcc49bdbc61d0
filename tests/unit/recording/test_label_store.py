import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from serving.recording.label import Label
from serving.recording.labels import LabelStore, LabelStoreBusy, journal_table, part_files

WRITER = """
import sys
from pathlib import Path
from serving.recording.labels import LabelStore
sys.path.insert(0, str(Path(sys.argv[2])))
from test_label_store import label
store = LabelStore(Path(sys.argv[1]), compact_bytes=20_000)
number = 0
while True:
    store.append([label(number + one) for one in range(25)], actor="a", received=1)
    number += 25
    print(number, flush=True)
    if store.wants_compacting:
        store.compact()
"""


def label(number: int, model: str = "demo", value: float = 1.0) -> Label:
    """A label of prediction `number`."""
    return Label(
        model=model, prediction_id=f"{number:x}~0~{model}~v1~production", row=0, entity="", time=0,
        tolerance=0.0, number=value, text="", label_time=2, source="test",
    )  # fmt: skip


def kept(folder: Path, model: str = "demo") -> list[tuple[int, str]]:
    """Revision and prediction of every label that readers see, each revision once."""
    tables = [journal_table(folder, model)[0]]
    tables += [pq.read_table(part) for part in part_files(folder, model)]
    rows = {
        (row["revision"], row["prediction_id"]) for table in tables for row in table.to_pylist()
    }
    return sorted(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where labels go."""
    return tmp_path / "labels"


def test_revisions_go_on_over_restarts_and_compaction(folder: Path) -> None:
    """A label's revision is its place in the order of arrival, for good."""
    store = LabelStore(folder)
    assert store.append([label(1), label(2)], actor="a", received=1) == 1
    assert store.compact() == 2
    assert store.append([label(3)], actor="a", received=1) == 3
    store.close()

    again = LabelStore(folder)

    assert again.append([label(4, "other")], actor="b", received=2) == 4
    assert [revision for revision, _ in kept(folder)] == [1, 2, 3]
    assert [revision for revision, _ in kept(folder, "other")] == [4]
    again.close()


def test_a_compaction_that_was_cut_short_loses_and_doubles_nothing(folder: Path) -> None:
    """The part is there and the journal is not empty yet: done again it is the same part."""
    store = LabelStore(folder)
    store.append([label(1), label(2)], actor="a", received=1)
    before = (folder / "journal.jsonl").read_bytes()
    store.compact()
    (folder / "journal.jsonl").write_bytes(before)

    seen = kept(folder)
    store.compact()

    assert [revision for revision, _ in seen] == [1, 2]
    assert kept(folder) == seen
    assert len(part_files(folder, "demo")) == 1
    store.close()


@pytest.mark.parametrize("damage", [b"", b"torn", b'00000000 {"first": 2}\n', b"\xff\xfe\n"])
def test_what_cannot_be_read_is_reported_and_the_rest_is_read(folder: Path, damage: bytes) -> None:
    """A torn last line, a wrong checksum, noise: labels before and behind it are there."""
    store = LabelStore(folder)
    store.append([label(1)], actor="a", received=1)
    size = (folder / "journal.jsonl").stat().st_size
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(damage)
    store.close()

    again = LabelStore(folder)
    again.append([label(2)], actor="a", received=1)

    assert [(lost.offset, lost.bytes) for lost in again.lost] == (
        [(size, len(damage))] if damage else []
    )
    assert [revision for revision, _ in kept(folder)] == [1, 2]
    assert journal_table(folder, "demo")[1] == (1 if damage else 0)
    again.compact()
    assert journal_table(folder, "demo")[1] == 0
    assert len(list(folder.glob("*.damaged"))) == (1 if damage else 0)
    again.close()


def test_a_flipped_bit_in_the_middle_costs_one_batch(folder: Path) -> None:
    """Checksums tell; its neighbours hold."""
    store = LabelStore(folder)
    for number in range(3):
        store.append([label(number)], actor="a", received=1)
    store.close()
    content = bytearray((folder / "journal.jsonl").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "journal.jsonl").write_bytes(content)

    again = LabelStore(folder)

    assert len(again.lost) == 1
    assert [revision for revision, _ in kept(folder)] == [1, 3]
    again.close()


def test_a_killed_writer_leaves_what_it_said_it_had(folder: Path) -> None:
    """Kill -9 while it appends and compacts, again and again: whole batches, in order, no gap."""
    acknowledged = 0
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout
        lines = [writer.stdout.readline() for _ in range(13)]
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        acknowledged += int([line for line in lines if line.endswith("\n")][-1])

    store = LabelStore(folder)
    revisions = [revision for revision, _ in kept(folder)]
    store.close()

    assert revisions == list(range(1, len(revisions) + 1))
    assert len(revisions) % 25 == 0
    # A batch may be on the disk and its writer killed before it said so: one for each kill.
    assert acknowledged <= len(revisions) <= acknowledged + 4 * 25


def test_one_process_writes(folder: Path) -> None:
    """A second is refused until the first lets go."""
    first = LabelStore(folder)

    with pytest.raises(LabelStoreBusy):
        LabelStore(folder)

    first.close()
    LabelStore(folder).close()


def test_old_parts_go_and_revisions_are_not_given_again(folder: Path) -> None:
    """The newest part stays, whatever its age: its name holds the last revision."""
    store = LabelStore(folder)
    for number in range(2):
        store.append([label(number)], actor="a", received=10 + number)
        store.compact()

    gone = store.expire(before=1000)
    store.close()

    assert gone == 1
    again = LabelStore(folder)
    assert again.append([label(7)], actor="a", received=2000) == 3
    again.close()


def test_nothing_to_append_or_compact_leaves_no_file(folder: Path) -> None:
    """An empty list is no batch."""
    store = LabelStore(folder)

    store.append([], actor="a", received=1)

    assert store.compact() == 0
    assert not store.wants_compacting
    assert not (folder / "journal.jsonl").exists()
    store.close()


def test_what_is_erased_is_in_no_file_any_more(folder: Path) -> None:
    """By row of a prediction and by entity; damaged places go too, and revisions go on."""
    store = LabelStore(folder)
    person = replace(label(9), prediction_id="", entity="person_id=7", time=5)
    store.append([label(1), label(2)], actor="a", received=1)
    store.compact()
    store.append([person, label(3)], actor="a", received=1)
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b"person_id=7 torn")

    gone = store.erase("demo", {"person_id=7"}, {(label(2).prediction_id, 0)})

    assert gone == 2
    assert [revision for revision, _ in kept(folder)] == [1, 4]
    for path in folder.rglob("*"):
        assert path.is_dir() or b"person_id=7" not in path.read_bytes()
    assert store.append([label(4)], actor="a", received=1) == 5
    store.close()
