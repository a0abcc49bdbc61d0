"""A segment is readable whatever happened to its writer or its disk."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.recording.segment import SegmentFollower, SegmentWriter, read_segment

SCHEMA = pa.schema([("number", pa.int64()), ("words", pa.string())])


def batch(first: int, count: int = 10) -> pa.RecordBatch:
    """Rows whose words look like the mark that readers search for."""
    numbers = list(range(first, first + count))
    return pa.record_batch(
        {"number": numbers, "words": [f"crc:{number:08x}" for number in numbers]}, schema=SCHEMA
    )


def numbers(path: Path) -> list[int]:
    """What can be read."""
    return [n for each in read_segment(path).batches for n in each.column(0).to_pylist()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Five batches of ten rows, sealed."""
    writer = SegmentWriter(tmp_path / "segment", SCHEMA)
    for first in range(0, 50, 10):
        writer.write(batch(first))
    writer.close()
    return tmp_path / "segment"


def test_any_arrow_library_reads_it(path: Path) -> None:
    """It is a plain IPC stream."""
    table = pa.ipc.open_stream(path.read_bytes()).read_all()

    assert table["number"].to_pylist() == list(range(50))


def test_an_open_segment_is_read_up_to_now(tmp_path: Path) -> None:
    """A reader needs no end mark."""
    writer = SegmentWriter(tmp_path / "segment", SCHEMA)
    writer.write(batch(0))

    contents = read_segment(tmp_path / "segment")

    assert (contents.rows, contents.sealed, contents.damages) == (10, False, [])
    writer.close()
    assert read_segment(tmp_path / "segment").sealed


def test_cut_anywhere_every_whole_batch_is_there(path: Path) -> None:
    """A killed writer leaves half a message at most: what was whole before it is read."""
    data = path.read_bytes()
    whole = {}
    for length in range(0, len(data) + 1, 8):
        path.write_bytes(data[:length])
        whole[length] = numbers(path)

    assert all(found == list(range(len(found))) for found in whole.values())
    assert {len(found) for found in whole.values()} == {0, 10, 20, 30, 40, 50}
    assert sorted(whole, key=lambda n: len(whole[n])) == sorted(whole)


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_costs_one_batch_and_is_told(
    tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    """The rest stays readable; only a damaged schema takes all along."""
    folder = tmp_path_factory.mktemp("flipped")
    writer = SegmentWriter(folder / "segment", SCHEMA)
    for first in range(0, 50, 10):
        writer.write(batch(first))
    writer.close()
    data = bytearray((folder / "segment").read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    (folder / "segment").write_bytes(data)

    contents = read_segment(folder / "segment")
    found = numbers(folder / "segment")

    assert len(found) in {0, 40, 50}
    assert set(found) <= set(range(50))
    assert contents.damages or not contents.sealed or len(found) == 50
    if len(found) < 50:
        assert contents.damages


def test_a_batch_that_is_being_written_is_never_taken_for_the_end(tmp_path: Path) -> None:
    """Though its values may look like the mark of the end: eight bytes, at any place."""
    like_the_end = [-1, -1, -1, -1, 0, 0, 0, 0]
    schema = pa.schema([("small", pa.int8())])
    writer = SegmentWriter(tmp_path / "whole", schema)
    rows = 0
    for before in range(64, 72):
        # Random ones before, so that they are kept as they are: one of eight places is aligned.
        values = [byte - 128 for byte in os.urandom(before)] + like_the_end
        writer.write(pa.record_batch({"small": values}, schema=schema))
        rows += len(values)
    writer.close()
    whole = (tmp_path / "whole").read_bytes()
    end = b"\xff" * 4 + bytes(4)
    assert end in [whole[at : at + 8] for at in range(0, len(whole) - 8, 8)]
    growing = tmp_path / "growing"
    growing.touch()
    follower = SegmentFollower(growing)
    seen = 0

    with growing.open("ab", buffering=0) as file:
        for byte in whole:
            file.write(bytes([byte]))
            seen += sum(one.num_rows for one in follower.more())
    ended = follower.ended
    follower.close()

    assert (seen, ended) == (rows, True)


def test_a_file_of_something_else_is_damage_not_an_error(tmp_path: Path) -> None:
    """Whatever lies in the folder, reading goes on."""
    (tmp_path / "segment").write_bytes(b"\xff\xff\xff\xff" * 100)

    contents = read_segment(tmp_path / "segment")

    assert (contents.rows, contents.schema) == (0, None)
    assert contents.damages[0].length == 400


def test_a_disk_that_takes_half_a_batch_keeps_the_segment_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half is cut off again, and the next batch follows where it began."""
    writer = SegmentWriter(tmp_path / "segment", SCHEMA)
    writer.write(batch(0))
    write, calls = os.write, []

    def full(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            writer.write(batch(10))
    writer.write(batch(20))
    writer.close()

    assert len(calls) == 2
    assert numbers(tmp_path / "segment") == [*range(10), *range(20, 30)]
    assert read_segment(tmp_path / "segment").damages == []
