"""A rollout's book on control's own disk: `book.snapshot`, and `evidence.log` with what came since.

What is appended is on the disk before `append` returns. A frame that a crash cut off was not
confirmed to anybody, so it is cut off here too: workers still have it. The log is emptied after a
snapshot has been put in its place whole; if a crash comes between the two, the log begins with
frames that are in the snapshot, and they are skipped.

Whatever waits for the disk is to be called in a thread, one call at a time.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from serving.config.schema import Rule
from serving.control.stores.evidence_store import StoredBook
from serving.files import write_whole
from serving.rollout.book import Book
from serving.rollout.book_codec import (
    Frame,
    continued,
    decode_frame,
    decode_picture,
    encode_frame,
    encode_picture,
    frames_in,
    picture_of,
    restored,
)
from serving.rollout.wire import Unfolded

__all__ = ["RolloutEvidenceLog"]

_PICTURE: Final = "book.snapshot"
_LOG: Final = "evidence.log"


class RolloutEvidenceLog:
    """The book of one rollout, with its files; one process has them.

    Args:
        folder: `DATA/rollouts/MODEL/ID`, made if it is not there.
        rules: of the plan.

    Raises:
        OSError: the disk's own errors.
    """

    def __init__(self, folder: Path, rules: Iterable[Rule]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._rules = list(rules)
        self.damage = ""
        """What of the files could not be read, in words; empty: nothing."""

        self.cut = 0
        """Bytes of the log that were no whole frame, or came after that, and were taken away."""

        self.position = 0
        """Of the last frame that is in the book."""

        self.book = self._pictured()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(folder / _LOG, flags, 0o600)
        self._size = self._replayed()

    @property
    def size(self) -> int:
        """Bytes of the log."""
        return self._size

    def follow(self, rules: Iterable[Rule]) -> None:
        """Take the rules of a plan that was changed."""
        self._rules = list(rules)
        self.book.follow(self._rules)

    def append(self, added: list[Unfolded]) -> bytes:
        """Write down what is new, add it to the book, and tell how it was written."""
        frame = self.write(added)
        for unfolded in added:
            self.book.add(unfolded)
        self.advance(frame)
        return frame

    def write(self, added: list[Unfolded]) -> bytes:
        """Write down what is `Book.fresh`, and wait for the disk.

        Then add it to the book, and `advance`; what is written next is written over it otherwise.

        Returns:
            The frame as it was written.

        Raises:
            OSError: the log is as it was, as soon as the disk can be written.
        """
        frame = encode_frame(Frame(self.position + 1, added))
        self._cut()
        written = 0
        while written < len(frame):
            written += os.pwrite(self._descriptor, frame[written:], self._size + written)
        os.fdatasync(self._descriptor)
        return frame

    def advance(self, frame: bytes) -> None:
        """Count a frame as written: what is in it is in the book."""
        self._size += len(frame)
        self.position += 1

    def picture(self) -> bytes:
        """The whole book, to be written down; up to 200 ms for each of its sets."""
        return encode_picture(picture_of(self.book, self.position))

    def compact(self, picture: bytes) -> None:
        """Put a picture of the book, as it is now, in place of the log. Raises OSError."""
        write_whole(self._folder / _PICTURE, picture)
        self._size = 0
        self._cut()

    def adopt(self, stored: StoredBook) -> bool:
        """Go on from the store's copy of the book, unless it lacks something that is in this one.

        Returns:
            Whether it is the book now.

        Raises:
            ValueError: it cannot be read, or is not whole. OSError: nothing has changed.
        """
        book, position = Book(self._rules), 0
        if stored.picture:
            picture = decode_picture(stored.picture)
            book, position = restored(picture, self._rules), picture.position
        position = continued(book, position, map(decode_frame, stored.frames))
        if position != stored.mark:
            raise ValueError(f"it ends at frame {position} and not at {stored.mark}")
        theirs = book.folded
        if any(number > theirs.get(one, 0) for one, number in self.book.folded.items()):
            return False
        write_whole(self._folder / _PICTURE, encode_picture(picture_of(book, position)))
        self.book, self.position, self._size = book, position, 0
        self._cut()
        return True

    def close(self) -> None:
        """Let go of the files. Afterwards nothing may be called."""
        with suppress(OSError):
            os.close(self._descriptor)

    def _pictured(self) -> Book:
        path = self._folder / _PICTURE
        try:
            picture = decode_picture(path.read_bytes())
            book = restored(picture, self._rules)
        except FileNotFoundError:
            return Book(self._rules)
        except ValueError as error:
            path.replace(path.with_suffix(".damaged"))
            self.damage = f"{_PICTURE}: {error}"
            return Book(self._rules)
        self.position = picture.position
        return book

    def _replayed(self) -> int:
        """Add the log's frames; the end of the last one. What comes after that is cut off."""
        content = (self._folder / _LOG).read_bytes()
        good = 0
        for frame, end in frames_in(content):
            try:
                self.position = continued(self.book, self.position, [frame])
            except ValueError as error:
                self.damage = self.damage or f"{_LOG}: {error}"
                break
            good = end
        if self.damage:
            write_whole(self._folder / f"{_LOG}.damaged", content)
        self.cut = len(content) - good
        if self.cut:
            os.ftruncate(self._descriptor, good)
            os.fdatasync(self._descriptor)
        return good

    def _cut(self) -> None:
        """Take away what lies behind the log's end: a write that the disk refused halfway."""
        if os.fstat(self._descriptor).st_size > self._size:
            os.ftruncate(self._descriptor, self._size)
            os.fdatasync(self._descriptor)
