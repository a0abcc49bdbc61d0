"""A row of the log is seen once, wherever it is on its way."""

import json
from pathlib import Path

import log_files_kit as kit
import pyarrow.parquet as pq
import pytest

from serving.recording.layout import LogFolder
from serving.recording.parquet import SOURCES, convert, merge
from serving.recording.reading import OpenLog, ParquetName, current, parquet_files


def people(log: OpenLog) -> list[int]:
    """Whom the rows that count are about."""
    found: list[int] = []
    for segment in log.segments:
        for batch in log.contents(segment).batches:
            found += batch["entity.person_id"].to_pylist()
    for file in log.parquet:
        found += pq.ParquetFile(file.pinned).read()["entity.person_id"].to_pylist()
    return sorted(found)


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    """An empty log."""
    return LogFolder(tmp_path)


def test_open_sealed_and_parquet_are_read_together(folder: LogFolder) -> None:
    """Whatever state a row's file is in, it is there."""
    kit.parquet(folder.root, [kit.row(1), kit.row(2, kit.EPOCH + kit.HOUR)])
    kit.segment(folder.root, [kit.row(3)], number=1)
    kit.segment(folder.root, [kit.row(4)], number=2, sealed=False)

    with OpenLog(folder) as log:
        assert people(log) == [1, 2, 3, 4]
        assert log.models == ["employment"]


def test_parquet_of_a_segment_that_is_still_there_does_not_count(folder: LogFolder) -> None:
    """It may be half of it: the keeper may have died between two files."""
    segment = kit.segment(folder.root, [kit.row(1), kit.row(2, kit.EPOCH + kit.HOUR)])
    kept = segment.path.read_bytes()
    [first, second] = convert(folder, segment).files
    second.unlink()
    segment.path.write_bytes(kept)

    with OpenLog(folder) as log:
        assert people(log) == [1, 2]
        assert not log.parquet
    assert first.exists()


def test_a_merged_file_stands_for_its_sources(folder: LogFolder) -> None:
    """Also when they are still there: the keeper may have died before it removed them."""
    files = kit.parquet(folder.root, [kit.row(1)]) + kit.parquet(
        folder.root, [kit.row(2)], number=1
    )
    kept = [file.read_bytes() for file in files]
    merged = merge(folder, files)
    files[0].write_bytes(kept[0])

    with OpenLog(folder) as log:
        assert people(log) == [1, 2]
        assert [file.name.path for file in log.parquet] == [merged]


def test_a_merged_file_that_cannot_be_read_replaces_nothing(folder: LogFolder) -> None:
    """Its sources are read instead, and it is told about when it is opened."""
    [file] = kit.parquet(folder.root, [kit.row(1)])
    file.with_name("merged-0123456789abcdef.parquet").write_bytes(b"PAR1 no footer")

    with OpenLog(folder) as log:
        [sound] = [one for one in log.parquet if log.metadata(one) is not None]
        assert people(log) == [1]
        assert sound.name.path == file
        assert [damage.file for damage in log.damages] == [
            "parquet/model=employment/hour=2025-10-09T09/merged-0123456789abcdef.parquet"
        ]


def test_files_stay_readable_when_they_are_merged_or_deleted(folder: LogFolder) -> None:
    """A reader is not disturbed by the keeper."""
    files = kit.parquet(folder.root, [kit.row(1)]) + kit.parquet(
        folder.root, [kit.row(2)], number=1
    )
    segment = kit.segment(folder.root, [kit.row(3)], number=2)
    with OpenLog(folder) as log:
        merge(folder, files).unlink()
        convert(folder, segment)

        assert people(log) == [1, 2, 3]


def test_only_the_models_and_hours_that_are_wanted_are_opened(folder: LogFolder) -> None:
    """The rest costs nothing."""
    kit.parquet(folder.root, [kit.row(1), kit.row(2, kit.EPOCH + kit.HOUR)])
    kit.parquet(folder.root, [kit.row(3)], model="fraud", number=1)

    with OpenLog(folder, {"employment"}, since=kit.EPOCH + kit.HOUR + 1.0) as log:
        assert people(log) == [2]
    with OpenLog(folder, until=kit.EPOCH + kit.HOUR - 1.0) as log:
        assert people(log) == [1, 3]


def test_a_segment_that_is_older_than_what_is_wanted_is_left_out(folder: LogFolder) -> None:
    """Its rows were made before it was last written."""
    name = kit.segment(folder.root, [kit.row(1)])
    written = name.path.stat().st_mtime

    with OpenLog(folder, since=written + 60.0) as log:
        assert not log.segments
    with OpenLog(folder, since=written - 60.0) as log:
        assert len(log.segments) == 1


def test_damage_is_told_and_the_rest_is_read(folder: LogFolder) -> None:
    """One bad batch of three costs two rows, not six."""
    path = kit.segment(folder.root, [kit.row(n) for n in range(6)]).path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)

    with OpenLog(folder) as log:
        assert people(log) == [0, 1, 4, 5]
        [damage] = log.damages
        assert damage.file == "segments/node/worker-0-11-aa/employment~v1~0.arrows"
        assert damage.offset < len(data) // 2 < damage.offset + damage.length


def test_the_torn_end_of_an_open_segment_is_no_damage(folder: LogFolder) -> None:
    """It is being written, or was when its writer died."""
    path = kit.segment(folder.root, [kit.row(n) for n in range(4)], sealed=False).path
    path.write_bytes(path.read_bytes()[:-10])

    with OpenLog(folder) as log:
        assert people(log) == [0, 1]
        assert not log.damages


def test_temporary_files_and_strangers_are_not_of_the_log(folder: LogFolder) -> None:
    """Half-written files are hidden ones; a file outside an hour is nobody's."""
    [file] = kit.parquet(folder.root, [kit.row(1)])
    file.with_name(f".{file.name}").write_bytes(b"")
    (folder.parquet / "stray.parquet").write_bytes(b"")

    assert [one.path for one in parquet_files(folder)] == [file]


def test_of_several_mergers_the_last_counts(tmp_path: Path) -> None:
    """A merged file may itself have been merged."""
    hour = tmp_path / "model=m" / "hour=2025-10-09T09"
    names = ["w~v1~0.parquet", "merged-a.parquet", "merged-b.parquet"]
    files = [ParquetName.parse(hour / name) for name in names]
    found = [file for file in files if file is not None]
    sources = {hour / "merged-a.parquet": names[:1], hour / "merged-b.parquet": names[1:2]}

    assert [file.path.name for file in current(found, set(), sources)] == ["merged-b.parquet"]


def test_sources_are_what_the_keeper_writes(folder: LogFolder) -> None:
    """Reader and writer mean the same key."""
    files = kit.parquet(folder.root, [kit.row(1)]) + kit.parquet(
        folder.root, [kit.row(2)], number=1
    )
    metadata = pq.read_metadata(merge(folder, files)).metadata

    assert json.loads(metadata[SOURCES]) == sorted(file.name for file in files)
