import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving.quarantine import last_words, marks
from serving.quarantine.marks import Marks, unseen

SHA = "a" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a process keeps its marks."""
    return tmp_path / "worker-0.running"


def test_what_is_marked_is_read_by_others_while_it_runs(path: Path) -> None:
    """Version, bytes and thread; nothing between runs."""
    mark = Marks(path).take("m", "v1", SHA)
    assert marks.read(path) == []

    mark.cell[0] = 77
    [seen] = marks.read(path)
    mark.cell[0] = 0

    assert (seen.model, seen.version, seen.sha256, seen.thread) == ("m", "v1", SHA, 77)
    assert not seen.loading
    assert marks.read(path) == []


def test_loading_is_told_from_running_and_ends_with_a_failure(path: Path) -> None:
    """A version that cannot be loaded is not being run for ever."""
    mark = Marks(path).take("m", "v1", SHA)
    seen = []

    def load() -> None:
        with mark.loading():
            seen.extend(marks.read(path))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load()

    assert seen[0].loading
    assert seen[0].thread == threading.get_ident()
    assert marks.read(path) == []


def test_several_versions_run_at_once(path: Path) -> None:
    """Each has its own place."""
    ours = Marks(path)
    for number, version in enumerate(("v1", "v2", "v3"), start=1):
        ours.take("m", version, SHA).cell[0] = number

    assert {one.version: one.thread for one in marks.read(path)} == {"v1": 1, "v2": 2, "v3": 3}


def test_a_place_is_used_again_under_its_new_name(path: Path) -> None:
    """A worker loads and unloads for months."""
    ours = Marks(path)
    for number in range(3000):
        mark = ours.take("m", f"v{number}", SHA)
        mark.cell[0] = 1
        assert [one.version for one in marks.read(path)] == [f"v{number}"]
        mark.cell[0] = 0
        ours.free(mark)


def test_past_the_last_place_versions_run_unseen(path: Path) -> None:
    """They run; that nobody is blamed for a crash is all that is lost."""
    ours = Marks(path)
    taken = [ours.take("m", f"v{number}", SHA) for number in range(1100)]
    for mark in taken:
        mark.cell[0] = 1

    assert len(marks.read(path)) == 1023


def test_a_long_name_fits(path: Path) -> None:
    """The longest that a configuration may hold."""
    Marks(path).take("m" * 64, "v" * 64, SHA).cell[0] = 1

    [seen] = marks.read(path)
    assert (seen.model, seen.version) == ("m" * 64, "v" * 64)


def test_a_new_process_begins_anew_and_leaves_nothing_when_it_ends_in_order(path: Path) -> None:
    """What its predecessor left has been read by then."""
    Marks(path).take("m", "v1", SHA).cell[0] = 1
    successor = Marks(path)
    assert marks.read(path) == []

    successor.close()

    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"sluicem1" + bytes(600), b"sluiceq1" + bytes(9)])
def test_a_foreign_or_cut_file_says_nothing(path: Path, content: bytes) -> None:
    """Nor does one that is not there."""
    path.write_bytes(content)

    assert marks.read(path) == []
    assert marks.read(path.with_name("gone")) == []


def test_an_unseen_mark_takes_the_same_stores() -> None:
    """For sessions outside a supervised process."""
    with unseen().loading():
        pass


CRASH = """
import signal, sys, threading
from pathlib import Path
from serving.quarantine import last_words
from serving.quarantine.marks import Marks
last_words.leave(Path(sys.argv[2]))
ours = Marks(Path(sys.argv[1]))
ours.take("m", "innocent", "a" * 64).cell[0] = threading.get_ident()
guilty = ours.take("m", "guilty", "b" * 64)
def die():
    with guilty.loading():
        signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
thread = threading.Thread(target=die)
thread.start()
thread.join()
"""


def test_a_process_that_crashes_leaves_its_marks_and_its_thread(tmp_path: Path) -> None:
    """A real one, by a signal in its second thread."""
    running, crash = tmp_path / "running", tmp_path / "crash"
    words = [sys.executable, "-c", CRASH, str(running), str(crash)]

    ended = subprocess.run(words, capture_output=True, timeout=60, check=False)

    assert ended.returncode == -signal.SIGSEGV, ended.stderr
    by_version = {one.version: one for one in marks.read(running)}
    assert set(by_version) == {"innocent", "guilty"}
    assert by_version["guilty"].thread == last_words.crashed_thread(crash)
    assert by_version["guilty"].loading


def test_without_last_words_nobody_knows_the_thread(tmp_path: Path) -> None:
    """No file, an empty one, or a crash in a thread that is not Python's."""
    assert last_words.crashed_thread(tmp_path / "none") is None
    (tmp_path / "empty").write_bytes(b"")
    assert last_words.crashed_thread(tmp_path / "empty") is None
    native = b"Fatal Python error: Aborted\n\nThread 0x00007f70 (most recent call first):\n"
    (tmp_path / "native").write_bytes(native)
    assert last_words.crashed_thread(tmp_path / "native") is None
