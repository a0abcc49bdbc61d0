import os
from pathlib import Path

import pytest

from serving.files import append_line, try_lock, write_whole


def test_a_file_is_replaced_as_a_whole_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """The new content is there, the mode is 0600, and no temporary file is left."""
    path = tmp_path / "snapshot.json"
    write_whole(path, b"old")
    write_whole(path, b"new")

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_exclusive_write_does_not_replace(tmp_path: Path) -> None:
    """Of two processes that make the same secret, the first wins."""
    path = tmp_path / "admin.token"
    write_whole(path, b"first", exclusive=True)

    with pytest.raises(FileExistsError):
        write_whole(path, b"second", exclusive=True)

    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the new content, not the old one."""
    path = tmp_path / "snapshot.json"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("serving.files.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_after_a_torn_one_stands_alone(tmp_path: Path) -> None:
    """What a crash cut off does not swallow the next line."""
    path = tmp_path / "journal.jsonl"
    append_line(path, b"first")
    with path.open("ab") as file:
        file.write(b'{"torn')

    append_line(path, b"second")

    assert path.read_bytes() == b'first\n{"torn\nsecond\n'


def test_a_file_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """Until its descriptor is closed; nothing stays open of those who came in vain."""
    path = tmp_path / "lock"
    lock = try_lock(path)
    assert lock is not None
    before = len(list(Path("/proc/self/fd").iterdir()))

    assert [try_lock(path) for _ in range(3)] == [None] * 3

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(lock)
    again = try_lock(path)
    assert again is not None
    os.close(again)


def test_where_no_file_can_be_made_nothing_is_held(tmp_path: Path) -> None:
    """That is an error, and not somebody else's lock."""
    with pytest.raises(FileNotFoundError):
        try_lock(tmp_path / "missing" / "lock")
