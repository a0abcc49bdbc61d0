"""A rollout's book on disk: what was appended is there again, whatever a crash left behind."""

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rollout_book_kit import RULES, errors, random_batch, told

from serving.control.rollouts.evidence_log import RolloutEvidenceLog
from serving.control.stores.evidence_store import StoredBook
from serving.rollout.book import Book
from serving.rollout.book_codec import decode_frame, encode_picture, picture_of
from serving.rollout.wire import Unfolded


def whole(book: Book) -> bytes:
    """All of a book; two are the same if this is."""
    return encode_picture(picture_of(book, 0))


def looks(number: int, seed: int = 1) -> list[list[Unfolded]]:
    """What so many looks add: batches of two workers."""
    rng = random.Random(seed)
    return [
        [told(random_batch(n, rng, keys=20), worker=worker) for worker in "ab"]
        for n in range(1, number + 1)
    ]


def book_of(*added: list[Unfolded]) -> Book:
    """The book that never was on a disk."""
    book = Book(RULES)
    for one in added:
        for unfolded in one:
            book.fold(unfolded)
    return book


def reopened(folder: Path) -> RolloutEvidenceLog:
    """As control starts; closed at once, so that it can be asked and not written."""
    log = RolloutEvidenceLog(folder, RULES)
    log.close()
    return log


def test_a_book_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """Bit for bit, from snapshot and log together."""
    added = looks(6)
    log = RolloutEvidenceLog(tmp_path, RULES)
    for number, one in enumerate(added):
        log.append(one)
        if number == 3:
            log.compact(log.picture())
    log.close()
    again = reopened(tmp_path)

    assert whole(again.book) == whole(log.book) == whole(book_of(*added))
    assert again.position == 6
    assert again.damage == ""


def test_a_log_that_is_cut_anywhere_holds_its_whole_frames(tmp_path: Path) -> None:
    """The rest was not confirmed; told again, the book is complete."""
    added = [[told(errors(number, number, 99))] for number in range(1, 6)]
    log = RolloutEvidenceLog(tmp_path, RULES)
    ends = [0]
    for one in added:
        log.append(one)
        ends.append(log.size)
    log.close()
    path = tmp_path / "evidence.log"
    content = path.read_bytes()

    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        again = RolloutEvidenceLog(tmp_path, RULES)
        frames = sum(end <= cut for end in ends) - 1
        assert again.position == frames
        assert again.book.counts == book_of(*added[:frames]).counts
        assert again.cut == cut - ends[frames]
        if not cut % 10:  # each of these waits for the disk
            for one in added[frames:]:
                again.append(one)
            assert path.read_bytes() == content
        again.close()


def test_a_crash_between_snapshot_and_emptying_counts_nothing_twice(tmp_path: Path) -> None:
    """The log then begins with frames that are in the snapshot."""
    added = looks(4)
    log = RolloutEvidenceLog(tmp_path, RULES)
    for one in added[:3]:
        log.append(one)
    old = (tmp_path / "evidence.log").read_bytes()
    log.compact(log.picture())
    log.close()
    (tmp_path / "evidence.log").write_bytes(old)
    again = RolloutEvidenceLog(tmp_path, RULES)
    again.append(added[3])
    again.close()

    assert whole(reopened(tmp_path).book) == whole(book_of(*added))


def test_damage_in_the_middle_is_cut_off_and_said(tmp_path: Path) -> None:
    """What comes after it cannot be trusted to follow; the rest is there."""
    added = looks(4)
    log = RolloutEvidenceLog(tmp_path, RULES)
    log.append(added[0])
    at = log.size + 20
    for one in added[1:]:
        log.append(one)
    log.close()
    with (tmp_path / "evidence.log").open("r+b") as file:
        file.seek(at)
        file.write(b"\xff\xff\xff\xff")
    again = reopened(tmp_path)

    assert whole(again.book) == whole(book_of(added[0]))
    assert again.cut > 0


