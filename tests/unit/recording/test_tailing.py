"""The newest rows, and each row that comes, once."""

from pathlib import Path
from typing import Any

import log_files_kit as kit
import pytest

from serving.recording.layout import LogFolder, SegmentName
from serving.recording.parquet import convert, merge
from serving.recording.reading import OpenLog
from serving.recording.row_document import as_json, document
from serving.recording.segment import SegmentFollower, SegmentWriter
from serving.recording.tailing import Follower, Wanted, newest

ALL = Wanted(None, (), ())


class Writer:
    """A segment that grows."""

    def __init__(self, log: Path, number: int = 0) -> None:
        folder = LogFolder(log).writer("node", "worker-0-11-aa")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"employment~v1~{number}.open"
        self._segment = SegmentWriter(self.path, kit.SCHEMA)

    def write(self, *numbers: int) -> None:
        """Add rows."""
        self._segment.write(kit.batch([kit.row(number) for number in numbers]))

    def seal(self) -> SegmentName:
        """Close it, as its writer does."""
        self._segment.close()
        name = SegmentName.parse(self.path.rename(self.path.with_suffix(".arrows")))
        assert name is not None
        return name


def people(rows: list[dict[str, Any]]) -> list[int]:
    """Whom rows are about."""
    return [row["entity.person_id"] for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> LogFolder:
    """An empty log."""
    return LogFolder(tmp_path)


def test_the_newest_are_the_newest_by_their_time(folder: LogFolder) -> None:
    """Whichever file they are in; oldest first, as they would scroll by."""
    kit.parquet(folder.root, [kit.row(n, kit.EPOCH + n) for n in (1, 5, 9)])
    kit.segment(folder.root, [kit.row(n, kit.EPOCH + n) for n in (2, 6)], number=1)
    with OpenLog(folder) as log:
        assert people(newest(log, ALL, 3)) == [5, 6, 9]
        assert people(newest(log, ALL, 100)) == [1, 2, 5, 6, 9]


def test_older_hours_are_read_only_while_rows_are_missing(folder: LogFolder) -> None:
    """Three of the newest hour do not need a file of the hour before, which is damaged."""
    kit.parquet(folder.root, [kit.row(n, kit.EPOCH + kit.HOUR + n) for n in range(3)])
    [old] = kit.parquet(folder.root, [kit.row(9)], number=1)
    old.write_bytes(b"damaged")
    with OpenLog(folder) as log:
        assert people(newest(log, ALL, 3)) == [0, 1, 2]
        assert not log.damages
        assert people(newest(log, ALL, 4)) == [0, 1, 2]
        assert len(log.damages) == 1


def test_only_wanted_roles_and_codes_are_shown(folder: LogFolder) -> None:
    """Filters come before counting."""
    rows = [kit.row(n, kit.EPOCH + n, role="shadow" if n % 2 else "production") for n in range(6)]
    rows[1]["code"] = "INFERENCE_FAILED"
    kit.segment(folder.root, rows)
    with OpenLog(folder) as log:
        assert people(newest(log, Wanted(None, ["shadow"], ["OK"]), 2)) == [3, 5]


def test_what_is_written_later_comes_once(folder: LogFolder) -> None:
    """Before, while and after its file is sealed and becomes Parquet."""
    writer = Writer(folder.root)
    writer.write(1)
    follower = Follower(folder, ALL)
    writer.write(2)
    assert people(follower.more()) == [2]
    assert people(follower.more()) == []
    writer.write(3)
    name = writer.seal()
    assert people(follower.more()) == [3]
    convert(folder, name)
    assert people(follower.more()) == []
    follower.close()


def test_rows_written_just_before_their_file_is_converted_come_too(folder: LogFolder) -> None:
    """The name is gone, and the file is still open."""
    writer = Writer(folder.root)
    writer.write(1)
    follower = Follower(folder, ALL)
    writer.write(2)
    convert(folder, writer.seal())

    assert people(follower.more()) == [2]
    assert people(follower.more()) == []
    follower.close()


def test_a_segment_that_came_and_went_between_two_looks_is_seen(folder: LogFolder) -> None:
    """In the Parquet it became; merging does not bring it back."""
    kit.parquet(folder.root, [kit.row(1)])
    follower = Follower(folder, ALL)
    [made] = kit.parquet(folder.root, [kit.row(2)], number=1)
    assert people(follower.more()) == [2]
    merge(folder, [*folder.parquet.glob("*/*/*.parquet")])
    assert people(follower.more()) == []
    assert not made.exists()
    follower.close()


def test_half_a_message_is_waited_for(folder: LogFolder) -> None:
    """A reader may be faster than the disk."""
    path = kit.segment(folder.root, [kit.row(n) for n in range(4)], sealed=False).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    follower = SegmentFollower(path)
    assert sum(batch.num_rows for batch in follower.more()) == 2
    with path.open("r+b") as file:
        file.write(whole)
    assert sum(batch.num_rows for batch in follower.more()) == 2
    assert not follower.ended
    follower.close()


def test_a_document_groups_columns_and_is_json(folder: LogFolder) -> None:
    """What is missing is left out; what JSON cannot say is null."""
    kit.segment(folder.root, [kit.row(1) | {"feature.AGEP": float("nan")}])
    with OpenLog(folder) as log:
        [row] = newest(log, ALL, 1)
    made = document(row)

    assert made["entity"] == {"person_id": 1}
    assert made["outputs"] == {"label": 1, "probabilities": [0.25, 0.75]}
    assert made["feature_status"] == {"person_profile": "OK"}
    assert "digest" not in made
    assert b'"features":{"AGEP":null}' in as_json(made)
    assert b'"event_time":"2025-10-09T09:00:00Z"' in as_json(made)
