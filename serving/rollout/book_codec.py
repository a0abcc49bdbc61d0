"""A book on disk and in the store: a picture of it, and frames of what was added after that.

A frame is what one look added: `position`, one more than the frame before, and the new batches.
A picture holds a whole book and the position of the last frame that is in it; frames up to there
are skipped. A picture and the frames after it give the book that was, bit for bit.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from serving.config.schema import Rule
from serving.rollout.bitmap import Bitmap
from serving.rollout.book import Book
from serving.rollout.counts import BookCounts
from serving.rollout.wire import Unfolded

__all__ = [
    "FRAME_HEAD",
    "Frame",
    "Picture",
    "continued",
    "decode_frame",
    "decode_picture",
    "encode_frame",
    "encode_picture",
    "frames_in",
    "picture_of",
    "restored",
]

_FORMAT: Final = 1

FRAME_HEAD: Final = struct.Struct("<II")
"""Before each frame: its bytes, and their CRC-32."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """What one look added."""

    position: int
    added: list[Unfolded]


class Picture(msgspec.Struct, frozen=True, array_like=True):
    """A whole book."""

    format: int
    position: int
    """Of the last frame that is in it; 0: none."""

    counts: BookCounts
    sets: dict[str, bytes]
    """By name: `Bitmap.packed`."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_FRAMES: Final = msgspec.msgpack.Decoder(Frame)
_PICTURES: Final = msgspec.msgpack.Decoder(Picture)


def encode_frame(frame: Frame) -> bytes:
    """As it stands in log and store, with its length and checksum before it."""
    body = _ENCODER.encode(frame)
    return FRAME_HEAD.pack(len(body), zlib.crc32(body)) + body


def decode_frame(data: bytes) -> Frame:
    """Read what `encode_frame` wrote. Raises ValueError for anything else."""
    for frame, end in frames_in(data):
        if end == len(data):
            return frame
        break
    raise ValueError("this is no whole frame of evidence")


def frames_in(data: bytes) -> Iterator[tuple[Frame, int]]:
    """Each of the frames that lie one after another, and where it ends.

    They end at the first that is cut off or damaged.
    """
    start = 0
    while (begin := start + FRAME_HEAD.size) <= len(data):
        size, checksum = FRAME_HEAD.unpack_from(data, start)
        body = memoryview(data)[begin : begin + size]
        if not size or len(body) < size or zlib.crc32(body) != checksum:
            return
        try:
            frame = _FRAMES.decode(body)
        except msgspec.MsgspecError:
            return
        start = begin + size
        yield frame, start


def picture_of(book: Book, position: int) -> Picture:
    """A book as it is now; takes 5 to 200 ms for each set, so call it in a thread."""
    sets = {name: found.packed() for name, found in sorted(book.sets.items())}
    return Picture(_FORMAT, position, book.counts, sets)


def encode_picture(picture: Picture) -> bytes:
    """As it stands on disk and in the store; the last four bytes are a checksum."""
    body = _ENCODER.encode(picture)
    return body + zlib.crc32(body).to_bytes(4, "little")


def decode_picture(data: bytes) -> Picture:
    """Read what `encode_picture` wrote. Raises ValueError for anything else."""
    body, checksum = data[:-4], data[-4:]
    if zlib.crc32(body).to_bytes(4, "little") != checksum:
        raise ValueError("this is no whole book of a rollout, or a damaged one")
    try:
        picture = _PICTURES.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"this is no book of this release: {error}") from error
    if picture.format != _FORMAT:
        raise ValueError(f"books of format {picture.format} cannot be read, only {_FORMAT}")
    return picture


def restored(picture: Picture, rules: Iterable[Rule]) -> Book:
    """The book of a picture. Raises ValueError: its sets are none."""
    sets = {name: Bitmap(packed) for name, packed in picture.sets.items()}
    return Book(rules, counts=picture.counts, sets=sets)


def continued(book: Book, position: int, frames: Iterable[Frame]) -> int:
    """Add frames after `position` to a book; the position of the last one that is in it.

    Raises:
        ValueError: a frame is missing in between.
    """
    for frame in frames:
        if frame.position <= position:
            continue
        if frame.position != position + 1:
            raise ValueError(f"after frame {position} comes {frame.position}; one is missing")
        for unfolded in frame.added:
            book.add(unfolded)
        position = frame.position
    return position