@pytest.mark.parametrize("content", [b"", b"not a book", b"\0" * 64])
def test_a_damaged_snapshot_is_said_and_set_aside(tmp_path: Path, content: bytes) -> None:
    """So is the log, whose beginning it was; control goes on with an empty book."""
    log = RolloutEvidenceLog(tmp_path, RULES)
    for number, one in enumerate(looks(2)):
        log.append(one)
        if number == 0:
            log.compact(log.picture())
    log.close()
    (tmp_path / "book.snapshot").write_bytes(content)
    again = reopened(tmp_path)

    assert "book.snapshot" in again.damage
    assert again.book.folded == {}
    assert {path.name for path in tmp_path.glob("*.damaged")} == {
        "book.damaged",
        "evidence.log.damaged",
    }
    assert reopened(tmp_path).damage == ""


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 30])
def test_a_disk_that_is_full_takes_nothing_and_spoils_nothing(tmp_path: Path, room: int) -> None:
    """The book is as it was; once there is room the same is added, and read again."""
    added = looks(3)
    log = RolloutEvidenceLog(tmp_path, RULES)
    log.append(added[0])
    before = whole(log.book)
    with full_disk(log.size + room), pytest.raises(OSError):
        log.append(added[1])
    assert whole(log.book) == before
    for one in added[1:]:
        log.append(one)
    log.close()

    assert whole(reopened(tmp_path).book) == whole(book_of(*added))


def stored(added: list[list[Unfolded]], folder: Path, *, pictured: int) -> StoredBook:
    """What the store has after these looks, with a picture after some of them."""
    folder.mkdir()
    log = RolloutEvidenceLog(folder, RULES)
    picture, frames = b"", []
    for number, one in enumerate(added, 1):
        frames.append(log.append(one))
        if number == pictured:
            picture, frames = log.picture(), []
    log.close()
    return StoredBook(picture, frames, len(added))


@pytest.mark.parametrize("pictured", [0, 2, 4])
def test_an_empty_disk_goes_on_from_the_store(tmp_path: Path, pictured: int) -> None:
    """The same book, and it is on the disk then."""
    added = looks(4)
    copy = stored(added, tmp_path / "other", pictured=pictured)
    log = RolloutEvidenceLog(tmp_path / "mine", RULES)

    assert log.adopt(copy)
    log.close()
    assert whole(reopened(tmp_path / "mine").book) == whole(book_of(*added))
    assert log.position == 4


def test_a_copy_that_lacks_something_is_not_taken(tmp_path: Path) -> None:
    """However many frames it has."""
    log = RolloutEvidenceLog(tmp_path / "mine", RULES)
    log.append([told(errors(1, 7), worker="only here")])
    before = whole(log.book)

    assert not log.adopt(stored(looks(4), tmp_path / "other", pictured=0))
    assert whole(log.book) == before
    log.close()


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda copy: StoredBook(b"-", copy.frames, copy.mark),
        lambda copy: StoredBook(copy.picture, copy.frames[1:], copy.mark),
        lambda copy: StoredBook(copy.picture, copy.frames[:-1], copy.mark),
        lambda copy: StoredBook(copy.picture, [*copy.frames[:-1], b"x"], copy.mark),
        lambda copy: StoredBook(b"", copy.frames, copy.mark),
    ],
)
def test_a_copy_that_is_not_whole_is_refused(tmp_path: Path, spoilt: object) -> None:
    """Nothing changes."""
    copy = stored(looks(5), tmp_path / "other", pictured=2)
    log = RolloutEvidenceLog(tmp_path / "mine", RULES)

    with pytest.raises(ValueError, match=r"frame|book"):
        log.adopt(spoilt(copy))  # type: ignore[operator]
    assert log.position == 0
    log.close()


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Cells are no keys, but nobody else's business either."""
    log = RolloutEvidenceLog(tmp_path / "deep" / "er", RULES)
    frame = log.append([told(errors(1, 7))])
    log.compact(log.picture())
    log.close()

    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "deep/er").iterdir()}
    assert modes == {"evidence.log": 0o600, "book.snapshot": 0o600}
    assert decode_frame(frame).position == 1
    assert (tmp_path / "deep" / "er").stat().st_mode & 0o777 == 0o700
