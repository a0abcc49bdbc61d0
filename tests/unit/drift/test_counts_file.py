"""Counts outlive their process, and become windows."""

from pathlib import Path

import numpy as np
import pytest

from serving.control.monitoring.drift_parts import DriftParts
from serving.drift.count_layout import CountLayout
from serving.drift.counts_file import CountKey, CountsFile, is_alive, read_counts
from serving.drift.windows import Part, stretches, windows_of

LAYOUT = CountLayout((("a", 2),), (), ())
KEY = CountKey("m", "v1", "production", "r", LAYOUT)
OTHER = CountKey("m", "v2", "shadow", "r", LAYOUT)


def worker(folder: Path, name: str = "worker") -> CountsFile:
    """A file as a worker has one."""
    return CountsFile(folder / f"{name}.counts")


def totals(parts: list[Part]) -> list[int]:
    """Everything in some parts, of `KEY`."""
    return sum(
        (part.counts[KEY] for part in parts if KEY in part.counts), np.zeros(3, int)
    ).tolist()


def test_what_is_added_can_be_read_by_another_process(tmp_path: Path) -> None:
    """While it runs, and after."""
    file = worker(tmp_path)
    file.vector(KEY)[:] += [3, 1, 2]
    file.vector(OTHER)[0] += 5
    path = tmp_path / "worker.counts"

    assert is_alive(path)
    assert {key: list(counts) for key, counts in read_counts(path).items()} == {
        KEY: [3, 1, 2],
        OTHER: [5, 0, 0],
    }
    file.close()
    assert not is_alive(path)
    assert list(read_counts(path)[KEY]) == [3, 1, 2]


def test_a_full_file_counts_no_new_key_and_harms_nobody(tmp_path: Path) -> None:
    """The worker goes on; the known keys go on counting."""
    file = CountsFile(tmp_path / "worker.counts", 250)
    file.vector(KEY)[0] += 1
    file.vector(OTHER)[0] += 1
    file.vector(KEY)[0] += 1

    assert {key: counts[0] for key, counts in read_counts(tmp_path / "worker.counts").items()} == {
        KEY: 2
    }


def test_something_else_is_refused(tmp_path: Path) -> None:
    """By name."""
    (tmp_path / "x").write_bytes(b"something else altogether")
    with pytest.raises(ValueError, match="x holds no counts"):
        read_counts(tmp_path / "x")


def test_a_part_is_what_was_counted_since_the_last(tmp_path: Path) -> None:
    """By all workers together; nothing twice."""
    one, two = worker(tmp_path, "one"), worker(tmp_path, "two")
    parts = DriftParts(tmp_path)
    one.vector(KEY)[:] += [3, 1, 2]
    two.vector(KEY)[:] += [1, 1, 0]
    first = parts.take(100.0)
    one.vector(KEY)[:] += [2, 0, 2]
    second = parts.take(160.0)

    assert first is not None
    assert second is not None
    assert list(first.counts[KEY]) == [4, 2, 2]
    assert list(second.counts[KEY]) == [2, 0, 2]
    assert (second.start, second.end) == (100.0, 160.0)
    assert parts.take(220.0) is None
    assert totals(parts.since(0)) == [6, 2, 4]


def test_looking_takes_nothing_away(tmp_path: Path) -> None:
    """Who asks between two parts sees what has been counted by then."""
    file = worker(tmp_path)
    parts = DriftParts(tmp_path)
    file.vector(KEY)[:] += [3, 1, 2]
    seen = [parts.peek(50.0), parts.peek(60.0)]
    taken = parts.take(100.0)

    assert [list(one.counts[KEY]) for one in (*seen, taken) if one is not None] == [[3, 1, 2]] * 3
    assert parts.peek(110.0) is None


def test_a_worker_that_died_is_counted_to_its_end_and_once(tmp_path: Path) -> None:
    """Its file goes when it has been taken; its counts stay."""
    file = worker(tmp_path)
    parts = DriftParts(tmp_path)
    file.vector(KEY)[:] += [3, 1, 2]
    parts.take(100.0)
    file.vector(KEY)[:] += [1, 1, 0]
    file.close()
    parts.take(160.0)
    parts.take(220.0)

    assert totals(parts.since(0)) == [4, 2, 2]
    assert not list(tmp_path.glob("*.counts"))


@pytest.mark.parametrize("lost", ["nothing", "the line"])
def test_a_restart_neither_loses_nor_doubles(tmp_path: Path, lost: str) -> None:
    """Also when the process died between writing its state and the part's line."""
    file = worker(tmp_path)
    parts = DriftParts(tmp_path)
    file.vector(KEY)[:] += [3, 1, 2]
    parts.take(100.0)
    file.vector(KEY)[:] += [2, 2, 0]
    parts.take(160.0)
    [path] = tmp_path.glob("parts-*")
    if lost == "the line":
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    file.vector(KEY)[:] += [1, 0, 1]
    again = DriftParts(tmp_path)
    again.take(220.0)

    assert totals(again.since(0)) == [6, 3, 3]
    assert [part.end for part in again.since(100.0)] == [160.0, 220.0]


def test_old_parts_are_forgotten(tmp_path: Path) -> None:
    """A day at a time."""
    file = worker(tmp_path)
    parts = DriftParts(tmp_path, keep=86400.0)
    for day in range(5):
        file.vector(KEY)[:] += [1, 1, 0]
        parts.take(day * 86400.0 + 10)

    assert len(list(tmp_path.glob("parts-*"))) == 2


def test_parts_become_windows_of_equal_time(tmp_path: Path) -> None:
    """At multiples of the window since 1970; empty ones are left out, many parts give 30 blocks."""
    file = worker(tmp_path)
    parts = DriftParts(tmp_path)
    for minute in range(300):
        if not 120 <= minute < 240:
            file.vector(KEY)[:] += [1, 1, 0]
        parts.take(minute * 60.0 + 60)
    found = stretches(parts.since(0), KEY, 3600.0)
    windows = windows_of(found)

    assert sum(int(one.total[0]) for one in found) == 180
    assert [len(window.blocks["a"]) for window in windows] == [30, 30, 30]
    assert [int(window.start // 3600) for window in windows] == [0, 1, 4]
    assert stretches(parts.since(0), OTHER, 3600.0) == []
