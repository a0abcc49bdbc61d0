"""Labels of a subject go with its rows."""

import json
import zlib
from pathlib import Path
from typing import Any

import log_files_kit as kit
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.files import try_lock
from serving.recording.erasing_labels import erase_labels
from serving.recording.erasures import erase
from serving.recording.layout import LogFolder

STEM = ("199c832da80~tag1", 0)
ID = "199c832da80~tag1~employment~v1~production"


def label(
    prediction_id: str = "", row: int = 0, entity: str = "", number: float = 1.0
) -> list[Any]:
    """One label, as the journal has it."""
    return ["employment", prediction_id, row, entity, 1, 60.0, number, "", 2, "test"]


def line(first: int, *labels: list[Any]) -> bytes:
    """One batch of the journal."""
    body = json.dumps({"first": first, "actor": "a", "received": 3, "labels": labels}).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def batches(journal: Path) -> list[dict[str, Any]]:
    """The journal's batches, each of which has to be whole."""
    found = []
    for one in journal.read_bytes().splitlines():
        checksum, _, body = one.partition(b" ")
        assert int(checksum, 16) == zlib.crc32(body)
        found.append(json.loads(body))
    return found


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A journal of two batches and a part of two rows."""
    folder = tmp_path / "labels"
    part = folder / "parts" / "model=employment" / "000000000001-000000000002.parquet"
    part.parent.mkdir(parents=True)
    (folder / "journal.jsonl").write_bytes(
        line(3, label(ID), label(f"{ID[:-10]}shadow"), label("0~other~employment~v1~production"))
        + line(6, label(entity="person_id=1"), label(entity="person_id=11"))
    )
    table = pa.table(
        {
            "prediction_id": ["", ID],
            "row": pa.array([0, 1], pa.int32()),
            "entity": ["city=x\x1fperson_id=1", ""],
            "number": [0.5, 0.25],
        }
    )
    pq.write_table(table, part)
    return folder


def test_labels_by_entity_and_by_prediction_go(labels: Path) -> None:
    """Also those of copies that shadows got of the same request; not those of another row."""
    done = erase_labels(labels, {"person_id": ["1"]}, {STEM}, None)
    [first, second] = batches(labels / "journal.jsonl")

    assert done.labels == 4
    assert [bool(one[0]) for one in first["labels"]] == [False, False, True]
    assert [one[3] for one in second["labels"]] == ["", "person_id=11"]
    [part] = labels.rglob("*.parquet")
    assert pq.read_table(part, partitioning=None)["number"].to_pylist() == [0.25]


def test_labels_behind_a_blank_keep_their_revision(labels: Path) -> None:
    """They are counted from the batch's first."""
    erase_labels(labels, {"person_id": ["1"]}, {STEM}, None)

    assert [one["first"] for one in batches(labels / "journal.jsonl")] == [3, 6]
    assert [len(one["labels"]) for one in batches(labels / "journal.jsonl")] == [3, 2]


def test_nothing_is_written_where_nothing_is_found(labels: Path) -> None:
    """The files are the same ones, read but not written (so their access times may change)."""

    def files() -> list[tuple[int, ...]]:
        stats = [path.stat() for path in sorted(labels.rglob("*.*"))]
        return [
            (*one[:7], one.st_mtime_ns, one.st_ctime_ns)  # all but when it was last read
            for one in stats
        ]

    before = files()
    done = erase_labels(labels, {"person_id": ["2"]}, set(), None)

    assert (done.labels, done.files) == (0, [])
    assert files() == before


def test_lines_that_cannot_be_read_go(labels: Path) -> None:
    """They may be anybody's."""
    journal = labels / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'00000000 {"first": 9, "person_id=1"\n')
    erase_labels(labels, {"person_id": ["2"]}, set(), None)

    assert len(batches(journal)) == 2


def test_a_subject_s_rows_take_their_labels_along(labels: Path) -> None:
    """By the receipt."""
    log = LogFolder(labels.parent)
    kit.segment(log.root, [kit.row(1), kit.row(2)])
    receipt = erase(log, {"person_id": "1"})

    assert (receipt.rows, receipt.labels) == (1, 4)
    assert receipt.complete


def test_labels_that_another_process_writes_are_left_and_told(labels: Path) -> None:
    """Only one process may write them."""
    lock = try_lock(labels / "lock")
    receipt = erase(LogFolder(labels.parent), {"person_id": "1"})

    assert lock is not None
    assert (receipt.labels, receipt.labels_held, receipt.complete) == (0, True, False)
